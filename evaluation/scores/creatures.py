"""How well pictures keep style and content of a creature, and how alike the shapes of several pictures of it are."""

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
    """Shares of pictures that show what they should; NaN without pictures.

    The content accuracy is the mean of those of species, colour and pose.
    """

    style_accuracy: float
    content_accuracy: float
    species_accuracy: float
    color_accuracy: float
    pose_accuracy: float


def score_creatures(samples: Sequence[CreatureSample], readings: Sequence[CreatureReading]) -> CreatureScores:
    """Compare readings with the truth."""
    if len(samples) != len(readings):
        raise UserError(
            f"readings: got {len(readings)}, but there are {len(samples)} samples; read one picture per sample"
        )
    pairs = list(zip(samples, readings, strict=True))
    style = _mean([seen.style == sample.style for sample, seen in pairs])
    species, color, pose = (
        _mean([getattr(seen, name) == getattr(sample.creature, name) for sample, seen in pairs])
        for name in ("species", "color", "pose")
    )
    return CreatureScores(style, (species + color + pose) / 3, species, color, pose)


def shape_consistency(readings: Sequence[CreatureReading]) -> float:
    """Mean overlap (IoU) of the masks of pictures that show one creature with different seeds, over all pairs.

    Where a creature stands does not count: each mask is cut out at its bounding box, and the boxes are laid centre on
    centre, to the pixel. Its size does count. A picture without any pixel of a creature overlaps with none.
    """
    if len(readings) < 2:
        raise UserError(
            f"readings: got {len(readings)}, expected at least 2; read pictures of one creature with different seeds"
        )
    sizes = {tuple(reading.mask.shape) for reading in readings}
    if len(sizes) > 1:
        raise UserError(f"masks: got sizes {sorted(sizes)}, expected one; read pictures of the same size")
    return _mean([overlap(one, other) for one, other in combinations(map(_centered, readings), 2)])


def overlap(one: Bool[Tensor, "height width"], other: Bool[Tensor, "height width"]) -> float:
    """Shared pixels over all pixels of two masks (IoU); 0 where both are empty."""
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def _centered(reading: CreatureReading) -> Bool[Tensor, "height width"]:
    """The mask with the centre of its bounding box at the centre of the picture."""
    mask, centered = reading.mask, torch.zeros_like(reading.mask)
    if mask.any():
        rows, columns = (mask.any(dim=dim).nonzero()[:, 0] for dim in (1, 0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        top, left = ((whole - part) // 2 for whole, part in zip(mask.shape, box.shape, strict=True))
        centered[top : top + box.shape[0], left : left + box.shape[1]] = box
    return centered


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
