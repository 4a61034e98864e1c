"""Pipelines that all users of a demo share, and images from designs with previews on the way."""

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DDIMScheduler
from PIL import Image

from weftwork.attention_processors.core.attention_maps import MapRecorder, overlay
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.style.adapter import Style, StyleCard, StyleCards
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.inline_images import PREFIX, from_text
from weftwork.pipelines.designs.arguments import unet_size
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.files import write_images
from weftwork.pipelines.designs.reader import as_design
from weftwork.pipelines.designs.run import draw, stored
from weftwork.pretrained import image_backbone
from weftwork.scripts.demo.jobs import JobQueue, Report, Step, User

MAX_STEPS: Final = 100
MAX_SIDE: Final = 1024
MAX_CONDITIONS: Final = 16
MAX_WORDS: Final = 2000
"""Characters of a text."""
CARD: Final = "card"
"""Name of the adapter that a user's own style card is attached as."""
REFUSED_KEYS: Final = ("layers",)
"""Keys of conditions that users may not set: patterns of names can take forever to match."""


@dataclass(frozen=True)
class ConditionMap:
    """The attention map of a condition, over the image.

    Args:
        adapter: name of the condition's adapter in the design.
        place: index of the condition among those of the adapter.
        text: text or styles of the condition; may be empty.
    """

    image: Image.Image
    adapter: str
    place: int
    text: str

    @property
    def title(self) -> str:
        return f"{self.adapter} {self.place + 1}" + (f": {self.text}" if self.text else "")


@dataclass(frozen=True)
class ImageResult:
    """An image and its design.

    Args:
        path: the image as PNG, with its design inside.
        maps: attention maps of the conditions that have some, of all images of this call so far.
        finished: paths of the images of this call so far, its own last.
        left: images of this call that follow.
    """

    image: Image.Image
    path: Path
    seed: int
    design: Design
    maps: tuple[ConditionMap, ...] = ()
    finished: tuple[Path, ...] = ()
    left: int = 0


class Studio:
    """A pipeline that all users of a demo share.

    Args:
        model: its name on the page.
        queue: of the demo's jobs; a new one unless others share it.
    """

    def __init__(self, pipe: Any, model: str, queue: JobQueue | None = None) -> None:
        pipe.set_progress_bar_config(disable=True)
        self.pipe, self.model, self.queue = pipe, model, queue or JobQueue()


