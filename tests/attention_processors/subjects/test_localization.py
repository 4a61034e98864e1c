"""The localization loss: the authors' number, its range, and the layers whose maps it reads."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny import tiny_unet

from weftwork.attention_processors.subjects.localization import localization_loss, localized_layers
from weftwork.scripts.converters.ip_adapter import base_denoiser

REFERENCE = Path(__file__).parents[2] / "data" / "fastcomposer_reference.safetensors"


def test_equals_the_authors_loss() -> None:
    given = load_file(REFERENCE)
    maps = {f"{i}": given[f"map_{i}"].unflatten(0, (2, 2)).mean(1) for i in (0, 1)}
    tokens = torch.where(given["valid"] > 0, given["tokens"], -1)
    loss = localization_loss(maps, {"0": (8, 8), "1": (4, 4)}, given["masks"], tokens)
    assert (loss - given["loss"]).abs().max() <= 1e-5


def test_uniform_attention_is_0_and_perfect_attention_minus_1() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    uniform = torch.full((1, 64, 7), 1 / 7)
    perfect = torch.zeros(1, 64, 7)
    perfect[..., 3] = mask.flatten(2)[0]
    perfect[..., 0] = 1 - perfect[..., 3]
    tokens = torch.tensor([[3]])
    assert abs(float(localization_loss({"a": uniform}, {"a": (8, 8)}, mask, tokens))) < 1e-5
    assert abs(float(localization_loss({"a": perfect}, {"a": (8, 8)}, mask, tokens)) + 1) < 2e-5
    assert abs(float(localization_loss({"a": perfect}, {"a": (8, 8)}, 1 - mask, tokens)) - 1) < 2e-5
    assert float(localization_loss({"a": perfect}, {"a": (8, 8)}, mask, torch.tensor([[-1]]))) == 0


def test_layers_are_those_of_the_middle_blocks() -> None:
    layers = localized_layers(base_denoiser("sd15"))
    assert len(layers) == 11
    blocks = {".".join(name.split(".")[:2]).replace("mid_block.attentions", "mid_block") for name in layers}
    assert blocks == {"down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2"}
    assert len(localized_layers(tiny_unet())) == 4  # of a smaller U-Net all
