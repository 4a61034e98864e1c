"""Scores of several subjects in an image: which are seen, and how much one looks like another."""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from weftwork.evaluation.core.images import Images

WINDOWS: Final = ((0.5, 3), (0.75, 2))
"""Sides of the squares that are searched, in sides of the image, and how many are in a row."""


def windows(images: Images) -> Images:
    """Returns the squares of images, in order of the images, each resized to the image's size."""
    side = images.shape[-1]
    found = []
    for share, count in WINDOWS:
        size = round(share * side)
        starts = [round(place * (side - size) / (count - 1)) for place in range(count)]
        found += [images[..., top : top + size, left : left + size] for top in starts for left in starts]
    resized = [F.interpolate(one, (side, side), mode="bicubic").clamp(0, 1) for one in found]
    return torch.stack(resized, 1).flatten(0, 1)


def score_subjects(
    cosines: Sequence[Float[Tensor, "window subject"]], truth: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Returns scores of images by the cosines of their windows to the subjects of a gallery.

    An image of n subjects shows the n subjects of the gallery that are most alike to one of its windows.

    - `subjects_right`: share of subjects that are shown.
    - `all_right`: share of images that show all of theirs.
    - `identity_blending`: in the window that is most alike to a subject, the cosine to another one of the image.

    Args:
        truth: places of each image's subjects in its gallery, two or more.
    """
    right, whole, blended = [], [], []
    for rows, own in zip(cosines, truth, strict=True):
        shown = set(rows.amax(0).topk(len(own)).indices.tolist())
        right += [one in shown for one in own]
        whole.append(shown == set(own))
        best = rows[:, list(own)].argmax(0).tolist()
        for window, one in zip(best, own, strict=True):
            blended += [rows[window, other].item() for other in own if other != one]
    shares = {"subjects_right": right, "all_right": whole, "identity_blending": blended}
    return {name: sum(values) / len(values) for name, values in shares.items()}
