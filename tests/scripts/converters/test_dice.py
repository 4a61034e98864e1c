"""Published DICE-Talk checkpoints become an adapter and files again, or are refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from weftwork.attention_processors import ExpressionAdapter
from weftwork.scripts.cli import main
from weftwork.scripts.converters.command import convert_from_dice, convert_to_dice

REFERENCE = Path(__file__).parents[2] / "data" / "dice_reference.safetensors"
HEADS: dict[str, Any] = {"num_heads": 4}
LAYER = "down_blocks.0.attentions.0.{}transformer_blocks.0.attn2"
LAYERS = [LAYER.format(""), LAYER.format("temporal_")]


def states() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts as the authors write them, with the weights of the recorded module."""
    given = load_file(REFERENCE)
    module = {name.removeprefix("emo_model."): one for name, one in given.items() if name.startswith("emo_model.")}
    module["classifier.fc1.weight"] = torch.zeros(2, 3)
    unet = {"conv_in.weight": torch.zeros(4, 4, 1, 1)}
    for layer in LAYERS:
        own = {name.removeprefix("processor."): one for name, one in given.items() if name.startswith("processor.")}
        unet |= {f"{layer}.processor.{name}": one.clone() for name, one in own.items()}
    return module, unet


def written(folder: Path, change: Callable[[dict[str, Tensor], dict[str, Tensor]], object] = lambda *_: None) -> Path:
    module, unet = states()
    change(module, unet)
    folder.mkdir()
    torch.save(module, folder / "emo_model.pth")
    torch.save(unet, folder / "unet.pth")
    return folder


@torch.no_grad()
def test_the_adapter_computes_what_the_module_did(tmp_path: Path) -> None:
    convert_from_dice(written(tmp_path / "in"), tmp_path / "out", **HEADS)
    given, adapter = load_file(REFERENCE), ExpressionAdapter.from_pretrained(tmp_path / "out")
    assert adapter.config["layers"] == dict.fromkeys(LAYERS, 32)
    assert adapter.config["base"] == {"family": "UNetSpatioTemporalConditionModel", "context_dim": 32}
    for bank in ("all", "nearest"):
        adapter = ExpressionAdapter.from_pretrained(tmp_path / "out", bank=bank)
        assert (adapter.tokens(given["mu"].flatten(0, 3))[0] - given[bank][0]).abs().max() <= 1e-5


def test_both_ways_keep_every_bit(tmp_path: Path) -> None:
    convert_from_dice(written(tmp_path / "in"), tmp_path / "out", **HEADS)
    convert_to_dice(tmp_path / "out", tmp_path / "again", **HEADS)
    module, unet = states()
    del module["classifier.fc1.weight"]
    wanted = module, {name: one for name, one in unet.items() if "_ip.1." in name}
    for name, tensors in zip(("emo_model.pth", "unet.pth"), wanted, strict=True):
        found = torch.load(tmp_path / "again" / name, weights_only=True)
        assert found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda module, _: module.pop("emo_linear.proj2.bias"), "first: tokens.query_tokens.proj2.bias"),
        (lambda module, _: module.update({"more": torch.zeros(1)}), "unexpected .first: tokens.more"),
        (lambda module, _: module.pop("codebook.codebook.weight"), "codebook.codebook.weight: got none"),
        (lambda module, _: module.update({"codebook.fc.bias": torch.zeros(3)}), r"tokens.to_code.bias: got shape"),
        (lambda _, unet: unet.pop(f"{LAYERS[0]}.processor.to_v_ip.1.weight"), "first: to_value.down_blocks-0"),
    ],
)
def test_other_files_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        convert_from_dice(written(tmp_path / "in", change), tmp_path / "out", **HEADS)
    assert not (tmp_path / "out").exists()


def test_adapters_that_the_format_cannot_hold_are_refused(tmp_path: Path) -> None:
    convert_from_dice(written(tmp_path / "in"), tmp_path / "out", **HEADS)
    adapter = ExpressionAdapter.from_pretrained(tmp_path / "out")
    named = ExpressionAdapter(**{**adapter.config, "expressions": ["smile"]})
    named.save_pretrained(tmp_path / "named")
    with pytest.raises(ValueError, match=r"expressions: got \['smile'\], but a DICE-Talk checkpoint always means \[\]"):
        convert_to_dice(tmp_path / "named", tmp_path / "again", **HEADS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = written(tmp_path / "in")
    assert main(["convert", "dice", str(source), str(tmp_path / "out")]) == 0
    assert main(["convert", "dice", str(tmp_path / "out"), str(tmp_path / "again"), "--to", "dice"]) == 0
    (source / "unet.pth").unlink()
    assert main(["convert", "dice", str(source), str(tmp_path / "other")]) != 0
    assert "unet.pth: got no file there" in capsys.readouterr().err
