"""The demo's canvas: layers of strokes, texts and boxes, whose value is a design.

`assets` holds its script on Konva 10.9.1 (MIT license, https://konvajs.org), which the browser gets from the demo.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import gradio as gr
import numpy as np
from PIL import Image

from weftwork.datasets.readers.images import as_sketch
from weftwork.datasets.readers.inline_images import as_text, from_text
from weftwork.datasets.readers.photo_lines import line_drawing
from weftwork.datasets.readers.strokes import stroke_region
from weftwork.pretrained import image_backbone
from weftwork.scripts.demo.canvas_defaults import ASSETS, CanvasDefaults
from weftwork.scripts.demo.widgets import Record

SCRIPT: Final = """
const {root, api_prefix} = window.gradio_config;
import(`${root}${api_prefix}/file=${props.assets}/canvas.js`)
  .then(script => script.mount(element, props, server, () => trigger('submit')));"""


def design_canvas(
    defaults: CanvasDefaults,
    *,
    adapters: Mapping[str, str],
    model: str,
    size: tuple[int, int],
    styles: Mapping[str, Path | None],
    samplers: Sequence[str],
) -> gr.HTML:
    """Adds a canvas whose value is a design as an object; its event `submit` asks for an image.

    Args:
        defaults: its content before a user changes anything.
        adapters: names of adapters by kind of layer: "pair", and where attached "reference" and "subject".
        model: name of the model; the browser keeps a state for each.
        size: width and height of the model's images.
        styles: samples of styles by name.
        samplers: names of samplers that the model can use.
    """

    def example(name: str) -> Record:
        return defaults.examples[name](adapters["pair"])

    gr.set_static_paths([ASSETS, *{sample.parent for sample in styles.values() if sample is not None}])
    canvas = gr.HTML(
        html_template=_read("canvas.html"),
        css_template=_read("controls.css", "canvas.css"),
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id="design",
        server_functions=[example, region, lines],
        assets=ASSETS.as_posix(),
        first=defaults.design,
        text=defaults.text,
        designers=list(defaults.designers),
        adapters=dict(adapters),
        model=model,
        shipped=image_backbone(model),
        size=list(size),
        words=list(defaults.words),
        hints=list(defaults.hints),
        styles=[[name, None if sample is None else sample.as_posix()] for name, sample in styles.items()],
        samplers=list(samplers),
        examples=list(defaults.examples),
    )
    canvas.api_info = _api_info
    return canvas


def result_viewer() -> gr.HTML:
    """Adds the place where the canvas shows results."""
    return gr.HTML(
        html_template=_read("viewer.html"),
        css_template=_read("controls.css", "viewer.css"),
        apply_default_css=False,
        padding=False,
        elem_id="viewer",
    )


def region(sketch: str) -> str:
    """Returns the mask of the region that a sketch encloses; both are images in data URIs."""
    area = stroke_region(as_sketch(from_text(sketch)))
    return as_text(Image.fromarray((255 * area).round().astype(np.uint8)))


def lines(photo: str) -> str:
    """Returns a sketch of the edges of a photograph; both are images in data URIs."""
    return as_text(line_drawing(from_text(photo)))


def _read(*names: str) -> str:
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def _api_info() -> Record:
    return {"type": {}, "description": "a design: the content of a design file, with images as data URIs"}
