"""The demo's page for sketches with text: each object has a canvas of its own, all are composed into one image."""

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypedDict

import gradio as gr
import numpy as np
from gradio.components import Component
from PIL import Image

from weftwork.datasets.readers.images import MIN_CONTRAST, as_image, compose_sketches
from weftwork.datasets.readers.inline_images import as_text
from weftwork.scripts.demo.pages import AdapterPage
from weftwork.scripts.demo.widgets import (
    BOX,
    QUIET,
    ImagePanel,
    ImageRequest,
    Record,
    RunSettings,
    Values,
    parsed_box,
    run_settings,
    style_conditions,
    style_settings,
)

SLOTS: Final = 6
SIDE: Final = 320
INSIDE: Final = "its strokes"
REGIONS: Final = {INSIDE: "sketch", "everywhere": "everywhere", "in a box": "box"}
EXAMPLES: Final = {"three": (3, 3), "four": (8, 4)}
"""By name the index and the number of garments."""


class Canvas(TypedDict):
    """The value of a `gr.ImageEditor`."""

    background: Image.Image | None
    layers: list[Image.Image]
    composite: Image.Image | None


class Slot(NamedTuple):
    """The values of one object's widgets."""

    canvas: Canvas | None
    text: str | None = ""
    weight: float = 1.0
    region: str = INSIDE
    box: str = BOX
    hidden: bool = False


class OutfitPage(AdapterPage):
    """Sketches and texts of up to `SLOTS` objects."""

    title = "Outfit"
    order = 10

    def build(self) -> None:
        count = gr.Number(2, visible=False, precision=0, label="Number of objects")  # a session may be dropped
        with gr.Row():
            examples = [gr.Button(f"Example: {name} garments", elem_id=f"example-{name}") for name in EXAMPLES]
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                prompt = gr.Textbox("a person wearing an outfit", label="Prompt", elem_id="prompt")
                with gr.Row():
                    groups, slots = _add_slots()
                add = gr.Button("Add an object", elem_id="add")
            with gr.Column(scale=2, min_width=320):
                composed = gr.Image(
                    label="All sketches", elem_id="composed", height=220, interactive=False, format="png"
                )
                styles = style_settings(self.studio)
                settings = run_settings()
                panel = ImagePanel(self.studio)
        flat = [widget for slot in slots for widget in slot]

        def request(text: str, *values: Any) -> ImageRequest:
            *rest, number = values[len(flat) :]
            conditions = self.conditions(_split(values[: len(flat)])[:number])
            if styles:
                names, *strength = rest[: len(styles)]
                conditions |= style_conditions(dict.fromkeys(names, 1.0), *strength)
            return ImageRequest({"prompt": text, "conditions": conditions}, RunSettings.of(rest[len(styles) :]))

        inputs = [prompt, *flat, *styles, *settings, count]
        panel.connect(request, inputs, api_name="outfit", triggers=[prompt.submit])
        canvases = [slot[0] for slot in slots if isinstance(slot[0], gr.ImageEditor)]
        for canvas in canvases:
            canvas.change(_composed, canvases, composed, trigger_mode="always_last", **QUIET)
        gr.on(None, lambda: [_blank()] * SLOTS, None, canvases, **QUIET)
        _connect_rows(add, groups, slots, count)
        for name, button in zip(EXAMPLES, examples, strict=True):
            button.click(functools.partial(_filled, name), None, [prompt, count, *flat, *groups], **QUIET)

    def conditions(self, slots: Sequence[Slot]) -> dict[str, list[Record]]:
        """Returns the pairs of a design; none without any.

        Raises:
            ValueError: a box that is not four numbers.
        """
        pairs = [pair for i, slot in enumerate(slots) if (pair := _pair(slot, f"Box of sketch {i + 1}")) is not None]
        return {self.adapter: pairs} if pairs else {}


def example(name: str) -> tuple[str, list[Slot]]:
    """Returns the prompt and the slots of an outfit of the synthetic dataset's validation split."""
    from weftwork.datasets.synthetic.outfits import PROMPT, sample

    index, number = EXAMPLES[name]
    drawn = sample("validation", index, count=number)
    pairs = zip(drawn.sketches, drawn.texts, strict=True)
    return PROMPT, [Slot(_on_canvas(Image.fromarray(sketch)), text) for sketch, text in pairs]