class ImageStudio(Studio):
    """A text-to-image pipeline with attached adapters.

    Args:
        controlnets: folders of the pipeline's ControlNets, by their names in designs.
    """

    def __init__(
        self, pipe: Any, model: str, queue: JobQueue | None = None, controlnets: Mapping[str, Path] | None = None
    ) -> None:
        super().__init__(pipe, model, queue)
        self.controlnets = controlnets or {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of images whose design has none; for a transformer some square."""
        if getattr(self.pipe, "unet", None) is None:
            return MAX_SIDE, MAX_SIDE
        height, width = unet_size(self.pipe)
        return width, height

    def design(self, record: Mapping[str, object]) -> Design:
        """Returns the design of a user: images are inside of it, files are never read.

        Raises:
            ValueError: it is wrong, too large, for another model, or names a file.
        """
        _check_safe(record, () if self.controlnets else ("controlnets",))
        design = as_design(record, lambda text: self.controlnets.get(text) or _inline_image(text))
        model = image_backbone(self.model)
        if design.model not in (None, model):
            raise UserError(
                f"model: got a design for {design.model}, but {Path(self.model).name} is open; run weftwork demo "
                f"--model {design.model}, or begin a new design"
            )
        if design.num_inference_steps > MAX_STEPS:
            raise UserError(
                f"num_inference_steps: got {design.num_inference_steps}, expected at most {MAX_STEPS}; lower it"
            )
        if max(design.height or 0, design.width or 0) > MAX_SIDE:
            raise UserError(f"height, width: got more than {MAX_SIDE}, expected at most that; choose less")
        unknown = [name for name in design.conditions if name not in (self.pipe.adapters or ())]
        if unknown:
            raise UserError(f"conditions: got {', '.join(unknown)}, which this demo has no adapter for; leave it out")
        drawn = replace(design, model=model, seed=seed_or_random(design.seed))
        return replace(drawn, files=())  # names of ControlNets are no files

    def generate(
        self,
        design: Design,
        count: int = 1,
        *,
        maps: bool = False,
        card: StyleCard | None = None,
        user: User | None = None,
    ) -> Iterator[Step | ImageResult]:
        """Yields steps with previews, and images as they are finished; closing the iterator cancels the job.

        Args:
            count: images, see `Design.numbered`; each is generated alone, so that its design gives the same bits.
            card: a user's own style, which acts with weight 1 in these images only.
            user: whose `cancel` stops it.

        Raises:
            Cancelled: it was cancelled.
        """

        def job(report: Report[ImageResult]) -> ImageResult:
            whole = design if card is None else self._with_card(design, card)
            try:
                results = self._results(whole, count, maps, report)
                for result in itertools.islice(results, count - 1):
                    report(result)
                return next(results)
            finally:
                if CARD in (self.pipe.adapters or ()):
                    self.pipe.detach(CARD)

        yield from self.queue.run(job, user)

    def _results(self, design: Design, count: int, maps: bool, report: Report[ImageResult]) -> Iterator[ImageResult]:
        finished, shown = (), ()
        for index in range(count):

            def step(done: Step, before: int = index) -> None:
                report(replace(done, done=before * done.total + done.done, total=count * done.total))

            result = self._result(design.numbered(index), maps, step)
            finished, shown = (*finished, result.path), (*shown, *result.maps)
            yield replace(result, finished=finished, maps=shown, left=count - 1 - index)

    def _with_card(self, design: Design, card: StyleCard) -> Design:
        self.pipe.attach(**{CARD: StyleCards.of([card])})
        return replace(design, conditions={**design.conditions, CARD: (Style(card.name),)})

    def _result(self, design: Design, maps: bool, report: Callable[[Step], None]) -> ImageResult:
        recorder, previews = MapRecorder() if maps else None, _Previews(self.pipe)

        def after_step(pipe: Any, step: int, _timestep: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
            total = getattr(pipe, "num_timesteps", design.num_inference_steps)  # fewer after an initial image
            report(Step(step + 1, total, previews.after(total - step - 1, tensors["latents"])))
            return {}

        (image,) = draw(self.pipe, design, 1, recorder, callback_on_step_end=after_step)
        assert design.seed is not None
        path = self.queue.new_file("weftwork.png")
        write_images({path: (image, stored(design))})
        shown = () if recorder is None else _maps(recorder, design, image)
        return ImageResult(image, path, design.seed, design, shown)


def seed_or_random(seed: float | None) -> int:
    return secrets.randbelow(2**31) if seed is None else int(seed)


class _Previews:
    """Predicted clean images, as long as decoding one takes no longer than a step."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self._before: torch.Tensor | None = None
        self._began, self._decoding = time.perf_counter(), 0.0

    @torch.no_grad()
    def after(self, left: int, latents: torch.Tensor) -> Image.Image | None:
        """Returns the preview before the last `left` steps; None where there is no time for one."""
        taken, image = time.perf_counter() - self._began, None
        if self._decoding <= taken:
            began, vae = time.perf_counter(), self.pipe.vae
            clean = self._clean(left, latents.float()) / vae.config.scaling_factor
            pixels = vae.decode(clean[:1].to(vae.dtype)).sample
            (image,) = self.pipe.image_processor.postprocess(pixels.float(), output_type="pil")
            self._decoding = time.perf_counter() - began
        self._before = latents.float()
        self._began = time.perf_counter()
        return image

    def _clean(self, left: int, latents: torch.Tensor) -> torch.Tensor:
        """Extrapolates a straight step of DDIM to no noise; returns the latents as they are for other samplers."""
        scheduler = self.pipe.scheduler
        timesteps = scheduler.timesteps
        if self._before is None or not isinstance(scheduler, DDIMScheduler) or not left:
            return latents
        shares = [float(scheduler.alphas_cumprod[int(timesteps[place])]) for place in (-left - 1, -left)]
        signal, noise = [share**0.5 for share in shares], [(1 - share) ** 0.5 for share in shares]
        return (noise[1] * self._before - noise[0] * latents) / (noise[1] * signal[0] - noise[0] * signal[1])


def _maps(recorder: MapRecorder, design: Design, image: Image.Image) -> tuple[ConditionMap, ...]:
    shown: list[ConditionMap] = []
    for name, conditions in design.conditions.items():
        with contextlib.suppress(ValueError):  # nothing acted, or the branch has no map
            maps = recorder.maps("influence", adapter=name)[0]
            shown += [ConditionMap(overlay(image, maps[i]), name, i, _text(one)) for i, one in enumerate(conditions)]
    return tuple(shown)


def _text(condition: Condition) -> str:
    """Returns the text or the styles of a condition; nothing for others."""
    return getattr(condition, "text", None) or ", ".join(getattr(condition, "styles", None) or ())


def _inline_image(text: str) -> Image.Image:
    """Returns the image in a data URI; reads no file.

    Raises:
        ValueError: a path.
    """
    if not text.startswith(PREFIX):
        raise UserError(f"got a path, which a demo does not read; put the image in as {PREFIX}…")
    return from_text(text)


def _check_safe(record: object, refused: Sequence[str]) -> None:
    """Refuses LoRAs and layers, long texts, and too many conditions.

    Args:
        refused: further keys.

    Raises:
        ValueError: as said.
    """
    if not isinstance(record, Mapping):
        raise UserError('design: got no object, expected one like {"prompt": "…"}')
    rows = _rows(record)
    texts = [text for one in (record, *rows) for text in one.values() if isinstance(text, str)]
    if any(len(text) > MAX_WORDS and not text.startswith(PREFIX) for text in texts):
        raise UserError(f"design: got a text of more than {MAX_WORDS} characters; shorten it")
    for name in ("loras", *refused):
        if record.get(name):
            raise UserError(f"{name}: got some, which a demo does not load; use weftwork generate")
    if len(rows) > MAX_CONDITIONS:
        raise UserError(f"conditions: got {len(rows)}, expected at most {MAX_CONDITIONS}; leave some out")
    for row in rows:
        for name in REFUSED_KEYS:
            if row.get(name):
                raise UserError(f"{name}: got some, which a demo does not take; use weftwork generate")


def _rows(record: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Returns the objects among a record's conditions; anything else is refused by `as_design`."""
    conditions = record.get("conditions")
    lists = list(conditions.values()) if isinstance(conditions, Mapping) else []
    return [row for some in lists if isinstance(some, list) for row in some if isinstance(row, Mapping)]
