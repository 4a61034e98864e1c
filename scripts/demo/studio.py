"""What the pages of pictures draw with: one pipeline, previews on the way, and safe designs."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from diffusers import DDIMScheduler
from PIL import Image

from weftwork.attention_processors.core.attention_maps import MapRecorder, overlay
from weftwork.attention_processors.style.adapter import Style, StyleCard, StyleCards
from weftwork.datasets.readers.inline_images import PREFIX, from_text
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.reader import as_design
from weftwork.pipelines.designs.run import draw, stored, write_images
from weftwork.scripts.demo.jobs import Line, Step, User, seed_of

MAX_STEPS: Final = 100
MAX_SIDE: Final = 1024
MAX_CONDITIONS: Final = 16
MAX_WORDS: Final = 2000
"""Characters of a text."""


@dataclass(frozen=True)
class Made:
    """A picture with what it was made of.

    Args:
        path: the picture as PNG, with its design inside.
        maps: where each condition acted, with its name.
    """

    picture: Image.Image
    path: Path
    seed: int
    maps: tuple[tuple[Image.Image, str], ...] = ()


class Studio:
    """A pipeline with its adapters, shared by all users of a demo.

    Args:
        pipe: with adapters attached.
        model: what the pages call it.
        line: where its users wait; one of its own unless others share it.
    """

    def __init__(self, pipe: Any, model: str, line: Line | None = None) -> None:
        pipe.set_progress_bar_config(disable=True)
        self.pipe, self.model, self.line = pipe, model, line or Line()

    @property
    def device(self) -> str:
        return str(self.pipe.device)

    def design(self, record: Mapping[str, Any]) -> Design:
        """A design from a user: pictures are inside of it, files are never read.

        Raises:
            ValueError: it is wrong, too large, or names a file.
        """
        _check_safe(record)
        design = as_design(dict(record), inline)
        if design.num_inference_steps > MAX_STEPS:
            raise ValueError(f"num_inference_steps: got {design.num_inference_steps}, expected at most {MAX_STEPS}")
        if max(design.height or 0, design.width or 0) > MAX_SIDE:
            raise ValueError(f"height, width: got more than {MAX_SIDE}, expected at most that; choose less")
        unknown = [name for name in design.conditions if name not in (self.pipe.adapters or ())]
        if unknown:
            raise ValueError(f"conditions: got {', '.join(unknown)}, which this demo has no adapter for; leave it out")
        return replace(design, seed=seed_of(design.seed))

    def draw(
        self,
        design: Design,
        *,
        maps: bool = False,
        card: StyleCard | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
        user: User | None = None,
    ) -> Iterator[Step | Made]:
        """Steps with previews, and the picture at the end; closing the iterator stops the picture.

        Args:
            card: a style of the user's own, which acts with weight 1 in this picture only.
            more: conditions that design files cannot hold, by adapter name.
            user: whose `cancel` stops it.

        Raises:
            Stopped: it was cancelled.
        """
        design = replace(design, conditions={**design.conditions, **more})

        def job(report: Callable[[Step], None]) -> Made:
            recorder = MapRecorder() if maps else None
            if card is None:
                return self._made(design, recorder, report)
            try:
                return self._made(self._with_card(design, card), recorder, report)
            finally:
                if "card" in (self.pipe.adapters or ()):
                    self.pipe.detach("card")

        yield from self.line.make(job, user)

    def _with_card(self, design: Design, card: StyleCard) -> Design:
        self.pipe.attach(card=StyleCards.of([card]))
        return replace(design, conditions={**design.conditions, "card": (Style(card.name),)})

    def _made(self, design: Design, recorder: MapRecorder | None, report: Callable[[Step], None]) -> Made:
        previews = _Previews(self.pipe)

        def after_step(pipe: Any, step: int, time_step: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            report(Step(step + 1, design.num_inference_steps, previews.after(step, tensors["latents"])))
            return {}

        (picture,) = draw(self.pipe, design, 1, recorder, callback_on_step_end=after_step)
        assert design.seed is not None
        path = self.line.file("weftwork.png")
        write_images({path: (picture, stored(design))})
        return Made(picture, path, design.seed, () if recorder is None else _maps(recorder, design, picture))


class _Previews:
    """What the denoiser takes the picture for, as long as decoding it takes no longer than a step."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self._before: torch.Tensor | None = None
        self._began, self._decoding = time.perf_counter(), 0.0

    @torch.no_grad()
    def after(self, step: int, latents: torch.Tensor) -> Image.Image | None:
        """The preview after loop index `step`; None where there is no time for one."""
        taken, picture = time.perf_counter() - self._began, None
        if self._decoding <= taken:
            began, vae = time.perf_counter(), self.pipe.vae
            clean = self._clean(step, latents.float()) / vae.config.scaling_factor
            pixels = vae.decode(clean[:1].to(vae.dtype)).sample
            (picture,) = self.pipe.image_processor.postprocess(pixels.float(), output_type="pil")
            self._decoding = time.perf_counter() - began
        self._before = latents.float()
        self._began = time.perf_counter()
        return picture

    def _clean(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Two points of one straight step of DDIM tell where it leads; of other samplers, where they are."""
        scheduler = self.pipe.scheduler
        times = scheduler.timesteps
        if self._before is None or not isinstance(scheduler, DDIMScheduler) or step + 1 >= len(times):
            return latents
        signal, noise = zip(*(_shares(scheduler, times[place]) for place in (step, step + 1)), strict=True)
        return (noise[1] * self._before - noise[0] * latents) / (noise[1] * signal[0] - noise[0] * signal[1])


def _shares(scheduler: Any, time_step: torch.Tensor) -> tuple[float, float]:
    """Of signal and noise at a time."""
    share = float(scheduler.alphas_cumprod[int(time_step)])
    return share**0.5, (1 - share) ** 0.5


def _maps(recorder: MapRecorder, design: Design, picture: Image.Image) -> tuple[tuple[Image.Image, str], ...]:
    shown: list[tuple[Image.Image, str]] = []
    for name, conditions in design.conditions.items():
        with contextlib.suppress(ValueError):  # nothing acted, or the branch has no map
            maps = recorder.maps("influence", adapter=name)[0]
            shown += [(overlay(picture, maps[i]), _title(one, i)) for i, one in enumerate(conditions)]
    return tuple(shown)


def _title(condition: Any, index: int) -> str:
    styles = getattr(condition, "styles", None)
    return getattr(condition, "text", None) or (", ".join(styles) if styles else f"sketch {index + 1}")


def inline(text: str) -> Image.Image:
    """Returns the image in a data URI; no file is read.

    Raises:
        ValueError: a path.
    """
    if not text.startswith(PREFIX):
        raise ValueError(f"got a path, which a demo does not read; put the image in as {PREFIX}…")
    return from_text(text)


def _check_safe(record: Any) -> None:
    """Refuse LoRAs, ControlNets and layers, long texts, and more conditions than a page has.

    Raises:
        ValueError: as said.
    """
    if not isinstance(record, Mapping):
        raise ValueError('design: got no object, expected one like {"prompt": "…"}')
    rows = _rows(record)
    texts = [text for one in (record, *rows) for text in one.values() if isinstance(text, str)]
    if any(len(text) > MAX_WORDS and not text.startswith(PREFIX) for text in texts):
        raise ValueError(f"design: got a text of more than {MAX_WORDS} characters; shorten it")
    for name in ("loras", "controlnets"):
        if record.get(name):
            raise ValueError(f"{name}: got some, which a demo does not load; use weftwork generate")
    if len(rows) > MAX_CONDITIONS:
        raise ValueError(f"conditions: got {len(rows)}, expected at most {MAX_CONDITIONS}; leave some out")
    for row in rows:
        if row.get("layers"):
            raise ValueError("layers: got some, which a demo does not take; use weftwork generate")


def _rows(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects among a record's conditions; what else there is `as_design` refuses."""
    conditions = record.get("conditions")
    lists = list(conditions.values()) if isinstance(conditions, Mapping) else []
    return [row for some in lists if isinstance(some, list) for row in some if isinstance(row, Mapping)]
