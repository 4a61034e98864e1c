"""What the pages of the demo share: settings of a run, what is shown of it, styles, and errors in one line."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gradio as gr

from weftwork.attention_processors.style.adapter import StyleCard
from weftwork.scripts.demo.jobs import Line, Step, Stopped, User
from weftwork.scripts.demo.studio import MAX_STEPS, Made, Studio

logger = logging.getLogger(__name__)

DEVICE: Final = "device"
"""Calls with this concurrency id wait for each other."""
QUIET: Final[Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
"""Of actions that only rearrange the page: they wait for no line, their answers come on no shared stream, and
their errors are shown to nobody."""
HEARD: Final[Any] = {**QUIET, "queue": True}
"""Of those whose errors are to be shown."""


def complaint(message: object) -> gr.Error:
    """An error that the page shows, and nobody's traceback."""
    return gr.Error(str(message), duration=None, print_exception=False)


def guarded(upload: Any) -> Any:
    """A component of gradio's that says in one line that a file is no picture."""
    preprocess = upload.preprocess

    def readable(payload: Any) -> Any:
        try:
            return preprocess(payload)
        except Exception:
            logger.warning("demo: an upload cannot be read", exc_info=True)
            what = "a file that is no picture, or too large a one"
            raise complaint(f"{upload.label}: got {what}; bring a PNG, JPEG or WebP") from None

    upload.preprocess = readable
    return upload


