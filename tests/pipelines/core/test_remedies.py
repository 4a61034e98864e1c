"""Messages that name a remedy: what they say is done, and then the same call succeeds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import drawn_sketch, paired_adapter, tiny_pipe, tiny_unet
from variants import SD, run

from weftwork.attention_processors import SketchTextPair, Style
from weftwork.attention_processors.audio.conditions import BoxTrack, Envelope
from weftwork.attention_processors.core.attention_maps import MapRecorder
from weftwork.pipelines.core.attach import attach, conditions

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
    with pytest.raises((ValueError, RuntimeError), match=message):
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
