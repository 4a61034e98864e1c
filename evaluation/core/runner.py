"""Base class of evaluations: named rows, averaged over seeds, written as a report with images and a contact sheet."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final, Generic, Self, TypeVar

import torch.nn.functional as F
from diffusers import DiffusionPipeline
from PIL import Image

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.evaluation.core.images import (
    SHEET_COLUMNS,
    ConditionRows,
    Images,
    as_bytes,
    contact_sheet,
    generate,
    reconstructed,
)
from weftwork.evaluation.core.report import Report, Row
from weftwork.pipelines.core.call import denoisers
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.designs.design import Control, Design, Lora
from weftwork.pipelines.designs.files import write_images
from weftwork.pipelines.designs.run import stored
from weftwork.pretrained import image_backbone

Pipe = TypeVar("Pipe", bound=DiffusionPipeline)
LORA: Final = "lora"
Drawn = tuple[Images, Mapping[str, float]]
"""Images of a row, and its scores."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(ABC, Generic[Pipe]):
    """Evaluation of a pipeline.

    Args:
        pipe: a conditioned pipeline with the measured adapters attached.
        split: "test", or "validation" to choose settings.
        seed: seed of cases and noise.
        count: images per row.
    """

    name: ClassVar[str]
    every: ClassVar[int] = 1
    """The contact sheet shows every `every`-th image."""
    other_cases: ClassVar[Collection[str]] = ()
    """Rows whose images are of other cases than those of the first row, or in another order."""
    side: ClassVar[int] = 128
    """Side of true images in pixels; generated ones are resized to it, since oracles read this size."""

    pipe: Pipe
    split: str = "test"
    seed: int = 0
    count: int = 200
    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    guidance_rescale: float = 0.0
    designs: list[Design] = field(init=False, default_factory=list, compare=False)
    """Designs of the images of the last row, empty where a design cannot describe them."""

    @classmethod
    @abstractmethod
    def open(cls, pipe: Pipe, folders: Mapping[str, Sequence[Path]]) -> Self:
        """Returns the evaluation of trained weights, by option of the `Measurement`."""

    def run(self, folder: Path, only: Sequence[str] = (), seeds: Sequence[int] = (0,)) -> Report:
        """Evaluates all rows, or those named; updates report, images and contact sheet (first seed) in `folder` after
        each row.

        Args:
            seeds: seeds of cases and noise; for several, scores are means with their spread.

        Raises:
            ValueError: unknown row.
        """
        evaluations = [replace(self, seed=seed) for seed in seeds]
        runs = [one.rows() for one in evaluations]
        unknown = [name for name in only if name not in runs[0]]
        if unknown:
            raise UserError(f"rows: got {', '.join(unknown)}, expected some of {', '.join(runs[0])}; correct the names")
        seed, first = seeds[0] if len(seeds) == 1 else list(seeds), next(iter(runs[0]))
        rows, sheet = [], []
        report = Report("evaluation", self.title, rows, seed, self.count, self.split, self.settings)
        for name in only or runs[0]:
            evaluations[0].designs.clear()
            drawn = [run[name]() for run in runs]
            shown = slice(0, self.every * SHEET_COLUMNS, self.every)
            sheet.append((name, drawn[0][0][shown]))
            images = self._write(folder, name, sheet[-1][1], evaluations[0].designs[shown])
            row = Row.over_seeds(name, [scores for _, scores in drawn])
            truth = None if name == first or name in self.other_cases else first
            rows.append(replace(row, images=images, truth=truth))
            report.write(folder)
            with atomic_path(folder / f"{self.title}.png") as partial:
                contact_sheet(sheet).save(partial)
        return report

    def _write(self, folder: Path, row: str, images: Images, designs: Sequence[Design]) -> list[str]:
        """Writes images of a row, each with its design inside, and returns their paths relative to the folder."""
        names = [f"{self.title}/{row}-{index}.png" for index in range(len(images))]
        texts: list[str | None] = [stored(one, folder=folder / self.title) for one in designs]
        if len(texts) != len(names):
            texts = [None] * len(names)
        pixels = zip(map(Image.fromarray, as_bytes(images)), texts, strict=True)
        write_images({folder / name: one for name, one in zip(names, pixels, strict=True)})
        return names

    @property
    def title(self) -> str:
        """Name of the report and its files."""
        return self.name

    @abstractmethod
    def rows(self) -> Mapping[str, Callable[[], Drawn]]:
        """Returns, by row, the function that generates and scores it; the first row is the ground truth."""

    def curve(self) -> list[Row]:
        """Returns rows over the weight of the condition, whose names end in it."""
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, float]:
        """Arguments of the pipeline, as written to the report."""
        rescale = {"guidance_rescale": self.guidance_rescale} if self.guidance_rescale else {}
        return {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale, **rescale}

    def bounds(self, images: Callable[[], Images], scored: Callable[[Images], Drawn]) -> dict[str, Callable[[], Drawn]]:
        """Returns the rows of upper bounds: true images, and their reconstructions by the autoencoder."""
        return {
            "real": lambda: scored(images()),
            "reconstruction": lambda: scored(reconstructed(self.pipe, images())),
        }

    @property
    def _asked_side(self) -> int | None:
        """Side that pipelines are asked for; U-Nets have the one that they were trained on."""
        return None if hasattr(self.pipe, "unet") else self.side

    def generated(
        self,
        name: str,
        prompts: Sequence[str],
        conditions: ConditionRows,
        pipe: ConditionedPipelineMixin | None = None,
        images: Sequence[Image.Image] | None = None,
    ) -> Images:
        """Generates one image per prompt, each from its own noise, of the size of true images.

        Args:
            pipe: replaces the evaluation's pipeline.
            images: control image of each prompt, for pipelines that take `image`.
        """
        seeds = [(self.seed << 20) + i for i in range(len(prompts))]
        used = pipe or self.pipe
        assert isinstance(used, ConditionedPipelineMixin)
        controls = [[]] * len(prompts) if images is None else _controls(used, images)
        if controls and getattr(denoisers(used)[0], "peft_config", {}).keys() <= {LORA}:
            self._note(prompts, conditions, seeds, controls)
        size = {"height": self._asked_side, "width": self._asked_side}
        drawn = generate(used, prompts, conditions, seeds, name=name, images=images, **size, **self.settings)
        sides = (self.side, self.side)
        if drawn.shape[-2:] == sides:
            return drawn
        return F.interpolate(drawn, sides, mode="bilinear", antialias=True, align_corners=False)

    @contextmanager
    def lora_loaded(self, pipe: ConditionedPipelineMixin, path: Path | None) -> Iterator[None]:
        """Loads a LoRA for the block, in which a row is generated, and adds it to the designs of the row.

        Args:
            path: None loads nothing.
        """
        if path is None:
            yield
            return
        pipe.load_lora_weights(str(path), adapter_name=LORA)
        try:
            yield
        finally:
            pipe.unload_lora_weights()
        self.designs[:] = [replace(one, loras=[Lora(path)]) for one in self.designs]

    def _note(
        self,
        prompts: Sequence[str],
        conditions: ConditionRows,
        seeds: Sequence[int],
        controls: Sequence[Sequence[Control]],
    ) -> None:
        """Adds the designs of images, unless a condition has values that designs cannot hold."""
        rows = [{name: some[i] or () for name, some in conditions.items() if some[i]} for i in range(len(prompts))]
        if all(one.has_record() for row in rows for some in row.values() for one in some):
            model = image_backbone(self.pipe.config.get("_name_or_path") or "")
            self.designs.extend(
                Design(
                    text,
                    model=model,
                    seed=seed,
                    num_inference_steps=self.num_inference_steps,
                    guidance_scale=self.guidance_scale,
                    guidance_rescale=self.guidance_rescale,
                    height=self._asked_side,
                    width=self._asked_side,
                    conditions=row,
                    controlnets=control,
                )
                for text, row, seed, control in zip(prompts, rows, seeds, controls, strict=True)
            )


def _controls(pipe: ConditionedPipelineMixin, images: Sequence[Image.Image]) -> list[list[Control]]:
    """Returns the ControlNet of a pipeline with each control image; nothing if it was not opened from a folder."""
    folder = pipe.components["controlnet"].config.get("_name_or_path")
    return [[Control(Path(folder), image)] for image in images] if folder else []
