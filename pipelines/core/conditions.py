"""Conditions in the arguments of a pipeline's call."""

from collections.abc import Mapping, Sequence
from typing import Any

from weftwork.attention_processors.core.condition import Condition
from weftwork.datasets.readers.errors import UserError

Conditions = Mapping[str, Condition | Sequence[Condition] | Sequence[Sequence[Condition] | None]]
"""Conditions by adapter name: a condition, a list of them for every prompt, or one such list or None per prompt."""


def number_of_designs(given: Conditions) -> int:
    """Returns the number of prompts that conditions are for: 1 where none is a list with one list per prompt.

    Raises:
        ValueError: different numbers.
    """
    rows = [one for one in given.values() if isinstance(one, Sequence) and not isinstance(one, str)]
    counts = {len(row) for row in rows if any(one is None or isinstance(one, Sequence) for one in row)}
    if len(counts) > 1:
        raise UserError(f"conditions: got lists for {sorted(counts)} prompts; pass as many for each adapter")
    return counts.pop() if counts else 1


def designs_of(name: str, given: Any, batch: int, kinds: tuple[type, ...]) -> list[list[Any]]:
    """Returns one list of conditions per prompt; `ValueError` for wrong types, or another number of lists."""
    names = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(given, kinds):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise UserError(f"conditions[{name!r}]: got a {type(given).__name__}, expected {names} or a list of them")
    per_prompt = any(row is None or isinstance(row, Sequence) for row in given)
    rows = ([row] if isinstance(row, kinds) else row for row in given)
    designs = [list(row or ()) for row in rows] if per_prompt else [list(given)] * batch
    if len(designs) != batch:
        raise UserError(
            f"conditions[{name!r}]: got {len(designs)} lists for {batch} prompts; pass one list (or None) per prompt"
        )
    for wrong in (c for row in designs for c in row if not isinstance(c, kinds)):
        raise UserError(f"conditions[{name!r}]: got a {type(wrong).__name__}, expected {names}")
    return designs
