"""Evaluation of pairs, styles and references on drawings: held-out cells, or subjects that no designer showed.

Rows of pairs share a prompt that says style and ground alone, so only the pairs carry subjects and colours. Rows of
styles say subjects, colours and ground; only those of methods without a style condition name the designer.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.attention_processors.paired.conditions import SketchTextPair
from weftwork.attention_processors.paired.samples import merged, pairs
from weftwork.attention_processors.reference.adapter import Reference
from weftwork.attention_processors.regional.adapter import RegionalAdapter
from weftwork.attention_processors.regional.conditions import RegionalPrompt
from weftwork.attention_processors.style.adapter import Style
from weftwork.datasets.drawings.captions import color_list, full_caption, setting
from weftwork.datasets.drawings.colors import painted
from weftwork.datasets.drawings.dataset import DrawingScenes, SketchStyle
from weftwork.datasets.drawings.rendered import RenderedDrawings
from weftwork.datasets.drawings.scenes import compose
from weftwork.datasets.drawings.sets import SETS, TARBALLS
from weftwork.datasets.drawings.splits import VALIDATION_SEED, Split
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.strokes import stroke_region
from weftwork.evaluation.core.images import as_bytes, as_tensor
from weftwork.evaluation.core.loading import load_adapters
from weftwork.evaluation.core.report import Row
from weftwork.evaluation.core.runner import Drawn, Evaluation
from weftwork.evaluation.measurements.drawings import ORACLE
from weftwork.evaluation.scores.drawings import color_error, edge_scores
from weftwork.evaluation.scores.scenes import WHITE, WHOLE, Case, Judge, mean
from weftwork.evaluation.scores.swapped_scenes import Swapped, sketches_swapped, texts_swapped
from weftwork.pipelines.core.call import denoisers
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pretrained import DRAWINGS_RESCALE, shipped

Design = Callable[[Case], Sequence[Condition]]
ADAPTERS: Final = ("paired", "global_sketch", "style", "reference")
REGIONAL: Final = "regional_prompts"
CURVE: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True, kw_only=True)
class DrawingsEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation of a pipeline with any of the adapters `paired`, `global_sketch`, `style` and `reference`.

    Args:
        lora: path for `load_lora_weights` of the LoRA that reads names of styles; None skips its row.
        judge: scores the images.
    """

    name: ClassVar[str] = "drawings"
    other_cases: ClassVar[Collection[str]] = ("texts_swapped", "sketches_swapped")

    split: Split = "cells"
    lora: Path | None = None
    judge: Judge

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        files = {name: several[0] for name, several in folders.items()}
        judge = Judge.open(folders)
        load_adapters(pipe, files, ADAPTERS)
        return cls(pipe=pipe, lora=files.get("lora"), judge=judge, guidance_rescale=guidance_rescale(pipe))

    @property
    def title(self) -> str:
        return f"{self.name}-{self.split}"

    @cached_property
    def cases(self) -> list[Case]:
        """Scenes of the split."""
        return self._cases("steady")

    def _cases(self, sketch_style: SketchStyle) -> list[Case]:
        scenes = DrawingScenes(self.judge.drawings, self.split, self.count, self.seed, sketch_style)
        return [Case.of(scenes, index) for index in range(self.count)]

    @cached_property
    def _rows_by_subject(self) -> Mapping[str, Sequence[int]]:
        rows: dict[str, list[int]] = defaultdict(list)
        for row, cell in enumerate(self.judge.drawings.cells):
            rows[cell.code].append(row)
        return rows

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        rows = self.bounds(self._real, self._scored) | {
            "said_colors": lambda: self._scored(self._said_colors()),
            "other_designer": lambda: self._scored(self._redrawn(self._by_another)),
            "other_subject": lambda: self._scored(self._redrawn(self._another)),
            "no_condition": lambda: self._generated("no_condition", prompt=_setting),
            "text_only": lambda: self._generated("text_only", prompt=_caption),
            "text_unstyled": lambda: self._generated("text_unstyled", prompt=unstyled),
            REGIONAL: self._regional,
        }
        adapters = set(self.pipe.adapters or ())
        if "global_sketch" in adapters:
            rows["global_sketch"] = lambda: self._generated("global_sketch", {"global_sketch": merged})
            rows["global_sketch_unnamed"] = lambda: self._generated(
                "global_sketch_unnamed", {"global_sketch": lambda case: merged(unnamed(case))}
            )
        if "paired" in adapters:
            rows |= {
                "pairs": lambda: self._generated("pairs", {"paired": pairs}),
                "pairs_unnamed": lambda: self._generated(
                    "pairs_unnamed", {"paired": lambda case: pairs(unnamed(case))}
                ),
                "pairs_wild": self._wild,
                "texts_swapped": lambda: self._swapped("texts_swapped", texts_swapped),
                "sketches_swapped": lambda: self._swapped("sketches_swapped", sketches_swapped),
            }
        return rows | self._style_rows(adapters)

    def _style_rows(self, adapters: set[str]) -> dict[str, Callable[[], Drawn]]:
        rows: dict[str, Callable[[], Drawn]] = {}
        if self.lora is not None:
            rows["lora"] = self._with_lora
        if "reference" in adapters:
            rows["reference"] = lambda: self._generated("reference", {"reference": self._reference}, prompt=unstyled)
        if "style" in adapters:
            rows["style"] = lambda: self._generated("style", {"style": style_by_name}, prompt=unstyled)
            if "paired" in adapters:
                both = {"paired": pairs, "style": style_by_name}
                rows["pairs_style"] = lambda: self._generated("pairs_style", both, prompt=_ground)
        return rows

    def curve(self) -> list[Row]:
        """Returns scores by weight of the style, from a quarter of the images per weight.

        Raises:
            ValueError: no adapter of styles is attached.
        """
        if "style" not in (self.pipe.adapters or ()):
            raise UserError("curve: got no adapter of styles, expected one; pass --style")
        few = replace(self, count=max(1, self.count // 4))
        rows = []
        for weight in CURVE:
            design = {"style": partial(style_by_name, weight=weight)}
            _, scores = few._generated(f"style_at_{weight:g}", design, unstyled)
            rows.append(Row(f"style_at_{weight:g}", scores))
        return rows

    # -- images of others ----------------------------------------------------------------------------------

    def _real(self) -> Tensor:
        return as_tensor([case.image for case in self.cases])

    def _said_colors(self) -> Tensor:
        """Paints each pixel of a drawing in the nearest of the colours that its text says."""
        images = [case.image.copy() for case in self.cases]
        for image, case in zip(images, self.cases, strict=True):
            for region, one in zip(case.regions, case.shown.drawings, strict=True):
                image[region] = painted(image[region], one.colors)
        return as_tensor(images)

    def _redrawn(self, choose: Callable[[Case, int, np.random.Generator], int]) -> Tensor:
        """Composes every case from other drawings at the same places."""
        images, drawings = [], self.judge.drawings
        for index, case in enumerate(self.cases):
            rng = np.random.default_rng([self.seed, index, 29])
            rows = [choose(case, row, rng) for row in case.scene.rows]
            images.append(compose([drawings.images[row] for row in rows], case.scene.places, case.scene.ground))
        return as_tensor(images)

    def _by_another(self, case: Case, row: int, rng: np.random.Generator) -> int:
        """Returns the same subject by another designer, in colour; itself if there is none."""
        code, designer = self.judge.drawings.cells[row].code, SETS[case.scene.key].designer
        sets = {other: SETS[self.judge.drawings.cells[other].key] for other in self._rows_by_subject[code]}
        others = [other for other, one in sets.items() if one.designer != designer and one.has_color]
        return int(rng.choice(others or [row]))

    def _another(self, case: Case, row: int, rng: np.random.Generator) -> int:
        """Returns another subject of the split by the same designer; itself if there is none."""
        others = [other for other in _rows_by_set(self.judge.drawings, self.split)[case.scene.key] if other != row]
        return int(rng.choice(others or [row]))

    # -- generated images ----------------------------------------------------------------------------------

    def _scored(self, images: Tensor) -> Drawn:
        return images, self.judge.scores(self.cases, images)

    def _images(
        self,
        name: str,
        designs: Mapping[str, Design],
        cases: Sequence[Case],
        prompt: Callable[[Case], str] | None = None,
    ) -> Tensor:
        text = TextEncoders.of(self.pipe)
        conditions = {
            adapter: [self._fitted(design(case), text, adapter) for case in cases]
            for adapter, design in designs.items()
        }
        return self.generated(name, [text.shortened((prompt or _setting)(case)) for case in cases], conditions)

    def _fitted(self, design: Sequence[Condition], text: TextEncoders, adapter: str) -> list[Condition]:
        """Cuts texts to what the adapter reads."""
        assert self.pipe.adapters is not None
        most = min(self.pipe.adapters[adapter].config.get("text_states") or text.longest, text.longest)
        fitted: list[Condition] = []
        for one in design:
            if isinstance(one, SketchTextPair) and one.text:
                one = replace(one, text=text.shortened(one.text, most))
            elif isinstance(one, RegionalPrompt) and one.prompt:
                one = replace(one, prompt=text.shortened(one.prompt, most))
            fitted.append(one)
        return fitted

    def _generated(
        self, name: str, designs: Mapping[str, Design] | None = None, prompt: Callable[[Case], str] | None = None
    ) -> Drawn:
        return self._scored(self._images(name, designs or {}, self.cases, prompt))

    def _wild(self) -> Drawn:
        return self._scored(self._images("pairs_wild", {"paired": pairs}, self._cases("wild")))

    def _regional(self) -> Drawn:
        """Attaches the adapter, which needs no training, for this row alone."""
        self.pipe.attach(**{REGIONAL: RegionalAdapter.for_denoiser(denoisers(self.pipe)[0])})
        try:
            return self._generated(REGIONAL, {REGIONAL: _regional_prompts}, prompt=_caption)
        finally:
            self.pipe.detach(REGIONAL)

    def _with_lora(self) -> Drawn:
        with self.lora_loaded(self.pipe, self.lora):
            return self._generated("lora", prompt=_caption)

    def _reference(self, case: Case) -> list[Reference]:
        """Returns a training drawing of the designer, on white."""
        rows = _rows_by_set(self.judge.drawings, "train")[case.scene.key]
        row = int(np.random.default_rng([self.seed, case.scene.rows[0], 31]).choice(rows))
        return [Reference(Image.fromarray(compose([self.judge.drawings.images[row]], [WHOLE], WHITE)))]

    def _swapped(self, name: str, swap: Callable[[Sequence[Case]], list[Swapped]]) -> Drawn:
        """Scores what the pairs ask for beside the truth; cases that cannot be swapped are left out."""
        swapped = swap(self.cases)
        if not swapped:
            return torch.zeros(0, 3, *self.cases[0].image.shape[:2]), {}
        images = self._images(name, {"paired": pairs}, [one.given for one in swapped])
        colors, recalls = [], []
        for image, one in zip(as_bytes(images), swapped, strict=True):
            recalls.append(edge_scores(image, one.given.lines)[0])
            for region, true_region in zip(one.given.regions, one.colored, strict=True):
                colors.append(color_error(image, region, one.case.image, true_region))
        asked = {"edge_recall_asked": mean(recalls), "color_error_asked": mean(colors)}
        return images, self.judge.scores([one.case for one in swapped], images) | asked


def validate(
    pipe: ConditionedPipelineMixin, module: nn.Module, drawings: Path | None, cache_dir: Path
) -> DrawingsEvaluation:
    """Returns the evaluation of the attached adapter on held-out cells.

    The scenes are other ones than those of `weftwork evaluate drawings`.
    """
    folders = {"oracle": [shipped(ORACLE.shipped)], "drawings": [drawings or TARBALLS], "cache_dir": [cache_dir]}
    return replace(DrawingsEvaluation.open(pipe, folders), seed=VALIDATION_SEED)


def guidance_rescale(pipe: ConditionedPipelineMixin) -> float:
    """Returns the guidance rescale of evaluations on drawings; transformers take none."""
    return DRAWINGS_RESCALE if hasattr(pipe, "unet") else 0.0


@lru_cache(maxsize=3)
def _rows_by_set(drawings: RenderedDrawings, split: Split) -> dict[str, list[int]]:
    return DrawingScenes(drawings, split, 1).rows_by_set


def unnamed(case: Case) -> Case:
    """The case with texts of colours only."""
    return replace(case, texts=tuple(color_list(one.colors) or one.name for one in case.shown.drawings))


def _setting(case: Case) -> str:
    return setting(case.shown)


def _ground(case: Case) -> str:
    return setting(case.shown, styled=False)


def _regional_prompts(case: Case) -> list[RegionalPrompt]:
    """Returns the texts of the pairs in the regions of their sketches."""
    found = []
    for one in pairs(case):
        if isinstance(one.sketch, Image.Image):
            mask = Image.fromarray((stroke_region(one.sketch) * 255).round().astype(np.uint8))
            found.append(RegionalPrompt(one.text, region=mask))
        else:
            found.append(RegionalPrompt(one.text))
    return found


def _caption(case: Case) -> str:
    return full_caption(case.shown)


def unstyled(case: Case) -> str:
    return full_caption(case.shown, styled=False)


def style_by_name(case: Case, weight: float = 1.0) -> list[Style]:
    return [Style(case.scene.key, weight=weight)]
