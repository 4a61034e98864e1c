"""Messages that name a remedy: what they say is done, and then the same call succeeds."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import pytest
import torch
from tiny import drawn_sketch, paired_adapter, raw_adapter, raw_conditions, tiny_parts, tiny_pipe, tiny_unet
from tiny_pipelines import PIPELINES as TINY
from tiny_pipelines import run_tiny
from tiny_transformers import tiny_transformer_pipe
from variants import SD, VARIANTS, picture, run

from weftwork.attention_processors import SketchTextPair, Style, StyleAdapter
from weftwork.attention_processors.audio.conditions import BoxTrack, Envelope
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.attention_processors.core.families import FAMILIES
from weftwork.pipelines import ConditionedBlocks
from weftwork.pipelines.core.attach import attach, conditions
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.core.opening import conditioned_class

Case = tuple[str, Callable[[], Any], Callable[[], Any]]
PAIR = SketchTextPair(text="a red jacket")


def replaced_unet(pipe: Any, *remedy: str) -> Any:
    pipe.unet = tiny_unet()
    if remedy:
        pipe.detach()
        pipe.attach(it=paired_adapter(pipe.unet))
    return run(pipe, conditions={"it": [PAIR]})


def fused(pipe: Any, *, undo: bool) -> Any:
    pipe.fuse_qkv_projections()
    if undo:
        pipe.unfuse_qkv_projections()
        pipe.detach()
        pipe.attach(it=paired_adapter(pipe.unet))
    return run(pipe, conditions={"it": [PAIR]})


def sketches_only(pipe: Any, **pair: Any) -> Any:
    embeds = torch.zeros(1, 77, 32)
    pipe.text_encoder = pipe.tokenizer = None
    options = {"prompt": None, "prompt_embeds": embeds, "negative_prompt_embeds": embeds}
    return run(pipe, conditions={"it": [SketchTextPair(drawn_sketch(), **pair)]}, **options)


def twice(pipe: Any, *names: str) -> Any:
    pipe.detach(*names)
    pipe.attach(it=paired_adapter(pipe.unet))
    return True


def stock(attached: bool) -> Any:
    pipe = tiny_pipe(SD.stock)
    if attached:
        attach(pipe, it=paired_adapter(pipe.unet))
    with conditions(pipe, {"it": [PAIR]}):
        return run(pipe)


INK = Style("ink")
INPAINT = next(one for one in VARIANTS if one.name == "inpaint")


def perturbed() -> Any:
    kind: Any = type("Perturbed", (ConditionedPipelineMixin, diffusers.StableDiffusionPAGPipeline), {})
    return tiny_pipe(kind, pag_applied_layers=["mid"])


def transformer() -> Any:
    made = tiny_transformer_pipe("sd3")
    pipe: Any = conditioned_class(type(made))(**made.components)
    pipe.attach(it=StyleAdapter.for_denoiser(pipe.transformer, styles=("ink",), token_dim=8, style_dim=4))
    return pipe


def shown(pipe: Any, **options: Any) -> Any:
    return pipe("a", height=64, width=64, num_inference_steps=1, output_type="latent", **options).images


def edited(_: Any, recorder: MapRecorder | None = None) -> Any:
    """A call of InstructPix2Pix, in three parts."""
    parts = {**tiny_parts(), "unet": tiny_unet(in_channels=8), "safety_checker": None, "feature_extractor": None}
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)
    attach(pipe, it=paired_adapter(pipe.unet))
    with conditions(pipe, {"it": PAIR}, recorder=recorder):
        return run(pipe, image=picture())


PIXART = next(one for one in TINY if one.name == "pixart")


def without_record(*, guided: bool) -> Any:
    """A call with a transformer whose class has no record; its layers are found by their names."""
    with patch.dict(FAMILIES):
        del FAMILIES["PixArtTransformer2DModel"]
        pipe = PIXART.make()
        attach(pipe, it=raw_adapter(pipe.transformer))
        with conditions(pipe, {"it": raw_conditions()}):
            return run_tiny(pipe, PIXART.arguments(guided))


PIPELINES: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = [
    (r"detach\(\) and attach\(\) the adapters again", replaced_unet, lambda p: replaced_unet(p, "again")),
    (r"undo that call, then detach\(\) and attach", lambda p: fused(p, undo=False), lambda p: fused(p, undo=True)),
    ("pass sketches alone", lambda p: sketches_only(p, text="a"), sketches_only),
    (
        r"detach\('it'\) first or use another name",
        lambda p: p.attach(it=paired_adapter(p.unet)),
        lambda p: twice(p, "it"),
    ),
    (
        "pass one list",
        lambda p: run(p, prompt=["a", "b"], conditions={"it": [[PAIR]]}),
        lambda p: run(p, prompt=["a", "b"], conditions={"it": [[PAIR], None]}),
    ),
    (
        "pass the encoded one or the raw ones",
        lambda p: run(p, conditions={"it": PAIR}, conditioning=p.encode_conditions({"it": PAIR})),
        lambda p: run(p, conditioning=p.encode_conditions({"it": PAIR})),
    ),
    (
        "pass conditions",
        lambda p: run(p, recorder=MapRecorder()),
        lambda p: run(p, recorder=MapRecorder(), conditions={"it": PAIR}),
    ),
    (
        "use the pipeline without it",
        lambda p: perturbed().attach(it=paired_adapter(p.unet)),
        lambda p: run(p, conditions={"it": PAIR}),
    ),
    (
        "whose order of halves is not known; turn guidance off",
        lambda _: without_record(guided=True),
        lambda _: without_record(guided=False),
    ),
    ("pass another pipeline", lambda _: [attach(object())], lambda p: [attach(p)]),
    (
        "got the name 'a b', expected letters and digits; use another name",
        lambda p: [p.attach(**{"a b": paired_adapter(p.unet)})],
        lambda p: [p.attach(ab=paired_adapter(p.unet))],
    ),
    (
        "whose conditions are laid out when it runs; pass conditions= to each call",
        lambda _: transformer().encode_conditions({"it": INK}),
        lambda _: shown(transformer(), conditions={"it": INK}),
    ),
    (
        "which would act on the crop; leave it out",
        lambda _: run(INPAINT.attached(), **INPAINT.inputs(), conditions={"it": PAIR}, padding_mask_crop=8),
        lambda _: run(INPAINT.attached(), **INPAINT.inputs(), conditions={"it": PAIR}),
    ),
    (
        "condition: unknown argument of the pipeline's call; did you mean 'conditions'",
        lambda p: run(p, condition={"it": PAIR}),
        lambda p: run(p, conditions={"it": PAIR}),
    ),
    (
        r"blocks: got none, expected those of a pipeline; pass blocks=FluxAutoBlocks\(\) .* or to the class",
        lambda _: ConditionedBlocks().init_pipeline(),
        lambda _: ConditionedBlocks(blocks=diffusers.FluxAutoBlocks()).init_pipeline(),
    ),
    (
        "conditions: got a batch of 3 rows for conditions of 1 prompts; .* except that of InstructPix2Pix without",
        lambda p: edited(p, MapRecorder()),
        edited,
    ),
    (
        "round it",
        lambda p: p.encode_conditions({"it": PAIR}, height=66, width=64),
        lambda p: p.encode_conditions({"it": PAIR}, height=64, width=64),
    ),
    (
        "draw them on a canvas of the image's aspect",
        lambda p: run(p, height=80, width=48, conditions={"it": SketchTextPair(drawn_sketch(), region="sketch")}),
        lambda p: run(
            p, height=80, width=48, conditions={"it": SketchTextPair(drawn_sketch().resize((48, 80)), region="sketch")}
        ),
    ),
]


@pytest.mark.parametrize(("message", "wrong", "right"), PIPELINES, ids=[row[0][:24] for row in PIPELINES])
def test_remedies_of_pipelines(message: str, wrong: Callable[[Any], Any], right: Callable[[Any], Any]) -> None:
    with pytest.raises((ValueError, RuntimeError, TypeError), match=message):
        wrong(SD.attached())
    assert right(SD.attached()) is not None


DARK = np.full((8, 8), 40, np.uint8)
CONDITIONS: list[Case] = [
    (r"attach\(it=…\) first", lambda: stock(attached=False), lambda: stock(attached=True)),
    ("give at least one of them", SketchTextPair, lambda: SketchTextPair(text="a")),
    (
        "give a box, a mask or None",
        lambda: SketchTextPair(text="a", region="sketch"),
        lambda: [SketchTextPair(text="a", region=area) for area in ((0, 0, 1, 1), DARK * 6, None)],
    ),
    ("stretch it", lambda: SketchTextPair(text="a", region=DARK), lambda: SketchTextPair(text="a", region=DARK * 6)),
    (
        "use weight=0 to turn it off",
        lambda: SketchTextPair(text="a", region=DARK * 0),
        lambda: SketchTextPair(text="a", weight=0),
    ),
    ("or weight=0 to turn the style off", lambda: Style({"ink": 0}), lambda: Style("ink", weight=0)),
    (
        "divide pixels by width and height",
        lambda: BoxTrack([0.0], [[8, 8, 32, 64]]),  # pyright: ignore[reportArgumentType]
        lambda: BoxTrack([0.0], np.array([[8, 8, 32, 64]]) / 64),  # pyright: ignore[reportArgumentType]
    ),
    (
        "sort them",
        lambda: BoxTrack([1.0, 0.0], [[0, 0, 1, 1]] * 2),  # pyright: ignore[reportArgumentType]
        lambda: BoxTrack(sorted([1.0, 0.0]), [[0, 0, 1, 1]] * 2),  # pyright: ignore[reportArgumentType]
    ),
    (
        "divide integers by their range",
        lambda: Envelope.from_audio(np.full((1, 99), 9000), 100),
        lambda: Envelope.from_audio(np.full((1, 99), 9000) / 2**15, 100),
    ),
    (
        "transpose it or add a dimension",
        lambda: Envelope.from_audio(np.ones((99, 2)) / 2, 100),
        lambda: Envelope.from_audio(np.ones((99, 2)).T / 2, 100),
    ),
]


@pytest.mark.parametrize(("message", "wrong", "right"), CONDITIONS, ids=[row[0][:24] for row in CONDITIONS])
def test_remedies_of_conditions(message: str, wrong: Callable[[], Any], right: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
    assert right() is not None
