"""Inputs of the audio ControlNet at the latents' rate: an envelope, and boxes where it has channels for them.

Boxes as channels are aligned in time with the audio by construction, whereas tokens encode their times. Differs from
StereoSync, which has no boxes as channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.audio.conditions import BoxTrack, Envelope, OverTime

BOX_CHANNELS = 5
"""Channels of a box: its four sides in [-1, 1], and whether it is seen."""


def tracks_of(conditions: Sequence[OverTime]) -> list[BoxTrack]:
    """Returns the tracks of a weight above 0, the largest first; channels hold the first one."""
    tracks = [one for one in conditions if isinstance(one, BoxTrack) and one.weight > 0]
    return sorted(tracks, key=lambda track: track.area, reverse=True)


def aligned_boxes(
    conditions: Sequence[OverTime], places: int, seconds: float, start: float = 0.0
) -> Float[Tensor, "channel place"]:
    """Returns the largest track's boxes at the middles of all latents; 0 where it is not seen.

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


def shares(
    conditions: Sequence[OverTime], step: int, steps: int, *, boxes: bool, unconditional: bool = False
) -> tuple[float, float, float]:
    """Returns the strengths of three controls' residuals at a step: envelope and boxes, envelope alone, boxes alone.

    The first control has the smaller of both strengths, the control of the stronger one alone the difference. Signals
    of strength 0 are not read. Without boxes, the first control is the envelope.

    Args:
        boxes: whether the ControlNet reads boxes; the largest track's weight and schedule are theirs.
        unconditional: whether for the unconditional half of guidance.
    """

    def strength(given: Sequence[OverTime]) -> float:
        first = next((one for one in given if not (unconditional and one.cfg == "cond_only")), None)
        return 0.0 if first is None else first.weight * first.schedule.at(step, steps)

    loud = strength([one for one in conditions if isinstance(one, Envelope)])
    seen = strength(tracks_of(conditions)[:1]) if boxes else loud
    return min(loud, seen), max(loud - seen, 0.0), max(seen - loud, 0.0)
