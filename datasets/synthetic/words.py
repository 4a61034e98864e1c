"""Words of captions, shared by the synthetic datasets."""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

T = TypeVar("T")
DETAILS: Final = ("full", "partial", "kinds", "generic")
"""The details of captions, from everything to nothing."""


def with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def pick(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]
