"""Scores of outfit images: accuracy of each garment's attributes, and leakage between garments.

Ground truth comes from the sample, predictions from the oracle. A garment whose slot is predicted empty is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.outfits import Garment, OutfitSample
from weftwork.evaluation.oracles.outfits import Reading, SlotReading

LEAST_PATTERN_PIXELS: Final = 400  # patterns of smaller garments are not scored


@dataclass(frozen=True)
class OutfitScores:
    """Means over garments; NaN where nothing could be scored."""

    color_accuracy: float
    pattern_accuracy: float
    kind_accuracy: float
    leakage: float
    sketch_iou: float


def score_outfits(samples: Sequence[OutfitSample], readings: Sequence[Reading]) -> OutfitScores:
    """Compares readings with the ground truth.

    ``leakage`` is the share of attributes (colours, and patterns where scored) that are wrong and equal to an attribute
    of another garment of the same outfit, among those that differ from that of at least one other garment.
    ``sketch_iou`` compares the mask read for a slot with the true pixels of its garment.
    """
    if len(samples) != len(readings):
        raise UserError(
            f"readings: got {len(readings)}, expected {len(samples)}, one per sample; read one image per sample"
        )
    return OutfitScores(
        color_accuracy=_mean(_matches(samples, readings, "color")),
        pattern_accuracy=_mean(_matches(samples, readings, "pattern")),
        kind_accuracy=_mean(_matches(samples, readings, "kind")),
        leakage=_mean([*_leaks(samples, readings, "color"), *_leaks(samples, readings, "pattern")]),
        sketch_iou=_mean(_overlaps(samples, readings)),
    )


def _pairs(
    samples: Sequence[OutfitSample], readings: Sequence[Reading], attribute: str
) -> Iterator[tuple[Garment, SlotReading | None, list[Garment]]]:
    """Yields each garment whose attribute is scored, the reading of its slot, and the other garments."""
    for sample, reading in zip(samples, readings, strict=True):
        for garment, mask in zip(sample.garments, sample.masks, strict=True):
            if attribute != "pattern" or mask.sum() >= LEAST_PATTERN_PIXELS:
                others = [other for other in sample.garments if other is not garment]
                yield garment, reading.slots.get(garment.slot), others


def _matches(samples: Sequence[OutfitSample], readings: Sequence[Reading], attribute: str) -> list[bool]:
    return [
        seen is not None and getattr(seen, attribute) == getattr(garment, attribute)
        for garment, seen, _ in _pairs(samples, readings, attribute)
    ]


def _leaks(samples: Sequence[OutfitSample], readings: Sequence[Reading], attribute: str) -> list[bool]:
    leaks: list[bool] = []
    for garment, seen, others in _pairs(samples, readings, attribute):
        foreign = {getattr(other, attribute) for other in others} - {getattr(garment, attribute)}
        if foreign:
            leaks.append(seen is not None and getattr(seen, attribute) in foreign)
    return leaks


def _overlaps(samples: Sequence[OutfitSample], readings: Sequence[Reading]) -> list[float]:
    overlaps: list[float] = []
    for sample, reading in zip(samples, readings, strict=True):
        for garment, mask in zip(sample.garments, sample.masks, strict=True):
            seen = reading.slots.get(garment.slot)
            overlaps.append(_iou(mask, seen.mask.cpu().numpy()) if seen else 0.0)
    return overlaps


def _iou(truth: np.ndarray, seen: np.ndarray) -> float:
    if truth.shape != seen.shape:
        raise UserError(
            f"masks: got {seen.shape} from the reading, expected {truth.shape} as in the truth; "
            f"read images of the size of the samples"
        )
    union = np.logical_or(truth, seen).sum()
    return float(np.logical_and(truth, seen).sum() / union) if union else 1.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
