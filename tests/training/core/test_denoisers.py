"""Denoisers are called in training as their pipelines call them."""

from typing import Any

import pytest
import torch
from tiny_transformers import FAMILIES, tiny_transformer_pipe

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.training.core.denoisers import call_of, packed, timestep_shift, unpacked
from weftwork.training.core.objectives import flow_sigmas, training_scheduler
from weftwork.training.data.prompts import Prompts

SIZE = 64


def recorded(pipe: Any, monkeypatch: pytest.MonkeyPatch, prompts: list[str]) -> tuple[dict[str, Any], torch.Tensor]:
    """Arguments and prediction of the first call of the denoiser of a pipeline, for latents of seed 3."""
    calls: list[Any] = []
    outputs: list[torch.Tensor] = []
    forward, step = pipe.transformer.forward, pipe.scheduler.step

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(dict(zip(("x", "t", "cap_feats"), args, strict=False)) | kwargs)
        return forward(*args, **kwargs)

    def stepped(output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        outputs.append(output)
        return step(output, *args, **kwargs)

    monkeypatch.setattr(pipe.transformer, "forward", called)
    monkeypatch.setattr(pipe.scheduler, "step", stepped)
    latents = noise(pipe, len(prompts))
    given = packed(latents) if hasattr(pipe, "_pack_latents") else latents
    plain = {"guidance_scale": 0.0} if "ZImage" in type(pipe).__name__ else {}
    plain = {"guidance_scale": 1.0} if "Diffusion3" in type(pipe).__name__ else plain
    pipe(
        prompts, height=SIZE, width=SIZE, num_inference_steps=2, latents=given, max_sequence_length=16,
        output_type="latent", **plain,
    )  # fmt: skip
    return calls[0], outputs[0]


def noise(pipe: Any, rows: int) -> torch.Tensor:
    channels = pipe.vae.config.get("latent_channels", pipe.vae.config.get("z_dim"))
    return torch.randn(rows, channels, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_denoisers_are_called_as_pipelines_call_them(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, prompts = tiny_transformer_pipe(family), ["a red cat", "a dog"]
    expected, prediction = recorded(pipe, monkeypatch, list(prompts))
    call, latents = call_of(pipe.transformer), noise(pipe, 2)
    timesteps = pipe.scheduler.timesteps[:1].expand(2)
    embeds = Prompts(pipe, call, 16)(prompts, (SIZE, SIZE))
    arguments = call.arguments(pipe.transformer, latents, timesteps, embeds)
    for name, value in expected.items():
        if name.endswith("attention_kwargs") or (value is None and name not in arguments):
            continue
        torch.testing.assert_close(arguments[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    made = call(pipe.transformer, latents, timesteps, embeds)
    assert made.shape == latents.shape
    made = packed(made) if prediction.ndim == 3 else made
    torch.testing.assert_close(made, prediction, atol=1e-4, rtol=1e-4)


def test_packing_is_reversible_and_that_of_the_pipelines() -> None:
    pipe, latents = tiny_transformer_pipe("flux"), torch.randn(2, 4, 8, 12)
    assert torch.equal(packed(latents), pipe._pack_latents(latents, 2, 4, 8, 12))
    assert torch.equal(unpacked(packed(latents), latents), latents)


@pytest.mark.parametrize("family", FAMILIES)
def test_timesteps_are_those_of_generation(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shift of the pipeline for this size: its timesteps are among those of training."""
    pipe = tiny_transformer_pipe(family)
    scheduler = training_scheduler(pipe.scheduler)
    sigmas = flow_sigmas(scheduler, timestep_shift(scheduler, noise(pipe, 1)))
    recorded(pipe, monkeypatch, ["a cat"])
    own = pipe.scheduler.sigmas[:-1] if pipe.scheduler.config["shift_terminal"] is None else pipe.scheduler.sigmas[:1]
    for sigma in own:
        assert (sigmas - sigma).abs().min() < 2e-3
    assert sigmas[-1] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_are_normalised_as_pipelines_reverse_it(family: str) -> None:
    pipe = tiny_transformer_pipe(family)
    images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    latents, config = encode_latents(pipe.vae, images), pipe.vae.config
    frames = images[:, :, None] if family == "qwen-image" else images
    raw = pipe.vae.encode(frames).latent_dist.mode()
    if family == "qwen-image":
        mean, std = (torch.tensor(config[n]).view(-1, 1, 1) for n in ("latents_mean", "latents_std"))
        restored = latents * std + mean
        raw = raw[:, :, 0]
    else:
        restored = latents / config["scaling_factor"] + config["shift_factor"]
    torch.testing.assert_close(restored, raw, atol=1e-5, rtol=1e-5)
    assert latents.shape == noise(pipe, 2).shape
