"""The demo's canvas: layers of strokes, texts and boxes, whose value is a design.

`assets` holds its script on Konva 10.9.1 (MIT license, https://konvajs.org), which the browser gets from the demo.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import gradio as gr

from weftwork.scripts.demo.widgets import Record

ASSETS: Final = Path(__file__).parent / "assets"
SCRIPT: Final = """
const {root, api_prefix} = window.gradio_config;
import(`${root}${api_prefix}/file=${props.assets}/canvas.js`)
  .then(script => script.mount(element, props, server, () => trigger('submit')));"""


def design_canvas(
    first: Record,
    *,
    adapter: str,
    model: str,
    size: tuple[int, int],
    words: Sequence[str],
    styles: Sequence[str],
    examples: Sequence[str],
    example: Callable[[str], Record],
) -> gr.HTML:
    """Adds a canvas whose value is a design as an object; its event `submit` asks for an image.

    Args:
        first: the design that it shows first.
        adapter: name of the adapter of its pairs.
        model: name of the model; the browser keeps a state for each.
        size: width and height of the model's images.
        words: those that the model knows; none where its vocabulary is open.
        styles: names of the styles.
        examples: names of examples.
        example: returns the design of an example; its name is "example".
    """
    gr.set_static_paths([ASSETS])
    canvas = gr.HTML(
        html_template=_read("canvas.html"),
        css_template=_read("controls.css", "canvas.css"),
        js_on_load=SCRIPT,
        apply_default_css=False,
        elem_id="design",
        server_functions=[example],
        assets=ASSETS.as_posix(),
        first=first,
        adapter=adapter,
        model=model,
        size=list(size),
        words=list(words),
        styles=list(styles),
        examples=list(examples),
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


def _read(*names: str) -> str:
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def _api_info() -> Record:
    return {"type": {}, "description": "a design: the content of a design file, with images as data URIs"}
