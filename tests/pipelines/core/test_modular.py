"""Conditions as blocks of modular pipelines."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import ModularPipelineBlocks
from tiny_transformers import tiny_transformer_pipe
from torch import Tensor
from variants import xl_parts

from weftwork.attention_processors import Style, StyleAdapter
from weftwork.pipelines import ConditionedBlocks, attach, conditions, detach


def drawn(pipe: Any, **more: Any) -> Tensor:
    out = pipe(
        prompt="a person", negative_prompt="x", num_inference_steps=2, output_type="pt", height=64, width=64,
        generator=torch.Generator().manual_seed(0), output="images", **more,
    )  # fmt: skip
    return (out if isinstance(out, Tensor) else torch.stack(list(out))).float()


def opened(folder: Path, blocks: Any, parts: dict[str, Any]) -> Any:
    ConditionedBlocks().save_pretrained(folder)
    made = ModularPipelineBlocks.from_pretrained(str(folder), trust_remote_code=True, blocks=blocks)
    pipe = made.init_pipeline()
    known = {name: part for name, part in parts.items() if name in {one.name for one in blocks.expected_components}}
    pipe.update_components(**known, guider=ClassifierFreeGuidance(guidance_scale=3.0))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", ["xl", "qwen-image"])
def test_conditions_are_an_input_of_modular_pipelines(name: str, tmp_path: Path) -> None:
    if name == "xl":
        blocks, parts = diffusers.StableDiffusionXLAutoBlocks(), xl_parts()
    else:
        blocks, parts = diffusers.QwenImageAutoBlocks(), tiny_transformer_pipe(name).components
    pipe = opened(tmp_path, blocks, parts)
    stock = drawn(pipe)
    denoiser = pipe.unet if name == "xl" else pipe.transformer
    torch.manual_seed(3)
    attach(pipe, style=StyleAdapter.for_denoiser(denoiser, styles=("ink",), token_dim=8, style_dim=4))
    assert torch.equal(drawn(pipe), stock)
    given = {"style": Style("ink", end=0.5)}
    first = drawn(pipe, conditions=given)
    with conditions(pipe, given):
        expected = drawn(pipe)
    assert torch.equal(first, expected) and (first - stock).abs().max() > 1e-4
    with pytest.raises(ValueError, match="conditions: got 'other', attached are: style"):
        drawn(pipe, conditions={"other": Style("ink")})
    assert torch.equal(drawn(pipe), stock)
    detach(pipe)
    assert torch.equal(drawn(pipe), stock)


def test_blocks_without_others_within_are_refused(tmp_path: Path) -> None:
    ConditionedBlocks().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="blocks: got none, expected those of a pipeline"):
        ModularPipelineBlocks.from_pretrained(str(tmp_path), trust_remote_code=True).init_pipeline()
