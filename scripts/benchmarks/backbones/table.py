"""The table of `weftwork benchmark backbones --check`: every property of every method on every family."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from diffusers.utils import logging

from weftwork.attention_processors.core.method import methods
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.benchmarks.backbones import basic, kernels, memory
from weftwork.scripts.benchmarks.backbones.cells import Cell, Row, cells
from weftwork.scripts.benchmarks.backbones.outcomes import FILE, Outcome, Place, markdown, recorded, summary, written
from weftwork.scripts.benchmarks.backbones.tiny import FAMILIES

ROWS: Final[tuple[Row, ...]] = (*basic.ROWS, *memory.ROWS, *kernels.ROWS)
"""All rows of the table."""
LONGEST_REASON: Final = 200


def places(chosen: Iterable[Cell], rows: Sequence[Row]) -> list[Place]:
    """Returns where the properties can be asked, also those whose package is missing."""
    return [Place(row.name, cell.method.name, cell.backbone) for cell in chosen for row in rows if cell.applies(row)]


def outcomes(chosen: Iterable[Cell], rows: Sequence[Row], show: Callable[[Outcome], object]) -> list[Outcome]:
    """Checks rows of cells; those that cannot apply or whose package is missing are left out.

    Args:
        show: is called with each outcome as it is known.
    """
    found: list[Outcome] = []
    for cell in chosen:
        asked = [row for row in rows if row.installed and cell.applies(row)]
        moves = _reason(basic.acts, cell) if asked else None
        for row in asked:
            reason = _reason(row.check, cell) if moves is None else f"without a branch that acts: {moves}"
            outcome = Outcome(Place(row.name, cell.method.name, cell.backbone), reason)
            found.append(outcome)
            show(outcome)
    return found


def _reason(check: Callable[[Cell], None], cell: Cell) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(cell)
        except Exception as error:  # any error means that the property does not hold
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"
    return None


def check(only: Sequence[str], folder: Path, write: Path | None = None) -> int:
    """Prints one line per cell that does not hold, then how many hold; returns 1 if any does not.

    Outcomes are added to a file in the folder as they are known. A page gets the table of all that the file has, so
    that parts of the table can be checked one after another.

    Args:
        only: names of methods, families and rows; of each of the three, all without any.
        write: page that gets the table.

    Raises:
        ValueError: an unknown name, or a page without a place for the table.
    """
    known: list[Mapping[str, Any]] = [
        methods(),
        {make.__name__: make for make in FAMILIES},
        {row.name: row for row in ROWS},
    ]
    unknown = [name for name in only if not any(name in names for names in known)]
    if unknown:
        raise UserError(
            f"only: got {unknown[0]!r}, expected some of {', '.join(name for kind in known for name in kind)}"
        )
    if write is not None:
        written(write.read_text(encoding="utf-8"), "")
    asked, makers, rows = ([kind[n] for n in kind if n in only] or list(kind.values()) for kind in known)
    logging.set_verbosity_error()
    chosen, started = cells(asked, makers), time.perf_counter()
    for row in rows:
        if not row.installed:
            print(f"{row.name}: {len(places(chosen, [row]))} cells are not run, {row.package} is not installed")

    def show(outcome: Outcome) -> None:
        outcome.append(folder / FILE)
        if outcome.reason is not None:
            print(outcome, flush=True)

    found = outcomes(chosen, rows, show)
    print(f"checked in {time.perf_counter() - started:.0f} s")
    if write is not None:
        everywhere = places(cells(methods().values(), FAMILIES), ROWS)
        page = written(write.read_text(encoding="utf-8"), markdown(everywhere, recorded(folder / FILE)))
        with atomic_path(write) as stage:
            stage.write_text(page, encoding="utf-8")
    print(summary(places(chosen, rows), {one.place: one for one in found}))
    return int(any(one.reason is not None for one in found))
