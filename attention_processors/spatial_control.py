"""What a ControlNet of sounds reads, at the latents' rate: an envelope, and boxes where it has channels for them.

Boxes as channels are aligned in time with the sound by construction, where tokens have to say when they are. That is
ours, not StereoSync's.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weft.attention_processors.spatial_conditions import BoxTrack, Envelope, OverTime

BOX_CHANNELS = 5
"""The four sides of a box in [-1, 1], and whether it is seen."""


def tracks_of(conditions: Sequence[OverTime]) -> list[BoxTrack]:
    """Tracks that act, the largest first; the first one is what channels tell."""
    tracks = [one for one in conditions if isinstance(one, BoxTrack) and one.weight > 0]
    return sorted(tracks, key=lambda track: track.area, reverse=True)


def aligned_boxes(
    conditions: Sequence[OverTime], places: int, seconds: float, start: float = 0.0
) -> Float[Tensor, "channel place"]:
    """The largest track's boxes at the middles of all latents; 0 where it is not seen.

    Args:
        places: latents of the clip.
        seconds: length of the clip.
        start: second of the conditions at which the clip begins.
    """
    tracks = tracks_of(conditions)
    if not tracks:
        return torch.zeros(BOX_CHANNELS, places)
    boxes, seen = tracks[0].at(start + (np.arange(places) + 0.5) * (seconds / places))
    channels = np.concatenate([2 * boxes.T - 1, np.ones((1, places))]) * seen
    return torch.from_numpy(channels).float()


def acts(conditions: Sequence[OverTime], step: int, steps: int, *, boxes: bool) -> float:
    """How strongly a ControlNet's residuals act at a step: as the envelope says, or the track where it reads boxes."""
    given = [one for one in conditions if isinstance(one, Envelope)] + (tracks_of(conditions)[:1] if boxes else [])
    return max((one.weight * one.schedule.at(step, steps) for one in given), default=0.0)
