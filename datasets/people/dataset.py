"""Dataset of people with expressions, with exact labels.

Triples of hair, skin and clothes are divided between the splits, so that every person of a test sample is one that
training has never shown, made of values that training has. Expressions are those of all splits.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np

from weftwork.datasets.people.parts import ATTRIBUTES, EXPRESSIONS, Person, draw, open_parts
from weftwork.datasets.readers.errors import check_choice
from weftwork.datasets.synthetic.checks import check_draw

SPLITS: Final = ("train", "validation", "test")
SIZE: Final = 128


@dataclass(frozen=True, eq=False)
class PersonSample:
    """A person with an expression; the image is uint8 [SIZE, SIZE, 3]."""

    image: np.ndarray
    person: Person
    expression: str


def split_of(person: Person) -> str:
    """Returns the only split in which this person occurs."""
    hair, skin, clothes = (list(ATTRIBUTES[one.name]).index(getattr(person, one.name)) for one in fields(person))
    return {0: "test", 1: "validation"}.get((hair + 3 * skin + 5 * clothes) % 7, "train")


def labels(split: str, index: int, seed: int = 0) -> tuple[Person, str]:
    """Returns person and expression of the sample of a split at an index, without its image."""
    check_choice("split", split, SPLITS)
    check_draw(index, seed)
    rng = np.random.default_rng([SPLITS.index(split), seed, index])
    while True:  # a seventh of all persons is in each of the smaller splits
        person = Person(**{name: _pick(list(values), rng) for name, values in ATTRIBUTES.items()})
        if split_of(person) == split:
            return person, _pick(list(EXPRESSIONS), rng)


def sample(folder: Path, split: str, index: int, seed: int = 0) -> PersonSample:
    """Returns the sample of a split at an index; the same arguments give the same sample.

    Args:
        folder: of the tarball with the parts.
    """
    person, expression = labels(split, index, seed)
    return PersonSample(draw(open_parts(folder), person, expression, SIZE), person, expression)


def caption(person: Person, expression: str | None = None) -> str:
    """Returns what a person looks like in words, with the expression if given."""
    words = f"a person with {person.skin} skin, {person.hair} and {person.clothes} clothes"
    return words if expression is None else f"{words}, showing {expression}"


def _pick(options: list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
