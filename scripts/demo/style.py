"""The demo's page of styles: a prompt in a mixture of styles, cards to take along and to bring, a reference picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from weftwork.attention_processors.style.adapter import StyleCard
from weftwork.pretrained import available, shipped
from weftwork.scripts.demo.parts import (
    DEVICE,
    QUIET,
    Asked,
    PictureRun,
    RunSettings,
    complaint,
    guarded,
    run_settings,
    strength_settings,
    style_condition,
    styles_of,
    told,
)
from weftwork.scripts.demo.studio import Studio

MAX_CARD_BYTES = 4_000_000


def style_page(studio: Studio) -> None:
    """Draws the page into the open `gr.Blocks`."""
    names = styles_of(studio)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            prompt = gr.Textbox("a red cat", label="What is shown, in words", elem_id="style-prompt")
            samples = _samples()
            gallery = gr.Gallery(
                samples,
                label="The styles; press one to take it alone",
                columns=4,
                height="auto",
                interactive=False,
                allow_preview=False,
                format="png",
                visible=bool(samples),
                elem_id="styles-gallery",
            )
            sliders = [gr.Slider(0, 1, float(i == 0), step=0.05, label=name) for i, name in enumerate(names)]
            _choosable(gallery, [name for _, name in samples], sliders, names)
            strength = strength_settings()
            card = _cards(studio, sliders, names)
        with gr.Column(scale=2, min_width=320):
            settings = run_settings()
            shown = PictureRun(studio)

    def describe(text: str, uploaded: str | None, *values: Any) -> Asked:
        mixture, (weight, start, end, *rest) = values[: len(names)], values[len(names) :]
        conditions = style_condition(_shares(names, mixture), weight, start, end)
        return Asked({"prompt": text, "conditions": conditions}, RunSettings(*rest), _card(uploaded))

    inputs = [prompt, card, *sliders, *strength, *settings]
    shown.wire(describe, inputs, api_name="style", triggers=[prompt.submit])


def _choosable(gallery: gr.Gallery, shown: Sequence[str], sliders: list[gr.Slider], names: Sequence[str]) -> None:
    """A press on a sample takes its style alone."""

    def chosen(event: gr.SelectData) -> list[float]:
        return [float(name == shown[event.index]) for name in names]

    gallery.select(chosen, None, sliders, **QUIET)


def _samples() -> list[tuple[str, str]]:
    """What the shipped styles look like, from their card."""
    if "style" not in available():
        return []
    return [(str(path), path.stem) for path in sorted((shipped("style") / "samples").glob("*.png"))]


def _cards(studio: Studio, sliders: list[gr.Slider], names: tuple[str, ...]) -> gr.File:
    """Baking the mixture into a card, and a place to bring one."""

    def baked(*mixture: float) -> Any:
        shares = _shares(names, mixture)
        if not shares:
            raise complaint("Card: got no style, expected one with a share; move a slider")

        def bake(_: object) -> Path:
            path = studio.line.file(f"{'-'.join(shares)}.safetensors")
            studio.pipe.adapters["style"].bake(shares, path.stem).save(path)
            return path

        with told():
            *_, path = studio.line.make(bake)
        return gr.update(value=str(path), interactive=True)

    with gr.Accordion("Cards", open=False):
        with gr.Row():
            button = gr.Button("Bake the mixture into a card", elem_id="bake")
            card = gr.DownloadButton("Card (safetensors)", interactive=False, elem_id="card")
        button.click(baked, sliders, card, api_name="bake", concurrency_id=DEVICE, concurrency_limit=1)
        return gr.File(label="A card of yours, beside the mixture", file_types=[".safetensors"], elem_id="own-card")


def _shares(names: Sequence[str], mixture: Sequence[float]) -> dict[str, float]:
    return {name: share for name, share in zip(names, mixture, strict=True) if share > 0}


def _card(path: str | None) -> StyleCard | None:
    """A user's card, checked.

    Raises:
        gr.Error: a file that is too large, or no card of this pipeline.
    """
    if path is None:
        return None
    if Path(path).stat().st_size > MAX_CARD_BYTES:
        raise complaint(f"Card: got more than {MAX_CARD_BYTES // 1_000_000} MB, expected a style card")
    try:
        return StyleCard.load(path)
    except (ValueError, OSError) as error:
        raise complaint(error) from None


def reference_page(studio: Studio) -> None:
    """Draws the page of pictures to take after into the open `gr.Blocks`."""
    from weftwork.attention_processors.reference.adapter import Reference

    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            prompt = gr.Textbox("a red cat", label="What is shown, in words", elem_id="reference-prompt")
            upload = gr.Image(
                label="A picture to take after", type="pil", sources=["upload", "clipboard"], format="png"
            )
            picture = guarded(upload)
            weight = gr.Slider(0, 1.5, 1, step=0.05, label="Weight")
        with gr.Column(scale=2, min_width=320):
            settings = run_settings()
            shown = PictureRun(studio)

    def describe(text: str, image: Image.Image | None, weight: float, *rest: Any) -> Asked:
        if image is None:
            raise complaint("Picture: got none, expected one to take after; upload it")
        reference = {"reference": (Reference(image, weight=weight),)}
        return Asked({"prompt": text}, RunSettings(*rest), more=reference)

    shown.wire(describe, [prompt, picture, weight, *settings], api_name="reference", triggers=[prompt.submit])
