"""Tiny real components of a Stable Audio pipeline, seeded: 16 kHz, stereo, 2.048 s are 128 latents."""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope

LATENTS, CHANNELS, CONTEXT = 16, 8, 24


def tiny_transformer(**changes: Any) -> StableAudioDiTModel:
    torch.manual_seed(1)
    config: dict[str, Any] = dict(
        sample_size=128,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=4,
        num_key_value_attention_heads=2,
        cross_attention_dim=32,
        cross_attention_input_dim=CONTEXT,
        time_proj_dim=16,
        global_states_input_dim=2 * CONTEXT,
    )
    return StableAudioDiTModel(**{**config, **changes}).eval().requires_grad_(False)


def tiny_oobleck() -> AutoencoderOobleck:
    torch.manual_seed(2)
    return (
        AutoencoderOobleck(
            encoder_hidden_size=2 * CHANNELS,
            downsampling_ratios=[4, 8, 8],
            channel_multiples=[1, 1, 1],
            decoder_channels=16,
            decoder_input_channels=CHANNELS,
            audio_channels=2,
            sampling_rate=16_000,
        )
        .eval()
        .requires_grad_(False)
    )


def transformer_inputs(rows: int = 2, seed: int = 0) -> dict[str, Any]:
    """Arguments of one call of the tiny transformer, with rotary places."""
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    noise = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=noise)

    return {
        "hidden_states": drawn(rows, CHANNELS, LATENTS),
        "timestep": torch.rand(rows, generator=noise),
        "encoder_hidden_states": drawn(rows, 5, CONTEXT),
        "global_hidden_states": drawn(rows, 1, 2 * CONTEXT),
        "rotary_embedding": get_1d_rotary_pos_embed(8, LATENTS + 1, use_real=True, repeat_interleave_real=False),
    }


def tiny_audio_pipe(kind: Any, **changes: Any) -> Any:
    """A pipeline without a text encoder; pass `prompt_embeds=prompt_embeds()`."""
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    from weftwork.pipelines.audio.cosine_scheduler import CosineScheduler

    torch.manual_seed(3)
    projection = StableAudioProjectionModel(CONTEXT, CONTEXT, 0, 4).eval()
    pipe = kind(
        vae=tiny_oobleck(),
        text_encoder=None,
        projection_model=projection,
        tokenizer=None,
        transformer=tiny_transformer(**changes),
        scheduler=CosineScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def prompt_embeds() -> torch.Tensor:
    return torch.randn(1, 3, CONTEXT, generator=torch.Generator().manual_seed(9))


def spatial_adapter(transformer: Any = None, **changes: Any) -> Any:
    """An adapter for `tiny_transformer`, with null tokens that say something."""
    from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter

    torch.manual_seed(4)
    options: dict[str, Any] = dict(input_dim=CONTEXT, seconds=2.048, latent_rate=62.5, audio_dim=6, depth_size=16)
    made = SpatialAudioAdapter.for_denoiser(transformer or tiny_transformer(), **{**options, **changes})
    torch.nn.init.normal_(made.null)
    return made.eval().requires_grad_(False)


TIMES = np.arange(0, 2.05, 1 / 30)
ACROSS = np.stack([0.1 + 0.3 * TIMES, 0.2 + 0 * TIMES, 0.2 + 0.3 * TIMES, 0.9 + 0 * TIMES], -1)
TRACK = BoxTrack(TIMES, ACROSS)
DEPTH = DepthClip([0.1, 0.6, 1.1, 1.6], np.linspace(2, 8, 4)[:, None, None] * np.ones((1, 24, 32)))
PROMPT = AudioPrompt(np.linspace(-1, 1, 6))
LOUD = Envelope(np.abs(np.sin(np.arange(0, 2.05, 0.01) * 6)), 100)
