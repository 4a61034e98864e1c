"""Remedies in errors of conditions that meet a denoiser: the same call succeeds after them."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from remedies import Row, check, given, row, table
from tiny import (
    RawTokensAdapter,
    raw_adapter,
    raw_conditions,
    tiny_parts,
    tiny_unet,
)
from torch import Tensor

from weftwork.attention_processors import Conditioning, ReferenceOnly, ReferenceOnlyAdapter, conditioned
from weftwork.attention_processors.core import method
from weftwork.attention_processors.core.attached import AttachedAdapters
from weftwork.attention_processors.core.branch import Branch, OwnAttention
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.layers import OwnProjections
from weftwork.attention_processors.core.method import methods
from weftwork.attention_processors.core.processor import attention_layers, install
from weftwork.attention_processors.encoders.latents import ImageLatents
from weftwork.attention_processors.in_context.adapter import InContextAdapter
from weftwork.attention_processors.in_context.conditions import InContextReference
from weftwork.attention_processors.regional.adapter import RegionalAdapter
from weftwork.attention_processors.regional.conditions import RegionalPrompt, joined_prompts
from weftwork.scripts.benchmarks.backbones import tiny

parts = cache(tiny.parts)


@cache
def unet() -> Any:
    return tiny_unet()


def features(adapter: Any, *conditions: Any, **encoders: Any) -> Any:
    return adapter.features(adapter.collate([list(conditions)]), encoders)


IMAGE = np.zeros((8, 8, 3))


def laid_out(model: Any, inputs: Any, adapter: Any, *conditions: Any, **encoders: Any) -> Conditioning:
    install(model)
    batch = adapter.features(adapter.collate([list(conditions)] * 2), encoders)
    return Conditioning.of({"it": adapter(batch)}, call_layout(model, inputs))


def kontext(images: bool, index: int = 0) -> Any:
    """The layout of a call with or without one reference image."""
    model, inputs = parts(tiny.flux)
    if images:
        ids = torch.cat([tiny.ids(4, 4), tiny.ids(2, 3, image=1)])
        inputs = {**inputs, "hidden_states": torch.ones(2, 22, 4), "img_ids": ids}
    return laid_out(model, inputs, InContextAdapter.for_denoiser(model), InContextReference(index, weight=0.5))


PROMPTS = parts(tiny.flux)[1]["encoder_hidden_states"]
JOINED, SPANS = joined_prompts(PROMPTS[:, :5], PROMPTS[:, 5:])


@torch.no_grad()
def regional(prompt: RegionalPrompt) -> Any:
    model, inputs = parts(tiny.flux)
    inputs = {**inputs, "encoder_hidden_states": JOINED}
    with conditioned(model, laid_out(model, inputs, RegionalAdapter.for_denoiser(model), prompt)):
        return tiny.run(model, inputs)


def fits(adapter: Any) -> Any:
    model, _ = parts(tiny.sd3)
    return [adapter.for_denoiser(model).check_base(model)]


TRANSFORMERS = [
    row(lambda index: kontext(True, index), given(1), "got 1, but this call of the denoiser has 1 ref", given(0)),
    row(kontext, given(False), "has 0 reference images; pass the images to a pipeline of", given(True)),
    row(fits, given(InContextAdapter), "; use ReferenceOnlyAdapter", given(ReferenceOnlyAdapter)),
    row(
        lambda some: InContextAdapter.for_denoiser(parts(tiny.flux)[0]).collate([some]),
        given([InContextReference(0)] * 2),
        "expected one condition per reference image; merge them",
        given([InContextReference(0)]),
    ),
    row(lambda image: ReferenceOnly(image), given(None), "expected the reference image; give one", given(IMAGE)),
    row(
        lambda encoders: features(ReferenceOnlyAdapter.for_denoiser(unet()), ReferenceOnly(IMAGE), **encoders),
        given({}),
        "without an autoencoder .*; load it",
        given({"latents": ImageLatents(tiny_parts()["vae"])}),
    ),
    row(
        regional,
        given(RegionalPrompt("a")),
        r"pass joined_prompts of the prompt and the text as prompt_embeds, and RegionalPrompt\(tokens=span\)",
        given(RegionalPrompt(tokens=SPANS[1])),
    ),
    row(
        regional,
        given(RegionalPrompt(tokens=(5, 9))),
        "got some up to 9, .* has 7; give those of the prompt that is being denoised",
        given(RegionalPrompt(tokens=(5, 7))),
    ),
]


# Layers and registered classes


class Residual(Branch):
    def residual(self, query: Tensor, attend: Any, own: OwnAttention) -> Tensor:
        return torch.ones_like(own.early["query"])


@torch.no_grad()
def with_residual(layer: str) -> Any:
    model, inputs = parts(tiny.flux)
    install(model)
    with conditioned(model, Conditioning({layer: (Residual(),)})):
        return tiny.run(model, inputs)


@torch.no_grad()
def with_skipped(undone: bool) -> Any:
    """A call in which one layer does not run, or in which this was undone."""
    model, inputs = tiny.parts(tiny.pixart)
    made = laid_out(model, inputs, raw_adapter(model), *raw_conditions())
    layer: Any = attention_layers(model)[next(iter(made.branches))]
    layer.forward = lambda hidden_states, *_, **__: hidden_states
    if undone:
        del layer.forward
    with conditioned(model, made):
        return tiny.run(model, inputs)


@torch.no_grad()
def with_timestep(backbone: Any) -> Any:
    model, inputs = parts(backbone)
    made = laid_out(model, inputs, raw_adapter(model), *raw_conditions())
    made.strengths[0].on_timestep = lambda _: None
    with conditioned(model, made):
        return tiny.run(model, inputs)


def banked(folder: Path, imported: bool) -> Any:
    AttachedAdapters({"it": raw_adapter(unet())}).save_pretrained(folder)
    with patch.dict(sys.modules):
        if not imported:
            del sys.modules[RawTokensAdapter.__module__]
        return AttachedAdapters.from_pretrained(folder)


def registered(name: str) -> Any:
    found = replace(methods()["style"], name=name)
    entry = SimpleNamespace(load=lambda: found, value="package:METHOD")
    with patch.object(method, "entry_points", lambda **_: [entry]):
        return methods.__wrapped__()


LAYERS = [
    row(
        lambda layer: OwnProjections(parts(tiny.flux2)[0]).keys_and_values(torch.ones(1, 2, 32), [layer]),
        given("single_transformer_blocks.0.attn"),
        r"no projection of keys \(to_k\); choose other layers",
        given("transformer_blocks.0.attn"),
    ),
    row(with_timestep, given(tiny.unet), "; use the denoiser that the adapter was trained for", given(tiny.sd3)),
    row(registered, given("style"), "from package:METHOD, .*; rename one of them", given("another-style")),
    (
        "which is no imported Adapter; import tiny first",
        lambda folder: banked(folder, False),
        lambda folder: banked(folder, True),
    ),
]
STATES = [
    row(
        with_residual,
        given("single_transformer_blocks.0.attn"),
        "; restrict the adapter to layers of two streams",
        given("transformer_blocks.0.attn"),
    ),
    row(with_skipped, given(False), "read 0 times .*; undo what skips or repeats the layer", given(True)),
]
"""A state in which no call can go on: a RuntimeError."""


@table(*TRANSFORMERS, *LAYERS)
def test_remedies(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


@table(*STATES)
def test_remedies_of_states(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path, RuntimeError)
