"""Messages that name a remedy: what they say is done, and then the same call succeeds."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from remedies import Row, check, given, row, table
from tiny import drawn_sketch, paired_adapter, raw_adapter, raw_conditions, tiny_parts, tiny_pipe, tiny_unet
from tiny_pipelines import PIPELINES as TINY
from tiny_pipelines import calls_of, run_tiny
from tiny_transformers import tiny_transformer_pipe
from variants import SD, VARIANTS, picture, run

from weftwork.attention_processors import SketchTextPair, Style, StyleAdapter
from weftwork.attention_processors.audio.conditions import BoxTrack, Envelope
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import FAMILIES, call_layout
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines import ConditionedBlocks, ConditionedFluxPipeline
from weftwork.pipelines.core.attach import attach, conditions, encoded
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.core.opening import conditioned_class

OfPipe = Callable[[Any], Any]
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


FLUX, PIXART, AURAFLOW = (next(one for one in TINY if one.name == name) for name in ("flux", "pixart", "auraflow"))


@torch.no_grad()
def called(pipe: Any, arguments: dict[str, Any], times: int = 1, context: str | None = None) -> list[Any]:
    """Calls of the denoiser of a pipeline by hand, in one step, with the inputs that the pipeline gave it."""
    model = pipe.transformer
    attach(pipe, it=raw_adapter(model))
    with calls_of(model) as calls:
        run_tiny(pipe, arguments)
    with conditions(pipe, {"it": raw_conditions()}), model.cache_context(context) if context else nullcontext():
        return [model(**calls[0][0]) for _ in range(times)]


def flux(**options: Any) -> list[Any]:
    return called(FLUX.make(), FLUX.arguments(), **options)


def aura(**members: Any) -> list[Any]:
    return called(AURAFLOW.make(type("Aura", (diffusers.AuraFlowPipeline,), members)), AURAFLOW.arguments())


def guided_flux(*, encoded_once: bool) -> Any:
    """A call with both halves of guidance, and conditions that were laid out for a batch of both."""
    pipe = FLUX.make(ConditionedFluxPipeline)
    pipe.attach(it=raw_adapter(pipe.transformer))
    given = {"it": raw_conditions()}
    if not encoded_once:
        return run_tiny(pipe, FLUX.arguments(), conditions=given)
    with calls_of(pipe.transformer) as calls:
        run_tiny(pipe, FLUX.arguments())
    made, _ = encoded(pipe, given)
    return run_tiny(
        pipe, FLUX.arguments(), conditioning=Conditioning.of(made, call_layout(pipe.transformer, calls[0][0]))
    )


def without_record(*, guided: bool) -> Any:
    """A call with a transformer whose class has no record; its layers are found by their names."""
    with patch.dict(FAMILIES):
        del FAMILIES["PixArtTransformer2DModel"]
        pipe = PIXART.make()
        attach(pipe, it=raw_adapter(pipe.transformer))
        with conditions(pipe, {"it": raw_conditions()}):
            return run_tiny(pipe, PIXART.arguments(guided))


PIPELINES: list[tuple[str, OfPipe, OfPipe]] = [
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
        "got 3 calls of FluxTransformer2DModel in one step, .*; turn off what adds others",
        lambda _: flux(times=3),
        lambda _: flux(times=2),
    ),
    ("got a pass named 'style', .*; turn off what adds it", lambda _: flux(context="style"), lambda _: flux()),
    (
        "got Aura, which neither prepares .*; add the property do_classifier_free_guidance to its class",
        lambda _: aura(),
        lambda _: aura(do_classifier_free_guidance=property(lambda _: True)),
    ),
    (
        "got one of both halves, but the pipeline runs them apart; pass conditions=",
        lambda _: guided_flux(encoded_once=True),
        lambda _: guided_flux(encoded_once=False),
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


@table(*PIPELINES)
def test_remedies_of_pipelines(row: Row) -> None:
    words, wrong, right = row
    kinds = (UserError, RuntimeError, TypeError)
    check((words, lambda _: wrong(SD.attached()), lambda _: right(SD.attached())), Path(), kinds)


DARK = np.full((8, 8), 40, np.uint8)
BOXES: Any = [[0, 0, 1, 1]] * 2
LOUD = np.full((1, 99), 9000)


def region(wrong: Any, words: str, right: Any) -> Row:
    return row(lambda area: SketchTextPair(text="a", region=area), given(wrong), words, given(right))


def boxes(wrong: Any, words: str, right: Any) -> Row:
    return row(lambda track: BoxTrack(*track), given(wrong), words, given(right))


def envelope(wrong: Any, words: str, right: Any) -> Row:
    return row(lambda audio: Envelope.from_audio(audio, 100), given(wrong), words, given(right))


@table(
    row(lambda on: stock(attached=on), given(False), r"attach\(it=…\) first", given(True)),
    row(lambda text: SketchTextPair(text=text), given(None), "give at least one of them", given("a")),
    *(region("sketch", "give a box, a mask or None", area) for area in ((0, 0, 1, 1), DARK * 6, None)),
    region(DARK, "stretch it", DARK * 6),
    row(
        lambda pair: SketchTextPair(text="a", **pair),
        given({"region": DARK * 0}),
        "use weight=0 to turn it off",
        given({"weight": 0}),
    ),
    ("or weight=0 to turn it off", lambda _: Style({"ink": 0}), lambda _: Style("ink", weight=0)),
    boxes(([0.0], [[8, 8, 32, 64]]), "divide pixels by width and height", ([0.0], np.array([[8, 8, 32, 64]]) / 64)),
    boxes(([1.0, 0.0], BOXES), "sort them", ([0.0, 1.0], BOXES)),
    envelope(LOUD, "divide integers by their range", LOUD / 2**15),
    envelope(np.ones((99, 2)) / 2, "transpose it or add a dimension", np.ones((2, 99)) / 2),
)
def test_remedies_of_conditions(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
