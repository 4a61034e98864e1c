"""Remedies in errors of layers, families, grids and processors: the same call succeeds after them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from diffusers import MotionAdapter, UNetMotionModel
from remedies import Row, check, given, row, table
from tiny import RawTokensAdapter, paired_adapter, raw_conditions, tiny_unet
from tiny_audio import tiny_transformer, transformer_inputs
from torch import Tensor, nn
from variants import SD, run

from weftwork.attention_processors import Conditioning, SketchTextPair, conditioned
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import check_layout
from weftwork.attention_processors.core.families import FAMILIES, UNET, call_layout, family_of, layer_levels
from weftwork.attention_processors.core.frozen_weights import plain_weight
from weftwork.attention_processors.core.image_latents import latent_size, with_latents
from weftwork.attention_processors.core.inspection import Inspector
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import install, install_inputs
from weftwork.attention_processors.core.strength import ImageTokens, Layout
from weftwork.attention_processors.views.instillation import Instillation
from weftwork.scripts.benchmarks.backbones import tiny

PAIR = SketchTextPair(text="a")
HALF = SketchTextPair(text="a", region=(0, 0, 0.5, 1))
UNKNOWN = "PixArtTransformer2DModel"
parts = cache(tiny.parts)


@cache
def unet() -> Any:
    return tiny_unet()


@contextmanager
def known(yes: bool) -> Iterator[None]:
    """Within the block, the class of `tiny.pixart` has a record or none; its layers have names of cross-attention."""
    with patch.dict(FAMILIES):
        if not yes:
            del FAMILIES[UNKNOWN]
        yield


def of_known(call: Callable[..., Any]) -> Callable[[bool], Any]:
    def called(yes: bool) -> Any:
        with known(yes):
            return call(*parts(tiny.pixart))

    return called


def conditioning_of(model: Any, inputs: Any, **options: Any) -> Any:
    adapter = RawTokensAdapter.for_denoiser(model).requires_grad_(False)
    batch = adapter.collate([raw_conditions(**options)[:1]] * 2)
    return Conditioning.of({"it": adapter(batch)}, call_layout(model, inputs))


def maps(model: Any, inputs: Any) -> Tensor:
    recorder = MapRecorder()
    install(model)
    made = replace(conditioning_of(model, inputs), recorder=recorder)
    recorder.begin(made.layout)
    with torch.no_grad(), conditioned(model, made):
        tiny.run(model, inputs)
    return recorder.maps()


class Layer(nn.Module):
    set_processor = print
    inner_dim: int | None


class Odd(nn.Module):
    """A denoiser of no known class: layers of these names, with a width each or none."""

    def __init__(self, **widths: int | None) -> None:
        super().__init__()
        self.block = nn.ModuleDict()
        for name, width in widths.items():
            self.block[name] = layer = Layer()
            layer.inner_dim = width


def recorded_family(yes: bool) -> Any:
    with patch.dict(FAMILIES, {"Odd": UNET} if yes else {}):
        return family_of(Odd(odd=8))


def motion() -> Any:
    adapter = MotionAdapter(block_out_channels=(32, 64), motion_layers_per_block=1, motion_num_attention_heads=2)
    return UNetMotionModel.from_unet2d(unet(), adapter)


def laid_out(backbone: Callable[[], Any]) -> Callable[[Any], Any]:
    """The layout of a call with these arguments changed."""
    model, inputs = parts(backbone)
    return lambda changes: call_layout(model, {**inputs, **changes})


def latents_of(channels: int) -> Any:
    model, inputs = parts(tiny.pixart)
    return with_latents(model, inputs, torch.zeros(2, channels, *latent_size(model, inputs)))


def in_bytes(layer: nn.Linear) -> nn.Linear:
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    return layer


LAYOUT = Layout(layer_levels(unet()), (8, 8))
IMAGES = parts(tiny.z_image)[1]["x"]
ADD = "add a record of its class to .*FAMILIES"
FAMILY = [
    row(of_known(latent_size), given(False), ADD, given(True)),
    row(
        of_known(lambda *one: conditioning_of(*one, region=(0, 0, 0.5, 1))),
        given(False),
        f"leave them out, or {ADD}",
        given(True),
    ),
    row(of_known(maps), given(False), ADD, given(True)),
    row(recorded_family, given(False), 'write FAMILIES\\["Odd"\\] = ', given(True)),
    (
        r"rows are frames \(AnimateDiff\), .*; use the image model that it was made from",
        lambda _: family_of(motion()),
        lambda _: family_of(unet()),
    ),
    row(
        laid_out(tiny.lumina2),
        given({"encoder_attention_mask": torch.ones(2, 7).tril(3)}),
        "captions of several lengths; pass one prompt per call",
        given({"encoder_attention_mask": torch.ones(2, 7)}),
    ),
    row(
        laid_out(tiny.kandinsky5),
        given({"sparse_params": {"to_fractal": True}}),
        "another order than row by row; leave sparse attention off",
        given({"sparse_params": None}),
    ),
    row(
        laid_out(tiny.flux2), given({"kv_cache_mode": "extract"}), "references in a cache, .*; leave it out", given({})
    ),
    row(
        laid_out(tiny.z_image),
        given({"x": [[*IMAGES]]}),
        "several images per sample, .*; pass one",
        given({"x": IMAGES}),
    ),
    row(latents_of, given(99), "got 99 channels, expected at most 4; use the autoencoder of the model", given(4)),
]
LAYERS = [
    row(
        lambda names: [check_layout(names, None, None, LAYOUT)],
        given(["x"]),
        "'x' .* does not have; load the adapter that was trained",
        given([*LAYOUT.levels][:1]),
    ),
    row(
        lambda layers: Conditioning.of(
            {"a": Instillation(r"down_blocks.*attn1").use(), "b": Instillation(layers).use()}, LAYOUT
        ),
        given("self"),
        "'a' and 'b' both replace .*; detach one of them or restrict its layers",
        given("mid_block.*attn1"),
    ),
    row(
        lambda layers: select_layers(parts(tiny.z_image)[0], layers),
        given("context_refiner.*"),
        "whose tokens are the text's; choose layers that read the image",
        given("noise_refiner.*"),
    ),
    row(
        lambda layers: select_layers(parts(tiny.sana)[0], layers),
        given("self"),
        'choose layers that read the text, as "all"',
        given("all"),
    ),
    row(
        lambda layers: select_layers(Odd(attn1=None, attn2=8), layers),
        given("block.attn1"),
        r"no projection of keys \(to_k\); choose other layers",
        given("block.attn2"),
    ),
    row(lambda queries: ImageTokens((1, 2, 2), 4).span(queries), given(3), "; choose layers that read the", given(6)),
    row(
        lambda layer: plain_weight(layer, "it"),
        lambda _: in_bytes(nn.Linear(2, 2)),
        "cannot be dequantised; make the adapter for the denoiser in full precision",
        given(nn.Linear(2, 2)),
    ),
]


@torch.no_grad()
def linear(layer: str) -> Any:
    model, inputs = parts(tiny.sana)
    install(model)
    with conditioned(model, Conditioning({f"transformer_blocks.0.{layer}": (Branch(),)})):
        return tiny.run(model, inputs)


@torch.no_grad()
def controlled(*blocks: str) -> Any:
    model, inputs = tiny_transformer(), transformer_inputs()
    install_inputs(model, blocks)
    with conditioned(model, Conditioning({}, inputs={"transformer_blocks.0": torch.zeros(2, 17, 64)})):
        return model(**inputs)


def compiled_inputs(first: bool) -> Any:
    model = tiny_transformer()
    if first:
        model.transformer_blocks[0].compile()
    install_inputs(model, ["transformer_blocks.0"])
    return model.compile() or model


def attached(change: Callable[[Any], object], **options: Any) -> Any:
    """The latents of a call after this change of the pipeline with an adapter."""
    pipe = SD.attached()
    change(pipe)
    return run(pipe, **{"num_inference_steps": 1, "conditions": {"it": [PAIR]}, **options})


def parallel(pipe: Any, how: str) -> None:
    pipe.unet._parallel_config = SimpleNamespace(**{"context_parallel_config": None, how: 1})


def compiled(pipe: Any, behind: bool) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    if behind:
        pipe.unet = pipe.unet._orig_mod


def late(slicing: bool) -> Any:
    pipe = SD.make(SD.conditioned)
    pipe.enable_attention_slicing("max")
    if not slicing:
        pipe.disable_attention_slicing()
    pipe.attach(it=paired_adapter(pipe.unet))
    return pipe


def encoded(**options: Any) -> Any:
    """A call with conditions that were encoded for one prompt and 64 pixels."""
    pipe = SD.attached()
    return run(pipe, conditioning=pipe.encode_conditions({"it": [HALF]}), num_inference_steps=1, **options)


def named(name: str) -> Tensor:
    recorder = MapRecorder()
    attached(lambda _: None, recorder=recorder)
    return recorder.maps(adapter=name)


def inspected(layers: str) -> Any:
    return attached(lambda _: None, recorder=Inspector(layers=layers))


CALLS = [
    row(
        inspected,
        given("self"),
        "add nothing to the attention of the layers 'self', .*; inspect other layers, or leave",
        given("all"),
    ),
    row(linear, given("attn1"), "in a layer of linear attention, .*; restrict the adapter to other", given("attn2")),
    row(compiled_inputs, given(True), "; load what needs them first, then compile", given(False)),
    row(
        lambda how: attached(lambda pipe: parallel(pipe, how)),
        given("context_parallel_config"),
        "leave enable_parallelism\\(\\) out, or pass it a TensorParallelConfig",
        given("tensor_parallel_config"),
    ),
    row(late, given(True), r"remove what installed it \(disable_attention_slicing\(\),", given(False)),
    row(
        lambda prompts: encoded(prompt=prompts),
        given(["a", "b", "c"]),
        "; pass one condition list per prompt and build the conditioning for this",
        given("a"),
    ),
    row(
        lambda width: encoded(height=64, width=width),
        given(96),
        "; .*: build it for the height and width being denoised",
        given(64),
    ),
    row(named, given("x"), "adapter: got 'x', recorded are: it; name one of them", given("it")),
    row(
        lambda region: SketchTextPair(text="a", region=region),
        given(np.full((4, 4), 255.0)),
        "in an array of floats; scale it, or pass bytes",
        given(np.full((4, 4), 255, np.uint8)),
    ),
]
STATES = [
    row(
        lambda blocks: controlled(*blocks), given([]), r"call install_inputs\(\) first", given(["transformer_blocks.0"])
    ),
    row(
        lambda behind: attached(lambda pipe: compiled(pipe, behind), recorder=MapRecorder()),
        given(False),
        r"record with the module behind torch.compile \(pipe.unet = pipe.unet._orig_mod\)",
        given(True),
    ),
]
"""A state in which no call can go on: a RuntimeError."""


@table(*FAMILY, *LAYERS, *CALLS)
def test_remedies(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


@table(*STATES)
def test_remedies_of_states(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path, RuntimeError)
