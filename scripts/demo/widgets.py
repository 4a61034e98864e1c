"""Widgets that several pages of the demo share: settings of a run, its buttons and results, styles."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypedDict

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from weftwork.attention_processors.style.adapter import StyleCard
from weftwork.datasets.readers.errors import UserError
from weftwork.pretrained import adapters_of, shipped
from weftwork.scripts.demo.guards import errors_shown
from weftwork.scripts.demo.jobs import Cancelled, JobQueue, Result, Step, User
from weftwork.scripts.demo.studio import CARD, MAX_STEPS, ImageResult, ImageStudio

DEVICE: Final = "device"
"""Calls with this concurrency id wait for each other."""
BOX: Final = "0.25, 0.1, 0.75, 0.6"
SHOW_RESULT: Final = """() => {
  const result = [...document.querySelectorAll(".result")].find(one => one.offsetParent);
  if (innerWidth <= 700) result?.scrollIntoView({block: "center", behavior: "smooth"});
}"""
"""On a narrow screen, where it is below the inputs."""
Record = dict[str, object]
"""A JSON object."""
Values = list[object]
"""Values or updates of output components."""


class EventOptions(TypedDict):
    api_visibility: Literal["private"]
    show_progress: Literal["hidden"]
    queue: bool


QUIET: Final[EventOptions] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
"""Options of events that only rearrange the page: they do not wait in the queue, and their errors are not shown."""
HEARD: Final[EventOptions] = {**QUIET, "queue": True}
"""Options of events whose errors are shown."""


@dataclass(frozen=True)
class RunSettings:
    """Values of `run_settings`; a seed of None is drawn."""

    seed: int | None
    num_inference_steps: float
    guidance_scale: float
    maps: bool = False

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        return cls(*values)

    def request(self, record: Mapping[str, object], card: StyleCard | None = None) -> "ImageRequest":
        """Returns the request for the image of a design with these settings."""
        settings = {
            "seed": self.seed,
            "num_inference_steps": int(self.num_inference_steps),
            "guidance_scale": self.guidance_scale,
        }
        return ImageRequest({**record, **settings}, self.maps, card)


@dataclass(frozen=True)
class ImageRequest:
    """A request for an image.

    Args:
        record: a design.
        maps: whether to show attention maps.
        card: a user's own style.
        count: images of one call.
    """

    record: Mapping[str, object]
    maps: bool = False
    card: StyleCard | None = None
    count: int = 1


def run_settings(*, steps: int = 20, guidance: float | None = 3, maps: bool = True) -> dict[str, Component]:
    """Adds seed, steps, guidance unless it is None, and with `maps` the choice to show attention maps, by name."""
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            settings: dict[str, Component] = {
                "seed": gr.Number(None, label="Seed (optional)", precision=0, minimum=0, min_width=140),
                "steps": gr.Slider(1, MAX_STEPS, steps, step=1, label="Steps", min_width=140),
            }
            if guidance is not None:
                settings["guidance"] = gr.Slider(0, 15, guidance, step=0.5, label="Guidance", min_width=140)
        if maps:
            settings["maps"] = gr.Checkbox(False, label="Show attention maps")
    return settings


class RunButtons:
    """The buttons that start and cancel a job."""

    def __init__(self, queue: JobQueue) -> None:
        self.queue = queue
        with gr.Row(elem_classes="run"):
            self.start = gr.Button("Generate", variant="primary", elem_classes="generate")
            self.cancel = gr.Button("Cancel", elem_classes="cancel")

    def connect(
        self,
        run: Callable[..., Iterator[Step | Result]],
        show: Callable[[Result], Values],
        inputs: Mapping[str, Component],
        outputs: Sequence[Component],
        *,
        api_name: str,
        triggers: Sequence[Callable[..., object]] = (),
    ) -> Dependency:
        """Starts `run` with the user and the values of the inputs, and cancels it.

        Args:
            run: yields steps, and a result at the end.
            show: turns a result into values for the outputs.
            inputs: by their names in calls from programs, in the order of the values.
            outputs: the component for previews, the one for the state, and others.

        Returns:
            the event, which others can follow.
        """

        def user(request: gr.Request) -> User:
            return request.session_hash, api_name

        def expect(request: gr.Request) -> None:
            self.queue.expect(user(request))

        def generate(request: gr.Request, **values: object) -> Iterator[Values]:
            others: Values = [gr.skip()] * (len(outputs) - 2)
            with errors_shown():
                try:
                    for result in run(user(request), *(values[name] for name in inputs)):
                        if isinstance(result, Step):
                            preview = gr.skip() if result.preview is None else result.preview
                            yield [preview, f"Step {result.done} of {result.total}", *others]
                        else:
                            yield show(result)
                except Cancelled:
                    yield [gr.skip(), "Cancelled.", *others]

        def cancel(request: gr.Request) -> object:
            return "Stopping …" if self.queue.cancel(user(request)) else gr.skip()

        started = [self.start.click, *triggers]
        gr.on(started, None, None, None, js=SHOW_RESULT, **QUIET)
        gr.on(started, expect, None, None, **QUIET)
        done = gr.on(
            started,
            generate,
            None,
            list(outputs),
            inputs_kwargs=dict(inputs),
            api_name=api_name,
            concurrency_id=DEVICE,
            concurrency_limit=1,
            show_progress="minimal",
        )
        self.cancel.click(cancel, None, outputs[1], **QUIET)
        return done


class ImagePanel:
    """The buttons of an image and its results: preview or image, state, used seed, files, attention maps.

    Args:
        below: adds components below the image.
    """

    def __init__(self, studio: ImageStudio, below: Callable[[], object] = lambda: None) -> None:
        self.studio = studio
        self.buttons = RunButtons(studio.queue)
        self.image = gr.Image(label="Image", format="png", interactive=False, height=400, elem_classes="result")
        below()
        self.state = state_line()
        self.seed = gr.Textbox(label="Seed of this image", interactive=False, elem_classes="seed")
        with gr.Row(elem_classes="files"):
            self.png = gr.DownloadButton("Image (PNG)", interactive=False)
            self.json = gr.DownloadButton("Design (JSON)", interactive=False)
        self.maps = gr.Gallery(
            label="Attention maps", visible=False, columns=3, format="png", height="auto", elem_classes="maps"
        )
        self.images = gr.Gallery(label="Images of this call", visible=False)
        self.mapped = gr.JSON(label="Conditions of the attention maps", visible=False)

    def connect(
        self,
        request: Callable[..., ImageRequest],
        inputs: Mapping[str, Component],
        *,
        api_name: str,
        triggers: Sequence[Callable[..., object]],
    ) -> Dependency:
        """Generates what `request` returns for the values of the inputs."""

        def run(user: User, *values: object) -> Iterator[Step | ImageResult]:
            asked = request(*values)
            design = self.studio.design(asked.record)
            return self.studio.generate(design, asked.count, maps=asked.maps, card=asked.card, user=user)

        outputs = [self.image, self.state, self.seed, self.png, self.json, self.maps, self.images, self.mapped]
        return self.buttons.connect(run, self._values, inputs, outputs, api_name=api_name, triggers=triggers)

    def _values(self, result: ImageResult) -> Values:
        file = self.studio.queue.new_file("design.json")
        file.write_text(json.dumps({**result.design.source, "seed": result.seed}, indent=2) + "\n")
        note = " The design does not contain your card." if CARD in result.design.conditions else ""
        maps = gr.update(value=[(one.image, one.title) for one in result.maps], visible=bool(result.maps))
        state = f"{result.left} more …" if result.left else f"Done.{note}"
        made = [str(path) for path in result.finished]
        mapped = [{"adapter": one.adapter, "place": one.place, "text": one.text} for one in result.maps]
        return [str(result.path), state, str(result.seed), *downloads(result.path, file), maps, made, mapped]


def state_line() -> gr.Markdown:
    """Adds the line that shows the state of a job."""
    return gr.Markdown("", elem_classes="state")


def downloads(*paths: Path) -> Values:
    """Returns updates of download buttons."""
    return [gr.update(value=str(path), interactive=True) for path in paths]


def image_upload(label: str, height: int | None = None) -> gr.Image:
    return gr.Image(label=label, type="pil", sources=["upload", "clipboard"], format="png", height=height)


def parsed_box(text: str, name: str) -> list[float]:
    """Returns a box that is written as four numbers.

    Raises:
        ValueError: other text; begins with `name`.
    """
    try:
        return json.loads(f"[{text}]")
    except ValueError:
        raise UserError(f"{name}: got {text!r}, expected four numbers like {BOX}") from None


def styles_of(studio: ImageStudio, adapter: str = "style") -> tuple[str, ...]:
    """Returns the names of the styles of an adapter; none where it is not attached."""
    adapters = studio.pipe.adapters
    return tuple(adapters[adapter].config["styles"]) if adapters is not None and adapter in adapters else ()


def style_samples(studio: ImageStudio) -> dict[str, Path]:
    """Returns an image in each of the styles that are shipped for the open model, from their model card."""
    adapter = adapters_of(studio.model).get("style")
    files = sorted((shipped(adapter) / "samples").glob("*.png")) if adapter else []
    return {file.stem: file for file in files}


def strength_settings() -> dict[str, Component]:
    """Adds weight, start and end of a style, by name."""
    with gr.Row():
        return {
            "weight": gr.Slider(0, 1.5, 1, step=0.05, label="Weight", min_width=140),
            "start": gr.Slider(0, 1, 0, step=0.05, label="Start (share)", min_width=140),
            "end": gr.Slider(0, 1, 1, step=0.05, label="End (share)", min_width=140),
        }


def style_conditions(
    shares: Mapping[str, float], weight: object, start: object, end: object, adapter: str = "style"
) -> dict[str, list[Record]]:
    """Returns a mixture of styles as conditions of a design; none without shares."""
    return {adapter: [{"style": dict(shares), "weight": weight, "start": start, "end": end}]} if shares else {}