@dataclass(frozen=True)
class RunSettings:
    """What `run_settings` holds; a seed of None is drawn."""

    seed: int | None
    num_inference_steps: float
    guidance_scale: float
    maps: bool

    def of(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The design with these settings."""
        return {
            **record,
            "seed": self.seed,
            "num_inference_steps": int(self.num_inference_steps),
            "guidance_scale": self.guidance_scale,
        }


@dataclass(frozen=True)
class Asked:
    """What a page asks for.

    Args:
        record: a design, but for its settings.
        card: a style of the user's own.
        more: conditions that design files cannot hold.
    """

    record: Mapping[str, Any]
    settings: RunSettings
    card: StyleCard | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def run_settings(*, steps: int = 20, guidance: float | None = 3, maps: bool = True) -> list[Any]:
    """Seed, steps, guidance unless there is none, and whether maps are wanted unless there are none."""
    with gr.Accordion("Settings", open=False):
        with gr.Row():
            settings: list[Any] = [
                gr.Number(None, label="Seed (empty: any)", precision=0, minimum=0, min_width=140),
                gr.Slider(1, MAX_STEPS, steps, step=1, label="Steps", min_width=140),
            ]
            if guidance is not None:
                settings.append(gr.Slider(0, 15, guidance, step=0.5, label="Guidance", min_width=140))
        if maps:
            settings.append(gr.Checkbox(False, label="Show where each acted"))
    return settings


class Buttons:
    """What starts a run and cancels it."""

    def __init__(self, line: Line) -> None:
        self.line = line
        with gr.Row():
            self.start = gr.Button("Generate", variant="primary", elem_classes="generate")
            self.cancel = gr.Button("Cancel", elem_classes="cancel")

    def wire(
        self,
        make: Callable[..., Iterator[Any]],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        api_name: str,
        triggers: Sequence[Any] = (),
    ) -> None:
        """Start `make` with the user and the inputs' values, and cancel it.

        Args:
            make: yields steps, and values for the outputs.
            outputs: what previews are shown in, what the state is told in, and others.
        """

        def user(request: gr.Request) -> User:
            return request.session_hash, api_name

        def expect(request: gr.Request) -> None:
            self.line.expect(user(request))

        def generate(request: gr.Request, *values: Any) -> Iterator[Any]:
            others = [gr.skip()] * (len(outputs) - 2)
            with told():
                try:
                    for result in make(user(request), *values):
                        if isinstance(result, Step):
                            kept = gr.skip() if result.preview is None else result.preview
                            result = [kept, f"Step {result.done} of {result.total}", *others]
                        yield result
                except Stopped:
                    yield [gr.skip(), "Cancelled.", *others]

        def cancel(request: gr.Request) -> Any:
            return "Stopping …" if self.line.cancel(user(request)) else gr.skip()

        started = [self.start.click, *triggers]
        gr.on(started, expect, None, None, **QUIET)
        options: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1, "show_progress": "minimal"}
        gr.on(started, generate, list(inputs), list(outputs), api_name=api_name, **options)
        self.cancel.click(cancel, None, outputs[1], **QUIET)


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong inside is said on the page, in one line.

    Raises:
        gr.Error: instead of any other error but `Stopped`.
    """
    try:
        yield
    except (gr.Error, Stopped):
        raise
    except (ValueError, FloatingPointError) as error:
        raise complaint(error) from None
    except Exception as error:
        logger.exception("demo: a call failed")
        raise complaint(f"This did not work ({type(error).__name__}); the terminal says more") from None


class PictureRun:
    """The buttons of a picture and what is shown of it: preview or picture, state, used seed, files, maps."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.buttons = Buttons(studio.line)
        self.picture = gr.Image(label="Picture", format="png", interactive=False, height=400, elem_classes="picture")
        self.state = state_line()
        self.seed = gr.Textbox(label="Seed of this picture", interactive=False, elem_classes="seed")
        with gr.Row():
            self.png = gr.DownloadButton("Picture (PNG)", interactive=False)
            self.json = gr.DownloadButton("Design (JSON)", interactive=False)
        self.maps = gr.Gallery(label="Where each acted", visible=False, columns=3, format="png", height="auto")

    def wire(
        self, describe: Callable[..., Asked], inputs: Sequence[Any], *, api_name: str, triggers: Sequence[Any]
    ) -> None:
        """Start what `describe` makes of the inputs."""

        def make(user: User, *values: Any) -> Iterator[Any]:
            return self._drawn(describe(*values), user)

        outputs = [self.picture, self.state, self.seed, self.png, self.json, self.maps]
        self.buttons.wire(make, inputs, outputs, api_name=api_name, triggers=triggers)

    def _drawn(self, asked: Asked, user: User) -> Iterator[Any]:
        """Steps and, with the picture, files and maps."""
        record = asked.settings.of(asked.record)
        options: dict[str, Any] = {"maps": asked.settings.maps, "card": asked.card, "more": asked.more, "user": user}
        for result in self.studio.draw(self.studio.design(record), **options):
            if not isinstance(result, Made):
                yield result
                continue
            design = self.studio.line.file("design.json")
            design.write_text(json.dumps({**record, "seed": result.seed}, indent=2) + "\n")
            note = " The design does not hold your card or picture." if asked.card or asked.more else ""
            maps = gr.update(value=list(result.maps), visible=bool(result.maps))
            files = downloads(result.path, design)
            yield [str(result.path), f"Done.{note}", str(result.seed), *files, maps]


def state_line() -> gr.Markdown:
    """Where the state of a run is told."""
    return gr.Markdown("", elem_classes="state")


def downloads(*paths: Path) -> list[Any]:
    """Updates of download buttons."""
    return [gr.update(value=str(path), interactive=True) for path in paths]


def styles_of(studio: Studio) -> tuple[str, ...]:
    """The names of the styles that the pipeline knows."""
    adapters = studio.pipe.adapters
    return tuple(adapters["style"].config["styles"]) if adapters is not None and "style" in adapters else ()


def style_settings(studio: Studio) -> list[Any]:
    """A style to all of the picture, with weight and time; nothing where the pipeline knows none."""
    names = styles_of(studio)
    if not names:
        return []
    with gr.Accordion("Style", open=False):
        choice = gr.CheckboxGroup(list(names), label="Styles, in equal shares", elem_id="styles")
        return [choice, *strength_settings()]


def strength_settings() -> list[Any]:
    """Weight, start and end of a style."""
    with gr.Row():
        weight = gr.Slider(0, 1.5, 1, step=0.05, label="Weight", min_width=140)
        start = gr.Slider(0, 1, 0, step=0.05, label="From (share of the steps)", min_width=140)
        end = gr.Slider(0, 1, 1, step=0.05, label="Until", min_width=140)
    return [weight, start, end]


def style_condition(shares: Mapping[str, float], weight: float, start: float, end: float) -> dict[str, Any]:
    """A mixture as conditions of a design; nothing where there is none."""
    return {"style": [{"style": dict(shares), "weight": weight, "start": start, "end": end}]} if shares else {}
