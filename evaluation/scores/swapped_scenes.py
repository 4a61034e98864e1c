"""Cases of drawings whose pairs are given texts or sketches of others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from weftwork.datasets.drawings.scenes import Mask
from weftwork.evaluation.scores.scenes import Case

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Swapped:
    """A case, what the pairs are given instead, and the regions of the case that have the colours of each pair."""

    case: Case
    given: Case
    colored: tuple[Mask, ...]


def texts_swapped(cases: Sequence[Case]) -> list[Swapped]:
    """Cases of several drawings, each with the text of the next drawing."""
    return [
        Swapped(case, replace(case, texts=_rotated(case.texts)), _rotated(case.regions))
        for case in cases
        if len(case.texts) > 1
    ]


def sketches_swapped(cases: Sequence[Case]) -> list[Swapped]:
    """Cases with the sketches of the next case that has as many drawings."""
    found = []
    for count in sorted({len(case.texts) for case in cases}):
        alike = [case for case in cases if len(case.texts) == count]
        for case, other in zip(alike, _rotated(alike), strict=True):
            if other is not case:
                given = replace(case, sketches=other.sketches, regions=other.regions)
                found.append(Swapped(case, given, case.regions))
    return found


def _rotated(values: Sequence[Value]) -> tuple[Value, ...]:
    return *values[1:], *values[:1]
