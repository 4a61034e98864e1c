"""Reference-only attention on stock pipelines: halves of guidance, several prompts, and the noise of references."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    TaylorSeerCacheConfig,
)
from PIL import Image
from tiny import tiny_pipe
from tiny_pipelines import PIPELINES, Tiny, run_tiny
from torch import Tensor

from weftwork.attention_processors import ReferenceOnly, ReferenceOnlyAdapter
from weftwork.attention_processors.core.branch import OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.encoders.latents import ImageLatents
from weftwork.pipelines import ConditionedStableDiffusionPipeline, attach, conditions, detach
from weftwork.pipelines.core.attach import encoded
from weftwork.pipelines.core.sampling import sampling_of

IMAGE = Image.effect_noise((48, 40), 90).convert("RGB")
AUDIO = ("stable_audio", "stable_audio3", "ace_step")
VISUAL = [one for one in PIPELINES if one.vae() is not None and one.name not in AUDIO]


def reference(**options: Any) -> dict[str, ReferenceOnly]:
    return {"images": ReferenceOnly(IMAGE, **options)}


@pytest.mark.parametrize("tiny", VISUAL, ids=lambda one: one.name)
def test_references_act_and_leave_nothing(tiny: Tiny) -> None:
    pipe = tiny.make()
    stock = run_tiny(pipe, tiny.arguments())
    attach(pipe, images=ReferenceOnlyAdapter.for_denoiser(pipe.transformer))
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    with conditions(pipe, reference(weight=0.0)):
        assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    with conditions(pipe, reference()):
        first, again = (run_tiny(pipe, tiny.arguments()) for _ in range(2))
    assert torch.equal(first, again) and (first - stock).abs().max() > 1e-5
    detach(pipe)
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)


# -- U-Nets ------------------------------------------------------------------------------------------------


def drawn(pipe: Any, prompts: list[str], given: Any = None, **options: Any) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    settings = {"num_inference_steps": 3, "output_type": "latent", "generator": generators, **options}
    return pipe(prompts, height=64, width=64, conditions=given, **settings).images


def halves(pipe: Any, given: Any) -> list[Tensor]:
    """Returns both halves of the first prediction."""
    seen: list[Tensor] = []
    hook = pipe.unet.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    drawn(pipe, ["a"], given)
    hook.remove()
    return list(seen[0])


def unet_pipe() -> Any:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(images=ReferenceOnlyAdapter.for_denoiser(pipe.unet))
    return pipe


def test_the_unconditional_half_reads_nothing_unless_it_is_asked_to() -> None:
    pipe = unet_pipe()
    stock, asked, both = halves(pipe, None), halves(pipe, reference()), halves(pipe, reference(cfg="both"))
    assert torch.equal(asked[0], stock[0]) and not torch.allclose(asked[1], stock[1], atol=1e-4)
    assert not torch.allclose(both[0], stock[0], atol=1e-4) and torch.allclose(both[1], asked[1], atol=1e-5)


def test_no_layer_reads_references_after_their_last_step() -> None:
    pipe, counts = unet_pipe(), []
    for end in (1.0, 0.5):
        with patch.object(OwnAttention, "of_queries", autospec=True, side_effect=OwnAttention.of_queries) as read:
            drawn(pipe, ["a"], reference(end=end), num_inference_steps=4)
        counts.append(read.call_count)
    assert counts[0] == 2 * counts[1] > 0


def test_prompts_have_references_of_their_own() -> None:
    pipe, other = unet_pipe(), ReferenceOnly(IMAGE.rotate(180), weight=0.5)
    given = [[*reference().values(), other], [], [other]]
    together = drawn(pipe, ["a", "b", "c"], {"images": given})
    for row in range(3):
        generator = [torch.Generator().manual_seed(row)]
        alone = drawn(pipe, ["abc"[row]], {"images": [given[row]]} if given[row] else None, generator=generator)
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("tiny", [one for one in VISUAL if one.name in ("sd3", "wan")], ids=lambda one: one.name)
def test_references_are_encoded_once_for_all_steps_and_halves(tiny: Tiny) -> None:
    pipe = tiny.make()
    attach(pipe, images=ReferenceOnlyAdapter.for_denoiser(pipe.transformer))
    with patch.object(ImageLatents, "__call__", autospec=True, side_effect=ImageLatents.__call__) as encode:
        with conditions(pipe, reference(cfg="both")):
            run_tiny(pipe, tiny.arguments())
        assert encode.call_count == 1


@torch.no_grad()
def test_residuals_of_a_controlnet_do_not_reach_references() -> None:
    pipe = unet_pipe()
    made, _ = encoded(pipe, reference())
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": 500, "encoder_hidden_states": torch.randn(1, 7, 32)}
    conditioning = Conditioning.of(made, call_layout(pipe.unet, inputs))
    residual = torch.full((1, 1, 1, 1), 0.5)
    control = {"down_block_additional_residuals": (residual,) * 20, "mid_block_additional_residual": residual}
    read: Any = conditioning.strengths[0].on_call
    results = []
    with conditioned(pipe.unet, conditioning):
        for more in ({}, control):
            out = pipe.unet(**inputs, **more).sample
            results.append((out, [part for one in read.kept.values() for part in one.tokens]))
    (plain, tokens), (controlled, same) = results
    assert all(map(torch.equal, tokens, same)) and (plain - controlled).abs().max() > 1e-3


@contextmanager
def passes(model: Any) -> Iterator[list[int]]:
    """Yields the numbers of rows of all runs of the first block, which those of references have too."""
    seen: list[int] = []
    hook = model.down_blocks[0].register_forward_pre_hook(
        lambda block, args, kwargs: seen.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ([[ReferenceOnly(IMAGE)]] * 2, [1, 4]),
        ([[ReferenceOnly(IMAGE, cfg="both")]] * 2, [2, 4]),
        ([[ReferenceOnly(IMAGE)] * 2, []], [1, 4]),
        ([[ReferenceOnly(IMAGE), ReferenceOnly(IMAGE.rotate(180))], [ReferenceOnly(IMAGE, start=0.5)]], [2, 4]),
    ],
    ids=["conditional rows alike", "both halves", "one of two rows", "two images"],
)
def test_passes_run_once_for_rows_that_are_alike(given: Any, rows: list[int]) -> None:
    """Of two equal prompts under guidance; the last number is that of the call itself."""
    pipe = unet_pipe()
    with passes(pipe.unet) as seen:
        together = drawn(pipe, ["a", "a"], {"images": given}, num_inference_steps=1)
    assert seen == rows
    for row in range(2):
        generator = [torch.Generator().manual_seed(row)]
        own = {"images": given[row]} if given[row] else None
        alone = drawn(pipe, ["a"], own, generator=generator, num_inference_steps=1)
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("config", "skips"),
    [
        (FirstBlockCacheConfig(threshold=0.0), False),
        (FirstBlockCacheConfig(threshold=1e9), True),
        (TaylorSeerCacheConfig(cache_interval=9, disable_cache_before_step=1), True),
    ],
    ids=["computes all", "first block", "taylor"],
)
def test_caches_do_not_see_the_passes(config: Any, skips: bool) -> None:
    """The first step is computed whole, as without a cache; the last one only where the cache leaves nothing out."""
    tiny = next(one for one in VISUAL if one.name == "qwen_image")
    pipe = tiny.make()
    attach(pipe, images=ReferenceOnlyAdapter.for_denoiser(pipe.transformer))
    outputs: list[list[Tensor]] = []
    for cached in (False, True):
        if cached:
            pipe.transformer.enable_cache(config)
        calls: list[Tensor] = []
        hook = pipe.transformer.register_forward_hook(lambda module, args, out, calls=calls: calls.append(out[0]))
        with conditions(pipe, reference()):
            run_tiny(pipe, tiny.arguments(guided=False, steps=3))
        hook.remove()
        outputs.append(calls)
    plain, got = outputs
    assert len(got) == len(plain) == 3 and torch.equal(got[0], plain[0])
    assert torch.equal(got[2], plain[2]) != skips


def test_a_pipeline_without_an_autoencoder_is_refused() -> None:
    tiny = next(one for one in VISUAL if one.name == "sd3")
    pipe = tiny.make()
    attach(pipe, images=ReferenceOnlyAdapter.for_denoiser(pipe.transformer))
    pipe.vae = None
    with (
        pytest.raises(ValueError, match="latents: got a pipeline without an autoencoder"),
        conditions(pipe, reference()),
    ):
        pass


# -- noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler])
def test_references_have_the_noise_of_each_step(kind: Any) -> None:
    """A denoiser that knows the image gets latents of the same level at all steps, by the scheduler's own account."""
    scheduler = kind()
    scheduler.set_timesteps(4)
    for index, timestep in enumerate(scheduler.timesteps):
        if kind is FlowMatchEulerDiscreteScheduler:
            sigma = float(scheduler.sigmas[index])
            wanted = 1 - sigma, sigma
        elif kind is EulerDiscreteScheduler:
            sigma = float(scheduler.sigmas[index])
            wanted = (sigma**2 + 1) ** -0.5, sigma * (sigma**2 + 1) ** -0.5
        else:
            signal = float(scheduler.alphas_cumprod[timestep])
            wanted = signal**0.5, (1 - signal) ** 0.5
        made = sampling_of(scheduler, {"timestep": timestep})
        assert (made.signal, made.noise) == pytest.approx(wanted, abs=1e-5)
        assert made.scale == pytest.approx(wanted[0] if kind is EulerDiscreteScheduler else 1, abs=1e-5)
        sample = torch.zeros(1, 1)
        if hasattr(scheduler, "scale_model_input"):
            sample = scheduler.scale_model_input(sample, timestep)
        scheduler.step(torch.zeros(1, 1), timestep, sample)
