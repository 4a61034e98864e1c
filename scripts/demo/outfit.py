"""The demo's page of sketches with words: each thing on a canvas of its own, composed into one picture."""

import json
from collections.abc import Sequence
from typing import Any, Final

import gradio as gr
import numpy as np
from PIL import Image

from weftwork.datasets.readers.images import MIN_CONTRAST, as_image, compose_sketches
from weftwork.datasets.readers.inline_images import as_text
from weftwork.scripts.demo.parts import (
    QUIET,
    Asked,
    PictureRun,
    RunSettings,
    complaint,
    guarded,
    run_settings,
    style_condition,
    style_settings,
)
from weftwork.scripts.demo.studio import Studio

SLOTS: Final = 6
SIDE: Final = 320
REGIONS: Final = {"inside its strokes": "sketch", "everywhere": "everywhere", "in a box": "box"}
BOX: Final = "0.25, 0.1, 0.75, 0.6"
EXAMPLES: Final = {"three": (3, 3), "four": (8, 4)}
"""By name the index and the number of garments."""
PARTS: Final = 6
"""Widgets of a thing: canvas, words, weight, region, box, hidden."""


def outfit_page(studio: Studio) -> None:
    """Draws the page into the open `gr.Blocks`."""
    count = gr.Number(2, visible=False, precision=0, label="Number of things")  # the page keeps it, no session
    with gr.Row():
        examples = [gr.Button(f"Example: {name} garments", elem_id=f"example-{name}") for name in EXAMPLES]
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            prompt = gr.Textbox("a person wearing an outfit", label="The whole picture in words", elem_id="prompt")
            with gr.Row():
                groups, slots = _things()
            add = gr.Button("Add a thing", elem_id="add")
        with gr.Column(scale=2, min_width=320):
            composed = gr.Image(label="All sketches", elem_id="composed", height=220, interactive=False, format="png")
            styles = style_settings(studio)
            settings = run_settings()
            shown = PictureRun(studio)
    flat = [widget for slot in slots for widget in slot]
    inputs = [prompt, *flat, *styles, *settings, count]

    def describe(*values: Any) -> Asked:
        words, *others, number = values
        record, rest = _record([words, number, *others[: PARTS * SLOTS]]), others[PARTS * SLOTS :]
        if styles:
            names, *strength = rest[: len(styles)]
            record["conditions"] |= style_condition(dict.fromkeys(names, 1.0), *strength)
        return Asked(record, RunSettings(*rest[len(styles) :]))

    shown.wire(describe, inputs, api_name="outfit", triggers=[prompt.submit])
    canvases = [slot[0] for slot in slots]
    for canvas in canvases:
        canvas.change(_composed, canvases, composed, trigger_mode="always_last", **QUIET)
    gr.on(None, lambda: [_blank()] * SLOTS, None, canvases, **QUIET)
    _rows(add, groups, slots, count)
    for name, button in zip(EXAMPLES, examples, strict=True):
        filled = [prompt, count, *flat, *groups]
        button.click(lambda name=name: _example(name), None, filled, **QUIET)


def _things() -> tuple[list[gr.Column], list[list[Any]]]:
    groups, slots = [], []
    for index in range(SLOTS):
        with gr.Column(visible=index < 2, elem_id=f"thing-{index}", min_width=280, variant="panel") as group:
            editor = gr.ImageEditor(
                label=f"Sketch {index + 1}",
                type="pil",
                format="png",
                image_mode="RGBA",
                sources=("upload", "clipboard"),
                brush=gr.Brush(colors=["#000000"], default_color="#000000", default_size=4, color_mode="fixed"),
                layers=False,
                transforms=(),
                canvas_size=(SIDE, SIDE),
                fixed_canvas=True,
                height=SIDE,
                elem_id=f"sketch-{index}",
            )
            canvas = guarded(editor)
            words = gr.Textbox(label="Its words", placeholder="a red striped jacket", elem_id=f"words-{index}")
            with gr.Row():
                weight = gr.Slider(0, 2, 1, step=0.05, label="Weight", min_width=140)
                region = gr.Dropdown(list(REGIONS), value="inside its strokes", label="It acts", min_width=140)
                box = gr.Textbox(BOX, label="Box: left, top, right, bottom", visible=False, min_width=140)
            region.change(lambda name: gr.update(visible=REGIONS[name] == "box"), region, box, **QUIET)
            hidden = gr.Checkbox(False, label="Leave it out", elem_id=f"hidden-{index}")
        groups.append(group)
        slots.append([canvas, words, weight, region, box, hidden])
    return groups, slots