def _add_slots() -> tuple[list[gr.Column], list[list[Component]]]:
    groups, slots = [], []
    for index in range(SLOTS):
        with gr.Column(visible=index < 2, elem_id=f"thing-{index}", min_width=280, variant="panel") as group:
            canvas = gr.ImageEditor(
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
            text = gr.Textbox(label="Text", placeholder="a red striped jacket", elem_id=f"words-{index}")
            with gr.Row():
                weight = gr.Slider(0, 2, 1, step=0.05, label="Weight", min_width=140)
                region = gr.Dropdown(list(REGIONS), value=INSIDE, label="Region", min_width=140)
                box = gr.Textbox(BOX, label="Box: left, top, right, bottom", visible=False, min_width=140)
            region.change(lambda name: gr.update(visible=REGIONS[name] == "box"), region, box, **QUIET)
            hidden = gr.Checkbox(False, label="Leave out", elem_id=f"hidden-{index}")
        groups.append(group)
        slots.append([canvas, text, weight, region, box, hidden])
    return groups, slots


def _connect_rows(add: gr.Button, groups: list[gr.Column], slots: list[list[Component]], count: gr.Number) -> None:
    """Adds, removes and moves objects: values move, widgets stay."""
    flat = [widget for slot in slots for widget in slot]

    def added(number: int) -> Values:
        number = min(SLOTS, number + 1)
        return [number, *_visible(number)]

    def removed(index: int, number: int, *values: Any) -> Values:
        rows = _split(values)
        number = max(1, number - 1)
        return [number, *_flat([*rows[:index], *rows[index + 1 :], Slot(_blank())]), *_visible(number)]

    def raised(index: int, *values: Any) -> Values:
        rows = _split(values)
        rows[index - 1], rows[index] = rows[index], rows[index - 1]
        return _flat(rows)

    add.click(added, count, [count, *groups], **QUIET)
    for index, group in enumerate(groups):
        with group, gr.Row():
            remove = gr.Button("Remove", size="sm", elem_id=f"remove-{index}")
            up = gr.Button("Move up", size="sm", interactive=index > 0, elem_id=f"up-{index}")
        remove.click(functools.partial(removed, index), [count, *flat], [count, *flat, *groups], **QUIET)
        if index:
            up.click(functools.partial(raised, index), flat, flat, **QUIET)


def _filled(name: str) -> Values:
    """Returns prompt, count, values and visibility of an example."""
    prompt, slots = example(name)
    rows = [*slots, *(Slot(_blank()) for _ in range(SLOTS - len(slots)))]
    return [prompt, len(slots), *_flat(rows), *_visible(len(slots))]


def _visible(number: int) -> Values:
    return [gr.update(visible=index < number) for index in range(SLOTS)]


def _blank() -> Canvas:
    """Returns a white canvas, on which the brush can be used at once."""
    return _on_canvas(Image.new("L", (SIDE, SIDE), 255))


def _on_canvas(sketch: Image.Image) -> Canvas:
    ground = sketch.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return {"background": ground, "layers": [], "composite": ground}


def _split(values: Sequence[Any]) -> list[Slot]:
    width = len(Slot._fields)
    return [Slot(*values[i : i + width]) for i in range(0, len(values), width)]


def _flat(slots: Sequence[Slot]) -> Values:
    return [value for slot in slots for value in slot]


def _sketch(canvas: Canvas | None) -> Image.Image | None:
    """Returns the drawing of a canvas on white; None if it is empty."""
    if canvas is None or canvas["composite"] is None:
        return None
    grey = as_image(canvas["composite"], "L", name="sketch")
    return grey if np.ptp(np.asarray(grey)) >= MIN_CONTRAST else None


def _composed(*canvases: Canvas | None) -> Image.Image | None:
    sketches = [sketch for canvas in canvases if (sketch := _sketch(canvas)) is not None]
    return compose_sketches(sketches) if sketches else None


def _pair(slot: Slot, name: str) -> Record | None:
    """Returns the pair of an object; None where it is hidden or empty."""
    sketch, text = _sketch(slot.canvas), (slot.text or "").strip()
    if slot.hidden or (sketch is None and not text):
        return None
    pair: Record = {"weight": slot.weight}
    if sketch is not None:
        pair["sketch"] = as_text(sketch)
    if text:
        pair["text"] = text
    if REGIONS[slot.region] == "box":
        pair["region"] = parsed_box(slot.box, name)
    elif REGIONS[slot.region] == "sketch" and sketch is not None:
        pair["region"] = "sketch"
    return pair
