"""The demo's page for sketches with text: layers on one canvas, which are the pairs of a design."""

from collections.abc import Mapping
from typing import Final

import gradio as gr
from PIL import Image

from weftwork.attention_processors.encoders.vocabulary import known_words
from weftwork.datasets.readers.inline_images import as_text
from weftwork.scripts.demo.canvas import design_canvas
from weftwork.scripts.demo.pages import AdapterPage
from weftwork.scripts.demo.widgets import QUIET, ImagePanel, ImageRequest, Record, styles_of

EXAMPLES: Final = {"three garments": (3, 3), "four garments": (8, 4)}
"""By name the index and the number of garments."""
MADE: Final = "file => document.querySelector('#design .canvas-page').made(file)"
"""Adds an image to the canvas' history."""
PROMPT: Final = "a person wearing an outfit"


class OutfitPage(AdapterPage):
    """Sketches and texts of objects, drawn on one canvas."""

    title = "Outfit"
    order = 10

    def build(self) -> None:
        def example(name: str) -> Record:
            return example_design(name, self.adapter)

        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                canvas = design_canvas(
                    {"prompt": PROMPT},
                    adapter=self.adapter,
                    model=self.studio.model,
                    size=self.studio.size,
                    words=known_words(getattr(self.studio.pipe, "tokenizer", None)),
                    styles=styles_of(self.studio),
                    examples=list(EXAMPLES),
                    example=example,
                )
            with gr.Column(scale=1, min_width=320):
                panel = ImagePanel(self.studio)
                maps = gr.Checkbox(False, label="Show attention maps")

        def request(design: Mapping[str, object], maps: bool = False) -> ImageRequest:
            return ImageRequest(design, maps=maps)

        inputs = {"design": canvas, "maps": maps}
        done = panel.connect(request, inputs, api_name="outfit", triggers=[canvas.submit])
        done.success(None, panel.png, None, js=MADE, **QUIET)


def example_design(name: str, adapter: str) -> Record:
    """Returns the design of an outfit of the synthetic dataset's validation split."""
    from weftwork.datasets.synthetic.outfits import sample

    index, number = EXAMPLES[name]
    drawn = sample("validation", index, count=number)
    pairs = [
        {"sketch": as_text(Image.fromarray(sketch)), "text": text, "region": "sketch"}
        for sketch, text in zip(drawn.sketches, drawn.texts, strict=True)
    ]
    return {"prompt": PROMPT, "conditions": {adapter: pairs}}
