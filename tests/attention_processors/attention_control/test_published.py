"""Attention control beside Attend-and-Excite of diffusers, and beside its equations by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionAttendAndExcitePipeline
from tiny import ALL_LEVELS, tiny_parts, tiny_pipe, tiny_unet

from weftwork.attention_processors import Attend, AttentionControlAdapter
from weftwork.attention_processors.attention_control.loss import attendance, loss_of
from weftwork.pipelines import ConditionedStableDiffusionPipeline

PROMPT = "a b"
TOKENS = (1, 2)
"""Positions of "a" and of "b", one token each, behind the begin token."""


def latents(pipe: Any, steps: int, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(
        PROMPT, num_inference_steps=steps, guidance_scale=3.0, generator=generator, output_type="latent", **options
    ).images


def of_diffusers(steps: int, thresholds: dict[int, float]) -> torch.Tensor:
    parts = {**tiny_parts(), "unet": tiny_unet(**ALL_LEVELS), "safety_checker": None, "feature_extractor": None}
    pipe = StableDiffusionAttendAndExcitePipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    options = {"attn_res": (4, 4), "max_iter_to_alter": steps // 2, "thresholds": thresholds}
    return latents(pipe, steps, token_indices=list(TOKENS), **options)


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize("thresholds", [{}, {0: 0.0171, 1: 0.0174}], ids=["steps", "refinements"])
def test_latents_are_those_of_attend_and_excite(thresholds: dict[int, float]) -> None:
    steps = 4
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline, unet=tiny_unet(**ALL_LEVELS))
    shares = [(index / steps, least) for index, least in thresholds.items()]
    pipe.attach(it=AttentionControlAdapter.for_denoiser(pipe.unet, thresholds=shares))
    wanted, stock = of_diffusers(steps, thresholds), latents(pipe, steps)
    assert (wanted - stock).abs().max() > 1e-2
    for given in ([Attend("a"), Attend("B")], [Attend(tokens=(at, at + 1)) for at in TOKENS]):
        made = latents(pipe, steps, conditions={"it": given})
        torch.testing.assert_close(made, wanted, atol=2e-5, rtol=0)


def test_the_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(6), (1, 9)).astype(np.float64)
    exps = np.exp(100 * maps[0, :, 1:-1])
    shares = (exps / exps.sum(1, keepdims=True)).reshape(3, 3, 4)
    kernel = np.exp(-np.add.outer(np.array([1, 0, 1]), np.array([1, 0, 1])))
    wanted = []
    for tokens in ([1], [2, 3]):
        padded = np.pad(shares[..., [token - 1 for token in tokens]].mean(-1), 1, mode="reflect")
        wanted.append(
            max((padded[y : y + 3, x : x + 3] * kernel).sum() / kernel.sum() for y in range(3) for x in range(3))
        )
    members = torch.zeros(1, 6, 2, dtype=torch.float64)
    members[0, 1, 0] = members[0, 2:4, 1] = 1
    regions = torch.ones(1, 2, 1, 3, 3, dtype=torch.float64)
    attended = attendance(torch.from_numpy(maps), members, regions, begins=True)
    torch.testing.assert_close(attended[0], torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)
    loss, least = loss_of(attended, torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    assert float(loss[0]) == pytest.approx(max(1 - wanted[0], 0.5 * (1 - wanted[1])), abs=1e-9)
    assert float(least[0]) == pytest.approx(min(wanted), abs=1e-9)
