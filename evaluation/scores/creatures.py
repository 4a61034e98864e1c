"""Scores of creature images: accuracy of style and content, and shape consistency over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.creatures import CreatureSample
from weftwork.evaluation.oracles.creatures import CreatureReading


@dataclass(frozen=True)
class CreatureScores:
    """Accuracies over images; NaN without images.

    The content accuracy is the mean of species, colour and pose accuracy.
    """

    style_accuracy: float
    content_accuracy: float
    species_accuracy: float
    color_accuracy: float
    pose_accuracy: float


def score_creatures(samples: Sequence[CreatureSample], readings: Sequence[CreatureReading]) -> CreatureScores:
    """Compares readings with the ground truth."""
    if len(samples) != len(readings):
        raise UserError(
            f"readings: got {len(readings)}, expected {len(samples)}, one per sample; read one image per sample"
        )
    pairs = list(zip(samples, readings, strict=True))
    style = _mean([seen.style == sample.style for sample, seen in pairs])
    species, color, pose = (
        _mean([getattr(seen, name) == getattr(sample.creature, name) for sample, seen in pairs])
        for name in ("species", "color", "pose")
    )
    return CreatureScores(style, (species + color + pose) / 3, species, color, pose)


def shape_consistency(readings: Sequence[CreatureReading]) -> float:
    """Mean IoU over all pairs of masks of one creature with different seeds.

    Position is ignored: each mask is cropped to its bounding box and centred, to the pixel. Size matters. An empty mask
    has an IoU of 0 with every other.
    """
    if len(readings) < 2:
        raise UserError(
            f"readings: got {len(readings)}, expected at least 2; read images of one creature with different seeds"
        )
    sizes = {tuple(reading.mask.shape) for reading in readings}
    if len(sizes) > 1:
        raise UserError(f"masks: got sizes {sorted(sizes)}, expected one; read images of the same size")
    return _mean([overlap(one, other) for one, other in combinations(map(_centered, readings), 2)])


def overlap(one: Bool[Tensor, "height width"], other: Bool[Tensor, "height width"]) -> float:
    """IoU of two masks; 0 if both are empty."""
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def _centered(reading: CreatureReading) -> Bool[Tensor, "height width"]:
    """Shifts the mask so that its bounding box is centred in the image."""
    mask, centered = reading.mask, torch.zeros_like(reading.mask)
    if mask.any():
        rows, columns = (mask.any(dim=dim).nonzero()[:, 0] for dim in (1, 0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = ((whole - part) // 2 for whole, part in zip(mask.shape, box.shape, strict=True))
        centered[top : top + box.shape[0], left : left + box.shape[1]] = box
    return centered


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
