"""How well pairs say what each garment is: unseen outfits, read back by the oracle, beside ceilings and baselines.

The prompt is the same constant wherever pairs are under test, so nothing else carries an attribute. All outfits are of
the test split: no triple of kind, colour and pattern in it was ever trained on.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from weft.attention_processors.paired import SketchTextPair
from weft.datasets import outfit_texts
from weft.datasets.images import compose_sketches
from weft.datasets.outfits import PROMPT, OutfitSample, sample
from weft.evaluation.oracle import Oracle
from weft.evaluation.outfit_scores import score_outfits
from weft.evaluation.pictures import SHEET_COLUMNS, as_tensor, contact_sheet, generate, reconstructed
from weft.evaluation.report import Report, Row

Designs = list[list[SketchTextPair]] | None


@dataclass(frozen=True)
class PairedEvaluation:
    """The pieces of one evaluation.

    Args:
        pipe: a conditioned pipeline with an adapter `paired` attached, and `global_sketch` where that baseline exists.
        split: "test", or "validation" for choosing settings.
    """

    pipe: Any
    oracle: Oracle
    split: str = "test"
    seed: int = 0
    count: int = 200
    num_inference_steps: int = 20
    guidance_scale: float = 3.0

    def run(self, folder: Path, only: Sequence[str] = (), seeds: Sequence[int] = (0,)) -> Report:
        """All rows, or those named; writes the report and a contact sheet (of the first seed) into `folder`.

        Args:
            seeds: each draws other outfits and other noise; with several, scores are means with their spread.

        Raises:
            ValueError: a row that does not exist.
        """
        runs = [replace(self, seed=seed)._rows() for seed in seeds]
        unknown = [name for name in only if name not in runs[0]]
        if unknown:
            raise ValueError(
                f"rows: got {', '.join(unknown)}, expected some of {', '.join(runs[0])}; correct the names"
            )
        rows, sheet = [], []
        for name in only or runs[0]:
            drawn = [run[name]() for run in runs]
            scores = [asdict(score_outfits(samples, self.oracle.read(pictures))) for samples, pictures in drawn]
            rows.append(Row.over_seeds(name, scores))
            sheet.append((name, drawn[0][1][:SHEET_COLUMNS]))
        settings = {"num_inference_steps": self.num_inference_steps, "guidance_scale": self.guidance_scale}
        seed = seeds[0] if len(seeds) == 1 else list(seeds)
        report = Report("evaluation", "paired", rows, seed, self.count, self.split, settings)
        report.write(folder)
        contact_sheet(sheet).save(folder / "paired.png")
        return report

    def _rows(self) -> dict[str, Callable[[], tuple[list[OutfitSample], torch.Tensor]]]:
        rows: dict[str, Callable[[], tuple[list[OutfitSample], torch.Tensor]]] = {
            "real": lambda: self._given(lambda pictures: pictures),
            "reconstruction": lambda: self._given(lambda pictures: reconstructed(self.pipe, pictures)),
            "no_condition": lambda: self._generated("no_condition", lambda _: None),
            "text_only": lambda: self._generated("text_only", lambda _: None, prompts=lambda s: s.caption),
        }
        if "global_sketch" in (self.pipe.adapters or ()):
            for name, make in (("global_sketch", merged), ("global_sketch_unnamed", lambda s: merged(unnamed(s)))):
                rows[name] = lambda name=name, make=make: self._generated(name, make, adapter="global_sketch")
        rows |= {
            "pairs_without_regions": lambda: self._generated("pairs_without_regions", lambda s: pairs(s, region=None)),
            "pairs": lambda: self._generated("pairs", pairs),
            "pairs_unnamed": lambda: self._generated("pairs_unnamed", lambda s: pairs(unnamed(s))),
            "pairs_wild": lambda: self._generated("pairs_wild", pairs, style="wild"),
            "texts_swapped": lambda: self._generated("texts_swapped", _texts_swapped),
            "sketches_swapped": lambda: self._generated("sketches_swapped", _sketches_swapped),
        }
        for number in (1, 2, 3, 4):
            name = f"pairs_{number}"
            rows[name] = lambda name=name, number=number: self._generated(name, pairs, number=number)
        return rows

    def _samples(self, number: int | None = None, style: str = "professional") -> list[OutfitSample]:
        return [
            sample(self.split, index, seed=self.seed, count=number, sketch_style=style) for index in range(self.count)
        ]

    def _given(self, change: Callable[[torch.Tensor], torch.Tensor]) -> tuple[list[OutfitSample], torch.Tensor]:
        samples = self._samples()
        return samples, change(as_tensor([s.image for s in samples]))

    def _generated(
        self,
        name: str,
        design: Callable[[OutfitSample], list[SketchTextPair] | None],
        *,
        prompts: Callable[[OutfitSample], str] = lambda _: PROMPT,
        adapter: str = "paired",
        number: int | None = None,
        style: str = "professional",
    ) -> tuple[list[OutfitSample], torch.Tensor]:
        samples = self._samples(number, style)
        pictures = generate(
            self.pipe,
            [prompts(s) for s in samples],
            {adapter: [design(s) for s in samples]},
            [(self.seed << 20) + i for i in range(self.count)],
            name=name,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
        )
        return samples, pictures


def pairs(drawn: OutfitSample, region: str | None = "sketch") -> list[SketchTextPair]:
    """An outfit as pairs; a garment that is covered whole has no strokes and is left to its words."""
    return [_pair(s, t, region) for s, t in zip(drawn.sketches, drawn.texts, strict=True)]


def _pair(sketch: np.ndarray[Any, Any], text: str, region: str | None) -> SketchTextPair:
    if sketch.min() > 128:
        return SketchTextPair(text=text)
    return SketchTextPair(Image.fromarray(sketch), text, region=region)


def _texts_swapped(drawn: OutfitSample) -> list[SketchTextPair]:
    texts = [*drawn.texts[1:], drawn.texts[0]]
    return [_pair(s, t, "sketch") for s, t in zip(drawn.sketches, texts, strict=True)]


def _sketches_swapped(drawn: OutfitSample) -> list[SketchTextPair]:
    sketches = [*drawn.sketches[1:], drawn.sketches[0]]
    return [_pair(s, t, "sketch") for s, t in zip(sketches, drawn.texts, strict=True)]


def merged(drawn: OutfitSample) -> list[SketchTextPair]:
    """An outfit as one pair: all sketches on one canvas, with all words."""
    whole = compose_sketches([Image.fromarray(s) for s in drawn.sketches])
    return [SketchTextPair(whole, ", ".join(drawn.texts), region="sketch")]


def unnamed(drawn: OutfitSample) -> OutfitSample:
    """The outfit with words for colours and patterns only: which thing they belong to is left to sketches and places.

    Texts are sorted with their garments, so that their order tells nothing of the garments' kinds.
    """
    order, texts = zip(*outfit_texts.unnamed(drawn.garments), strict=True)
    chosen = list(order)
    garments = tuple(drawn.garments[i] for i in chosen)
    return replace(drawn, garments=garments, masks=drawn.masks[chosen], sketches=drawn.sketches[chosen], texts=texts)
