"""The demo's page for styles: a prompt in a mixture of styles, and style cards to download and to upload."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import gradio as gr
from gradio.components import Component

from weftwork.attention_processors.style.adapter import StyleCard
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.demo.guards import errors_shown
from weftwork.scripts.demo.jobs import Report
from weftwork.scripts.demo.pages import AdapterPage
from weftwork.scripts.demo.studio import ImageStudio
from weftwork.scripts.demo.widgets import (
    DEVICE,
    QUIET,
    ImagePanel,
    ImageRequest,
    RunSettings,
    downloads,
    run_settings,
    strength_settings,
    style_conditions,
    style_samples,
    styles_of,
)

MAX_CARD_BYTES: Final = 4_000_000


class StylePage(AdapterPage):
    """A share for every style, and cards."""

    title = "Style"
    order = 20

    def build(self) -> None:
        names = styles_of(self.studio, self.adapter)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                prompt = gr.Textbox("a red cat", label="Prompt", elem_id="style-prompt")
                gallery, samples = _samples(self.studio)
                sliders = [gr.Slider(0, 1, float(i == 0), step=0.05, label=name) for i, name in enumerate(names)]
                shares = {f"share_{name}": slider for name, slider in zip(names, sliders, strict=True)}
                strength = strength_settings()
                card = self._cards(shares, names)
            with gr.Column(scale=2, min_width=320):
                settings = run_settings()
                panel = ImagePanel(self.studio)

        def chosen(event: gr.SelectData) -> list[float]:
            return [float(name == samples[event.index]) for name in names]

        def request(text: str, uploaded: str | None, *values: float) -> ImageRequest:
            mixture, (weight, start, end, *rest) = values[: len(names)], values[len(names) :]
            conditions = style_conditions(_shares(names, mixture), weight, start, end, self.adapter)
            return RunSettings.of(rest).request({"prompt": text, "conditions": conditions}, _read_card(uploaded))

        gallery.select(chosen, None, sliders, **QUIET)
        inputs = {"prompt": prompt, "card": card, **shares, **strength, **settings}
        panel.connect(request, inputs, api_name="style", triggers=[prompt.submit])

    def _cards(self, sliders: Mapping[str, Component], names: tuple[str, ...]) -> gr.File:
        """Adds the button that bakes the mixture into a card, and the upload of a card."""

        def bake(**mixture: float) -> object:
            shares = _shares(names, [mixture[name] for name in sliders])

            def job(_report: Report[Path]) -> Path:
                path = self.studio.queue.new_file(f"{'-'.join(shares)}.safetensors")
                self.studio.pipe.adapters[self.adapter].bake(shares, path.stem).save(path)
                return path

            with errors_shown():
                if not shares:
                    raise UserError("Card: got no style, expected one with a share; move a slider")
                *_, path = self.studio.queue.run(job)
            assert isinstance(path, Path)
            return downloads(path)[0]

        with gr.Accordion("Cards", open=False):
            with gr.Row():
                button = gr.Button("Bake the mixture into a card", elem_id="bake")
                card = gr.DownloadButton("Card (safetensors)", interactive=False, elem_id="card")
            button.click(
                bake,
                None,
                card,
                inputs_kwargs=dict(sliders),
                api_name="bake",
                concurrency_id=DEVICE,
                concurrency_limit=1,
            )
            return gr.File(label="A card to add to the mixture", file_types=[".safetensors"], elem_id="own-card")


def _samples(studio: ImageStudio) -> tuple[gr.Gallery, list[str]]:
    """Adds samples of the shipped styles, from their model card, and returns their names."""
    samples = style_samples(studio)
    gallery = gr.Gallery(
        [(str(file), name) for name, file in samples.items()],
        label="Styles; click one to use it alone",
        columns=4,
        height="auto",
        interactive=False,
        allow_preview=False,
        format="png",
        visible=bool(samples),
        elem_id="styles-gallery",
    )
    return gallery, list(samples)


def _shares(names: Sequence[str], mixture: Sequence[float]) -> dict[str, float]:
    return {name: share for name, share in zip(names, mixture, strict=True) if share > 0}


def _read_card(path: str | None) -> StyleCard | None:
    """Reads the card of a user.

    Raises:
        ValueError: a file that is too large, or no card of this pipeline.
    """
    if path is None:
        return None
    if Path(path).stat().st_size > MAX_CARD_BYTES:
        raise UserError(f"Card: got more than {MAX_CARD_BYTES // 1_000_000} MB, expected a style card")
    try:
        return StyleCard.load(path)
    except OSError as error:
        raise UserError(error) from None
