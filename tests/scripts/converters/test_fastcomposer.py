"""Published FastComposer checkpoints become an adapter, its image encoder and U-Net, or are refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny import tiny_unet
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors import SubjectAdapter
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.scripts.cli import main
from weftwork.scripts.converters.command import convert_from_fastcomposer
from weftwork.scripts.converters.fastcomposer import to_unet
from weftwork.scripts.converters.ip_adapter import base_denoiser

REFERENCE = Path(__file__).parents[2] / "data" / "fastcomposer_reference.safetensors"
UNET: dict[str, Any] = {"cross_attention_dim": 12, "attention_head_dim": 8, "norm_num_groups": 32}


def vision() -> CLIPVisionModelWithProjection:
    torch.manual_seed(2)
    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=40, projection_dim=12, num_hidden_layers=2, num_attention_heads=1,
        image_size=32, patch_size=16,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def checkpoint() -> dict[str, Tensor]:
    """A state dict as the authors write it, with the weights of the recorded post-fuse module."""
    parts = {"image_encoder": vision(), "unet": tiny_unet(**UNET), "vae": torch.nn.Linear(2, 2)}
    state = {f"{part}.{name}": value for part, model in parts.items() for name, value in model.state_dict().items()}
    state["image_encoder.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    return state | {name: value for name, value in load_file(REFERENCE).items() if name.startswith("postfuse_module.")}


def written(folder: Path, name: str, change: Callable[[dict[str, Tensor]], object] = lambda state: None) -> Path:
    state = checkpoint()
    change(state)
    path = folder / name
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_parts_compute_what_they_did(name: str, tmp_path: Path) -> None:
    convert_from_fastcomposer(written(tmp_path, name), tmp_path / "out", tiny_unet(**UNET))
    given, adapter = load_file(REFERENCE), SubjectAdapter.from_pretrained(tmp_path / "out")
    rows = given["mask"].bool()
    parts = [given["image"][row, : int(rows[row].sum())] for row in range(3)]
    assert (adapter.fuser(given["text"][rows], torch.cat(parts)) - given["fused"][rows]).abs().max() <= 1e-5
    images = torch.rand(2, 3, 32, 32)
    encoder = ImageEncoder.from_pretrained(str(tmp_path / adapter.config["image_encoder"]))
    assert torch.equal(encoder.pooled(images), ImageEncoder(vision()).pooled(images))
    unet: Any = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet", use_safetensors=True)
    wanted = tiny_unet(**UNET).state_dict()
    assert list(unet.state_dict()) == list(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in unet.state_dict().items())
    adapter.check_base(unet)


def test_the_unet_is_that_of_stable_diffusion() -> None:
    stock = base_denoiser("sd15")
    made = to_unet(stock.state_dict()).config
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in stock.config.items() if name[0] != "_"}
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in made.items() if name in plain} == plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("postfuse_module.mlp1.fc1.bias"), "first: mlp1.fc1.bias"),
        (lambda state: state.update({"postfuse_module.more": torch.zeros(1)}), "unexpected .first: more"),
        (lambda state: state.pop("image_encoder.visual_projection.weight"), "visual_projection.weight: got none"),
        (lambda state: state.update({"image_encoder.more": torch.zeros(1)}), "unexpected .first: more"),
        (lambda state: state.update({"lora.weight": torch.zeros(1)}), "parts: 0 are missing .* lora"),
        (lambda state: state.update({"postfuse_module.mlp2.fc1.bias": torch.zeros(3)}), r"mlp2.fc1.bias: got shape"),
        (lambda state: state.pop("unet.conv_in.bias"), "first: conv_in.bias"),
    ],
)
def test_other_files_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        convert_from_fastcomposer(written(tmp_path, "a.bin", change), tmp_path / "out", tiny_unet(**UNET))
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "a.bin")
    assert main(["convert", "fastcomposer", str(path), str(tmp_path / "out")]) != 0
    assert "width 12" in capsys.readouterr().err  # neither SD 1.5's nor SDXL's
