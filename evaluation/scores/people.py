"""Scores of people in images: their expression, whether their looks are kept, and what others' looks leak."""

from collections.abc import Collection, Sequence
from dataclasses import astuple

import numpy as np

from weftwork.datasets.people.parts import Person
from weftwork.evaluation.oracles.people import PersonReading


def score_people(
    readings: Sequence[PersonReading],
    people: Sequence[Person],
    expressions: Sequence[Collection[str]],
    others: Sequence[Person],
) -> dict[str, float]:
    """Returns scores, each a mean over images.

    - `expression_accuracy`: the expression seen is one of those wanted.
    - `expressions_mixed`: the most likely expressions are those wanted, in any order.
    - `identity_accuracy`: share of hair, skin and clothes that are the person's.
    - `identity_leakage`: of those that differ between the person and the other one, who shows the expression, the
      share that are the other's; NaN if none differs.

    Args:
        people: who is wanted.
        expressions: wanted ones, one or several of which a mixture is made.
        others: who shows the expression where it is given by an image.
    """
    kept, leaked = [], []
    for reading, person, other in zip(readings, people, others, strict=True):
        for seen, own, foreign in zip(*map(astuple, (reading.person, person, other)), strict=True):
            kept.append(seen == own)
            if own != foreign:
                leaked.append(seen == foreign)
    pairs = list(zip(readings, expressions, strict=True))
    return {
        "expression_accuracy": float(np.mean([one.expressions[0] in wanted for one, wanted in pairs])),
        "expressions_mixed": float(np.mean([{*one.expressions[: len(wanted)]} == {*wanted} for one, wanted in pairs])),
        "identity_accuracy": float(np.mean(kept)),
        "identity_leakage": float(np.mean(leaked)) if leaked else float("nan"),
    }
