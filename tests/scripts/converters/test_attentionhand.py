"""AttentionHand's ControlNet becomes diffusers' and a checkpoint again, or is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from torch import Tensor

from weftwork.scripts.cli import main
from weftwork.scripts.converters.attentionhand import CONFIG, from_controlnet, to_controlnet
from weftwork.scripts.converters.command import convert_from_attentionhand, convert_to_attentionhand

SMALL: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


def stock() -> ControlNetModel:
    torch.manual_seed(0)
    model = ControlNetModel(**{**CONFIG, **SMALL})
    for one in model.parameters():
        torch.nn.init.normal_(one)
    return model


def saved(folder: Path, change: Callable[[dict[str, Tensor]], object] = lambda _: None) -> Path:
    """A checkpoint as Lightning writes it, with a tensor of the frozen model."""
    state = from_controlnet(stock())
    state["model.diffusion_model.out.0.weight"] = torch.zeros(3)
    change(state)
    torch.save({"epoch": 1, "state_dict": state}, folder / "attentionhand.ckpt")
    return folder / "attentionhand.ckpt"


def test_both_ways_keep_every_bit(tmp_path: Path) -> None:
    convert_from_attentionhand(saved(tmp_path), tmp_path / "out", **SMALL)
    wanted, model = stock(), ControlNetModel.from_pretrained(tmp_path / "out", use_safetensors=True)
    own = model.state_dict()
    assert own.keys() == wanted.state_dict().keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in wanted.state_dict().items())
    given = torch.randn(1, 4, 8, 8), 5, torch.randn(1, 3, 8)
    control = {"controlnet_cond": torch.rand(1, 3, 64, 64), "return_dict": False}
    with torch.no_grad():
        assert torch.equal(model(*given, **control)[1], wanted.eval()(*given, **control)[1])
    convert_to_attentionhand(tmp_path / "out", tmp_path / "again")
    again = torch.load(tmp_path / "again/attentionhand.ckpt", weights_only=True)["state_dict"]
    first = from_controlnet(wanted)
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)


def test_names_are_the_originals_at_full_size() -> None:
    with torch.device("meta"):
        state = from_controlnet(ControlNetModel(**CONFIG))
    assert len(state) == 340
    wanted = {
        "VAS.time_embed.2.bias": (1280,),
        "VAS.input_hint_block.14.weight": (320, 256, 3, 3),
        "VAS.input_blocks.0.0.weight": (320, 4, 3, 3),
        "VAS.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "VAS.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "VAS.input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "VAS.input_blocks.11.0.emb_layers.1.weight": (1280, 1280),
        "VAS.zero_convs.11.0.weight": (1280, 1280, 1, 1),
        "VAS.middle_block.2.out_layers.3.weight": (1280, 1280, 3, 3),
        "VAS.middle_block_out.0.bias": (1280,),
    }
    assert {name: tuple(state[name].shape) for name in wanted} == wanted
    assert {name: one.shape for name, one in from_controlnet(to_controlnet(state)).items()} == {
        name: one.shape for name, one in state.items()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("VAS.zero_convs.1.0.bias"), "1 are missing .first: VAS.zero_convs.1.0.bias"),
        (lambda state: state.update({"VAS.more": torch.zeros(1)}), "unexpected .first: VAS.more"),
        (lambda state: state.update({"VAS.time_embed.0.bias": torch.zeros(2)}), "time_embedding.linear_1.bias: got"),
        (lambda state: state.clear(), "missing .first: VAS."),
    ],
)
def test_other_files_are_refused(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        convert_from_attentionhand(saved(tmp_path, change), tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


def test_the_command_names_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": [1]}, tmp_path / "list.ckpt")
    assert main(["convert", "attentionhand", str(tmp_path / "list.ckpt"), str(tmp_path / "out")]) == 2
    assert "got a list with other content" in capsys.readouterr().err
    stock().save_pretrained(tmp_path / "model")
    command = ["convert", "attentionhand", str(tmp_path / "model"), str(tmp_path / "again"), "--to", "attentionhand"]
    assert main(command) == 0 and (tmp_path / "again/attentionhand.ckpt").is_file()


def test_controlnets_of_another_layout_are_refused() -> None:
    channels = {"conditioning_embedding_out_channels": (16, 32)}
    with pytest.raises(ValueError, match="got 2, expected 4"):
        from_controlnet(ControlNetModel(**{**CONFIG, **SMALL, **channels}))
