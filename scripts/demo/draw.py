"""The demo's page for sketches with text: layers on one canvas, which are the pairs of a design."""

from collections.abc import Mapping
from typing import Final

import gradio as gr

from weftwork.attention_processors.core.method import methods
from weftwork.pipelines.designs.samplers import fitting_samplers
from weftwork.scripts.demo.canvas import design_canvas, result_viewer
from weftwork.scripts.demo.canvas_defaults import defaults_of
from weftwork.scripts.demo.pages import AdapterPage, attached_name
from weftwork.scripts.demo.widgets import QUIET, ImagePanel, ImageRequest, style_samples, styles_of

PHOTOGRAPHS: Final = {"reference": "reference", "subject": "subjects"}
"""Methods by the kinds of layers that show a photograph."""
CANVAS: Final = "document.querySelector('#design .canvas-page')"
STARTED: Final = f"() => {CANVAS}.started()"
FINISHED: Final = f"(images, maps, mapped) => {CANVAS}.finished(images ?? [], maps ?? [], mapped ?? [])"
"""Tell the canvas that images are generated, which it shows when they are finished."""
MAX_IMAGES: Final = 4


class DrawPage(AdapterPage):
    """Sketches and texts of objects, drawn on one canvas."""

    title = "Draw"
    order = 10

    def build(self) -> None:
        samples, tokenizer = style_samples(self.studio), getattr(self.studio.pipe, "tokenizer", None)
        named = {kind: attached_name(methods()[name], self.studio) for kind, name in PHOTOGRAPHS.items()}
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                canvas = design_canvas(
                    defaults_of(tokenizer),
                    adapters={"pair": self.adapter, **{kind: name for kind, name in named.items() if name}},
                    model=self.studio.model,
                    size=self.studio.size,
                    styles={name: samples.get(name) for name in styles_of(self.studio)},
                    samplers=fitting_samplers(self.studio.pipe),
                )
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                count = gr.Radio(list(range(1, MAX_IMAGES + 1)), value=1, label="Images", elem_id="count")
                panel = ImagePanel(self.studio, result_viewer)
                maps = gr.Checkbox(False, label="Show attention maps")

        def request(design: Mapping[str, object], maps: bool = False, count: int = 1) -> ImageRequest:
            return ImageRequest(design, maps=maps, count=count)

        gr.on([panel.buttons.start.click, canvas.submit], None, None, None, js=STARTED, **QUIET)
        inputs = {"design": canvas, "maps": maps, "count": count}
        done = panel.connect(request, inputs, api_name="draw", triggers=[canvas.submit])
        done.then(None, [panel.images, panel.maps, panel.mapped], None, js=FINISHED, **QUIET)
