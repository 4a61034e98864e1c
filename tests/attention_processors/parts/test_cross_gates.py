"""Cross-gating of a ControlNet's residuals: the authors' block, no effect at first, files, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from safetensors.torch import load_file
from tiny import tiny_parts, tiny_pipe
from torch import Tensor, nn

from weftwork.attention_processors.parts.cross_gates import (
    CrossGate,
    CrossGatedControlNetModel,
    check_several,
    load_controlnet,
)
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.converters.attentionhand import from_controlnet
from weftwork.training.tasks.controlnet import new_controlnet

REFERENCE = Path(__file__).parents[2] / "data" / "maxim_reference.safetensors"


def trained() -> ControlNetModel:
    """A ControlNet that has an effect."""
    net = new_controlnet(tiny_pipe(ConditionedStableDiffusionPipeline), 0.0)
    torch.manual_seed(3)
    outputs: list[Any] = [*net.controlnet_down_blocks, net.controlnet_mid_block]
    for one in outputs:
        nn.init.normal_(one.weight, std=0.1)
    return net


def acting(net: ControlNetModel) -> CrossGatedControlNetModel:
    """The ControlNet with gates that have an effect."""
    gated = CrossGatedControlNetModel.of(net)
    torch.manual_seed(4)
    for one in gated.modules():
        if isinstance(one, CrossGate):
            nn.init.normal_(one.feature_out.weight, std=0.1)
            nn.init.normal_(one.control_out.weight, std=0.1)
    return gated


def drawn(net: Any, **options: Any) -> Tensor:
    """Latents of diffusers' own pipeline."""
    pipe: Any = tiny_pipe(StableDiffusionControlNetPipeline, controlnet=net)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    given = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), **options}
    return pipe("a", image=[image] if isinstance(net, list) else image, output_type="latent", **given).images


@torch.no_grad()
def test_equals_the_authors_block() -> None:
    given = load_file(REFERENCE)
    gate = CrossGate(nn.Conv2d(6, 6, 1))
    own = {name.removeprefix("gate."): one for name, one in given.items() if name.startswith("gate.")}
    assert gate.load_state_dict(own, strict=False).missing_keys == ["weight", "bias"]
    feature, control = (given[name].movedim(-1, 1) for name in ("in_x", "in_y"))
    to_feature, to_control = gate.gated(feature, control)
    changed = control + to_control
    assert (changed - given["out_y"].movedim(-1, 1)).abs().max() < 1e-5
    assert (feature + changed + to_feature - given["out_x"].movedim(-1, 1)).abs().max() < 1e-5
    assert to_feature.abs().max() > 0.1 and to_control.abs().max() > 0.1


@pytest.mark.parametrize("options", [{}, {"controlnet_conditioning_scale": 0.5}, {"control_guidance_end": 0.5}])
def test_new_gates_change_nothing_in_the_stock_pipeline(options: dict[str, Any]) -> None:
    net = trained()
    gated = CrossGatedControlNetModel.of(net)
    plain = drawn(net, **options)
    assert torch.equal(drawn(gated, **options), plain) and torch.equal(drawn([gated], **options), plain)
    changed = drawn(acting(net), **options)
    assert (changed - plain).abs().max() > 1e-3


def test_weight_zero_is_the_frozen_model() -> None:
    net = trained()
    off = {"controlnet_conditioning_scale": 0.0}
    assert torch.equal(drawn(acting(net), **off), drawn(net, **off))


def test_every_gate_learns() -> None:
    gated = acting(trained())
    unet, noise = tiny_parts()["unet"], torch.randn(1, 4, 8, 8)
    given = {"timestep": torch.tensor([5]), "encoder_hidden_states": torch.randn(1, 3, 32), "return_dict": False}
    down, middle = gated(noise, controlnet_cond=torch.rand(1, 3, 64, 64), **given)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    unet(noise, **given, **residuals)[0].square().sum().backward()
    names = [name for name, one in gated.named_parameters() if one.grad is None or not one.grad.any()]
    assert names == []


def test_files_keep_gates_and_the_class(tmp_path: Path) -> None:
    gated, net = acting(trained()), trained()
    gated.save_pretrained(tmp_path / "gated")
    net.save_pretrained(tmp_path / "plain")
    assert {one.suffix for one in (tmp_path / "gated").iterdir()} == {".json", ".safetensors"}
    again = load_controlnet(tmp_path / "gated")
    assert torch.equal(drawn(again), drawn(gated))
    assert type(load_controlnet(tmp_path / "plain")) is ControlNetModel
    assert set(net.state_dict()) < set(gated.state_dict())  # a stock ControlNet's tensors keep their names


def test_other_uses_are_refused() -> None:
    net = trained()
    gated = CrossGatedControlNetModel.of(net)
    with pytest.raises(ValueError, match=r"got a residual that a pipeline changes.*leave guess_mode out"):
        drawn(gated, guess_mode=True)
    with pytest.raises(ValueError, match="controlnets: got one with cross gates among 2"):
        check_several([net, gated])
    check_several([gated])
    with pytest.raises(ValueError, match="features of 6 x 8 at a level"):
        drawn(gated, height=48, width=64)
    with pytest.raises(ValueError, match="keys: got those of cross gates"):
        from_controlnet(gated)
    gate = CrossGate(nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match="got 1 rows of features, expected 2"):
        gate.residual(torch.zeros(1, 4, 8, 8), torch.zeros(2, 4, 8, 8))
