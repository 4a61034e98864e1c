"""Evaluation of style and content preservation on unseen creatures, read by the oracle.

Every content (species, colour, pose, accessory) is generated in one style of the test split, a triple of species,
colour and style that is not in the training split, from two noises. The prompt describes the content; it names the
style only in rows of methods without a style condition.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from torch import nn

from weftwork.attention_processors.reference.adapter import Reference
from weftwork.attention_processors.style.adapter import Style
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic import creatures
from weftwork.datasets.synthetic.creatures import CreatureSample
from weftwork.evaluation.core.images import ConditionRows, as_tensor
from weftwork.evaluation.core.loading import load_adapters
from weftwork.evaluation.core.report import Row
from weftwork.evaluation.core.runner import Drawn, Evaluation, Images
from weftwork.evaluation.oracles.creatures import CreatureOracle, pretrained_creature_oracle
from weftwork.evaluation.scores.creatures import score_creatures, shape_consistency
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin

NOISES = 2
CURVE = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
BY_NAME = ("style", "style_creatures", "style_gated", "style_concat")


@dataclass(frozen=True, kw_only=True)
class StyleEvaluation(Evaluation[ConditionedPipelineMixin]):
    """Evaluation on creatures, two images per content.

    Attached adapters among `BY_NAME` and `reference` get a row each.

    Args:
        files: file or folder of the weights by row; `lora` is passed to `load_lora_weights`.
        oracle: classifier of creatures.
    """

    name: ClassVar[str] = "style"
    every: ClassVar[int] = NOISES

    files: Mapping[str, Path]
    oracle: CreatureOracle

    @classmethod
    def open(cls, pipe: ConditionedPipelineMixin, folders: Mapping[str, Sequence[Path]]) -> Self:
        files = {name: several[0] for name, several in folders.items()}
        load_adapters(pipe, files, (*BY_NAME, "reference"))
        return cls(pipe=pipe, files=files, oracle=pretrained_creature_oracle())

    def curve(self) -> list[Row]:
        """Returns style and content accuracy by style weight, from a quarter of the images per weight."""
        few = replace(self, count=max(NOISES, self.count // 4 // NOISES * NOISES))
        rows = []
        for weight in CURVE:
            images = few._generated("style", few._styled("style", weight))[0]
            rows.append(Row(f"style_at_{weight:g}", few._scores(images)))
        return rows

    @cached_property
    def samples(self) -> list[CreatureSample]:
        """Ground-truth samples; every content twice, the second time rendered from another seed."""
        shown = [creatures.sample(self.split, i, seed=self.seed) for i in range(self.count // NOISES)]
        place = creatures.SPLITS.index(self.split)
        return [
            s if noise == 0 else creatures.render(s.creature, s.style, seed=(place, self.seed, i, noise))
            for i, s in enumerate(shown)
            for noise in range(NOISES)
        ]

    def __post_init__(self) -> None:
        if self.count < NOISES:
            raise UserError(
                f"count: got {self.count}, expected at least {NOISES}, the number of noises per content; raise --limit"
            )
        for name, adapter in () if self.pipe.adapters is None else self.pipe.adapters.items():
            if name in self.by_name and (
                unknown := [one for one in creatures.STYLES if one not in adapter.config["styles"]]
            ):
                raise UserError(
                    f"{name}: got an adapter without the styles {', '.join(unknown)}, expected those of the creatures, "
                    "of which the truth is known; look at images of your own styles instead"
                )

    @property
    def by_name(self) -> Sequence[str]:
        """Names of attached adapters of styles."""
        return BY_NAME

    def rows(self) -> dict[str, Callable[[], Drawn]]:
        adapters = self.pipe.adapters or {}
        rows = self.bounds(
            lambda: as_tensor([s.image for s in self.samples]), lambda images: (images, self._scores(images))
        )
        rows |= {
            "no_condition": lambda: self._scored("no_condition", {}),
            "text_only": lambda: self._scored("text_only", {}, named=True),
        }
        if "reference" in adapters:
            rows["reference_branch"] = lambda: self._scored("reference", {"reference": self._references()})
        if "lora" in self.files:
            rows["lora"] = self._lora
        return rows | {name: partial(self._by_name, name) for name in BY_NAME if name in adapters}

    def _by_name(self, name: str) -> Drawn:
        return self._scored(name, self._styled(name))

    def _styled(self, name: str, weight: float = 1.0) -> ConditionRows:
        return {name: [[Style(s.style, weight=weight)] for s in self.samples]}

    def _scored(self, name: str, conditions: ConditionRows, *, named: bool = False) -> Drawn:
        images, seconds = self._generated(name, conditions, named=named)
        cost = {"ms_per_step": 1000 * seconds / len(images) / self.num_inference_steps}
        if self.pipe.adapters is not None and name in self.pipe.adapters:
            cost["trained_parameters"] = sum(p.numel() for p in self.pipe.adapters[name].parameters())
        if name in self.files:
            cost["bytes"] = _bytes(self.files[name])
        return images, self._scores(images) | cost

    def _lora(self) -> Drawn:
        with self.lora_loaded(self.pipe, self.files["lora"]):
            trained = sum(p.numel() for name, p in self.pipe.unet.named_parameters() if "lora_" in name)
            images, scores = self._scored("lora", {}, named=True)
        return images, {**scores, "trained_parameters": trained}

    def _generated(self, name: str, conditions: ConditionRows, *, named: bool = False) -> tuple[Images, float]:
        started = time.perf_counter()
        prompts = [s.style_caption if named else s.caption for s in self.samples]
        images = self.generated(name, prompts, conditions)
        return images, time.perf_counter() - started

    def _references(self) -> list[list[Reference]]:
        """Returns for every sample a training image in its style, of another content."""
        rng = np.random.default_rng([self.seed, 17])
        drawn = [creatures.sample("train", int(rng.integers(1000)), style=s.style) for s in self.samples]
        return [[Reference(one.image)] for one in drawn]

    def _scores(self, images: Images) -> dict[str, float]:
        readings = self.oracle.read(images)
        groups = [readings[i : i + NOISES] for i in range(0, len(readings), NOISES)]
        consistency = float(np.mean([shape_consistency(group) for group in groups]))
        return asdict(score_creatures(self.samples, readings)) | {"shape_consistency": consistency}


def validate(
    pipe: ConditionedPipelineMixin, module: nn.Module, count: int, row: str = "style"
) -> tuple[StyleEvaluation, str]:
    """Returns the evaluation of the attached adapter on validation cases, and its row."""
    oracle = pretrained_creature_oracle()
    return StyleEvaluation(pipe=pipe, files={}, oracle=oracle, split="validation", count=count), row


def validate_reference(pipe: ConditionedPipelineMixin, module: nn.Module, count: int) -> tuple[StyleEvaluation, str]:
    """As `validate`, for a reference adapter."""
    return validate(pipe, module, count, "reference_branch")


def _bytes(path: Path) -> int:
    files = path.rglob("*.safetensors") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