def _rows(add: gr.Button, groups: list[gr.Column], slots: list[list[Any]], count: gr.Number) -> None:
    """Adding, removing and moving things: values move, widgets stay."""
    flat = [widget for slot in slots for widget in slot]

    def added(number: int) -> list[Any]:
        number = min(SLOTS, number + 1)
        return [number, *_visible(number)]

    def removed(index: int, number: int, *values: Any) -> list[Any]:
        rows = _split(values)
        rows = [*rows[:index], *rows[index + 1 :], _empty()]
        number = max(1, number - 1)
        return [number, *(value for row in rows for value in row), *_visible(number)]

    def raised(index: int, *values: Any) -> list[Any]:
        rows = _split(values)
        rows[index - 1], rows[index] = rows[index], rows[index - 1]
        return [value for row in rows for value in row]

    add.click(added, count, [count, *groups], **QUIET)
    for index, group in enumerate(groups):
        with group, gr.Row():
            remove = gr.Button("Remove", size="sm", elem_id=f"remove-{index}")
            up = gr.Button("Move up", size="sm", interactive=index > 0, elem_id=f"up-{index}")
        remove.click(
            lambda number, *values, index=index: removed(index, number, *values),
            [count, *flat],
            [count, *flat, *groups],
            **QUIET,
        )
        if index:
            up.click(lambda *values, index=index: raised(index, *values), flat, flat, **QUIET)


def _visible(number: int) -> list[Any]:
    return [gr.update(visible=index < number) for index in range(SLOTS)]


def _blank() -> dict[str, Any]:
    """A white canvas, on which the brush is at hand at once."""
    return _on_canvas(Image.new("L", (SIDE, SIDE), 255))


def _on_canvas(sketch: Image.Image) -> dict[str, Any]:
    ground = sketch.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return {"background": ground, "layers": [], "composite": ground}


def _empty() -> list[Any]:
    return [_blank(), "", 1.0, "inside its strokes", BOX, False]


def _split(values: Sequence[Any]) -> list[list[Any]]:
    return [list(values[i : i + PARTS]) for i in range(0, len(values), PARTS)]


def _sketch(canvas: Any) -> Image.Image | None:
    """What is drawn on a canvas, on white; None if nothing is."""
    if canvas is None or canvas["composite"] is None:
        return None
    grey = as_image(canvas["composite"], "L", name="sketch")
    return grey if np.ptp(np.asarray(grey)) >= MIN_CONTRAST else None


def _composed(*canvases: Any) -> Image.Image | None:
    sketches = [sketch for canvas in canvases if (sketch := _sketch(canvas)) is not None]
    return compose_sketches(sketches) if sketches else None


def _record(values: Sequence[Any]) -> dict[str, Any]:
    """The page's pairs as a design."""
    prompt, number, *flat = values
    pairs = []
    for index, (canvas, words, weight, region, box, hidden) in enumerate(_split(flat)[:number]):
        sketch, text = _sketch(canvas), (words or "").strip()
        if hidden or (sketch is None and not text):
            continue
        pair: dict[str, Any] = {"weight": weight}
        if sketch is not None:
            pair["sketch"] = as_text(sketch)
        if text:
            pair["text"] = text
        if REGIONS[region] == "box":
            pair["region"] = _box(box, index)
        elif REGIONS[region] == "sketch" and sketch is not None:
            pair["region"] = "sketch"
        pairs.append(pair)
    return {"prompt": prompt, "conditions": {"paired": pairs} if pairs else {}}


def _box(text: str, index: int) -> list[float]:
    try:
        return json.loads(f"[{text}]")
    except ValueError:
        raise complaint(f"Box of sketch {index + 1}: got {text!r}, expected four numbers like {BOX}") from None


def _example(name: str) -> list[Any]:
    """Prompt, count, values and visibility of an outfit of the world's validation split."""
    from weftwork.datasets.synthetic.outfits import PROMPT, sample

    index, number = EXAMPLES[name]
    drawn = sample("validation", index, count=number)
    rows = []
    for sketch, text in zip(drawn.sketches, drawn.texts, strict=True):
        rows.append([_on_canvas(Image.fromarray(sketch)), text, 1.0, "inside its strokes", BOX, False])
    rows += [_empty() for _ in range(SLOTS - len(rows))]
    return [PROMPT, number, *(value for row in rows for value in row), *_visible(number)]
