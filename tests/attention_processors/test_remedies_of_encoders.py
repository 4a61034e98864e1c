"""Remedies in errors of conditions that meet an encoder: the same call succeeds after them."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from remedies import Row, check, given, row, table
from tiny import (
    drawn_sketch,
    paired_adapter,
    reference_adapter,
    tiny_parts,
    tiny_pipe,
    tiny_unet,
)
from tiny_audio import DEPTH, PROMPT, TRACK, spatial_adapter, tiny_oobleck, tiny_transformer
from torch import Tensor

from weftwork.attention_processors import SketchTextPair
from weftwork.attention_processors.audio.adapter import SpatialAudioAdapter
from weftwork.attention_processors.audio.conditions import AudioPrompt, DepthClip
from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
from weftwork.attention_processors.encoders.latents import ImageLatents
from weftwork.attention_processors.encoders.text import TextEncoders
from weftwork.attention_processors.paired.pair_former import ImageProjector, PairFormer
from weftwork.attention_processors.reference.conditions import Reference
from weftwork.attention_processors.reference.projections import filled_in
from weftwork.attention_processors.regional.adapter import RegionalAdapter
from weftwork.attention_processors.regional.conditions import RegionalPrompt
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline


@cache
def unet() -> Any:
    return tiny_unet()


@cache
def texts() -> TextEncoders:
    return TextEncoders.of(tiny_pipe(ConditionedStableDiffusionPipeline))


def features(adapter: Any, *conditions: Any, **encoders: Any) -> Any:
    return adapter.features(adapter.collate([list(conditions)]), encoders)


# Audio

AUDIO = AudioPrompt(audio=np.ones((2, 4000)) / 2, sample_rate=16_000)
maps = cache(spatial_adapter)


def to_tokens(folder: Path, attached: bool) -> Any:
    maps().save_pretrained(folder / "it")
    made = SpatialAudioAdapter.from_pretrained(folder / "it")
    if attached:
        made.bind(tiny_transformer())
    return made(features(made, TRACK))


HEARD = [
    (
        "got one that is not attached; attach it to a pipeline first",
        lambda folder: to_tokens(folder, False),
        lambda folder: to_tokens(folder, True),
    ),
    row(
        lambda encoders: features(maps(), AUDIO, **encoders),
        given({}),
        r"call pipe.set_encoders\(audio=.*with the encoder that it was trained with",
        given({"audio": lambda *_: torch.ones(6)}),
    ),
    row(lambda one: features(maps(), one), given(AUDIO), "first, .*, or pass embeds", given(PROMPT)),
    row(
        lambda width: features(maps(), AUDIO, audio=lambda *_: torch.ones(width)),
        given(3),
        r"got \(3,\) of the encoder, .*; set the encoder that the adapter was trained with",
        given(6),
    ),
    row(
        lambda width: features(maps(), AudioPrompt(embeds=np.ones(width))),
        given(5),
        "got 5 numbers, expected 6; use the encoder that the adapter reads",
        given(6),
    ),
    row(
        lambda one: features(maps(), one),
        given(DepthClip([0.0], embeds=np.ones((1, 7)))),
        "the adapter reads depth maps; pass depth",
        given(DEPTH),
    ),
    row(
        lambda one: features(maps(depth_dim=7), one),
        given(DEPTH),
        "the adapter reads embeddings; encode them and pass embeds",
        given(DepthClip([0.0], embeds=np.ones((1, 7)))),
    ),
    row(
        lambda count: AudioStatistics(tiny_oobleck())(np.ones((2, count), np.float32), 16_000),
        given(9),
        "got 0.0006 s of audio, expected at least .*; pass more",
        given(4000),
    ),
]

# Texts, pairs and images

ONES = torch.ones(1, 2, 4, 32)
PAIRS = torch.ones(1, 2, dtype=torch.bool)
FORMER = PairFormer(32, num_heads=4, norm_groups=8)
STATES = torch.ones(3, 16)


@torch.no_grad()
def latents_of(dtype: torch.dtype) -> Tensor:
    vae = tiny_parts()["vae"]
    vae.encoder.conv_in.weight.mul_(1e6)
    return ImageLatents(vae.to(dtype))(torch.ones(3, 32, 32), (4, 4))


def plus() -> Any:
    return reference_adapter(unet(), projection="plus")


READ = [
    row(
        lambda encoders: features(
            paired_adapter(unet(), sketch_encoder="some/model"),
            SketchTextPair(drawn_sketch()),
            text=texts(),
            **encoders,
        ),
        given({}),
        r"call pipe.set_encoders\(sketch=SketchEncoder.from_pretrained\('some/model'\)\) first",
        given({"sketch": lambda images: torch.ones(len(images), 4, 16)}),
    ),
    row(
        lambda width: features(paired_adapter(unet(), text_dim=width), SketchTextPair(text="a"), text=texts()),
        given(48),
        "was trained on 48; load one that was trained for this pipeline",
        given(32),
    ),
    row(lambda text: texts().pooled([text]), given("a" * 99), "has 99 tokens, .*; shorten it", given("a")),
    row(
        lambda one: features(RegionalAdapter.for_denoiser(unet()), one, text=TextEncoders([], [])),
        given(RegionalPrompt("a")),
        "a pipeline without encode_prompt; encode it and pass tokens",
        given(RegionalPrompt(tokens=(1, 2))),
    ),
    row(latents_of, given(torch.float16), "; load the autoencoder in float32", given(torch.float32)),
    row(
        lambda mask: FORMER(ONES, ONES, mask),
        given(PAIRS[:, :1]),
        "; pass one of each per pair, padded to the largest number of pairs",
        given(PAIRS),
    ),
    row(
        lambda images: FORMER(images, ONES, PAIRS),
        given(ONES[..., :16]),
        "expected 32; pass them through ImageProjector and",
        given(ImageProjector(16, 32)(ONES[..., :16])),
    ),
    row(
        lambda some: features(reference_adapter(unet(), projection="full"), *some),
        given([Reference(embeds=STATES, cfg="cond_only"), Reference(embeds=STATES[:2], cfg="cond_only")]),
        "expected one; encode all in one way",
        given([Reference(embeds=STATES, cfg="cond_only")] * 2),
    ),
    row(
        lambda one: features(plus(), one),
        given(Reference(embeds=STATES)),
        r'or give embeds \(for .* with null_embeds or cfg="cond_only"\)',
        given(Reference(embeds=STATES, cfg="cond_only")),
    ),
    row(
        lambda one: features(plus(), one),
        given(Reference(drawn_sketch())),
        'or give embeds .* with null_embeds or cfg="cond_only"',
        given(Reference(embeds=STATES, null_embeds=STATES)),
    ),
    row(
        lambda states: filled_in(torch.ones(1, 2, states, 16), PAIRS, torch.ones(1, 5, 16)),
        given(4),
        "expected one shape; encode all references in one way",
        given(5),
    ),
]


@table(*HEARD, *READ)
def test_remedies(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
