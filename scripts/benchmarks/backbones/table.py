"""The table of `weftwork benchmark backbones --check`: every property of every method on every family."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from diffusers.utils import logging

from weftwork.attention_processors.core.method import methods
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.benchmarks.backbones import basic, kernels, memory
from weftwork.scripts.benchmarks.backbones.cells import Cell, Row, cells
from weftwork.scripts.benchmarks.backbones.tiny import FAMILIES

ROWS: Final[tuple[Row, ...]] = (*basic.ROWS, *memory.ROWS, *kernels.ROWS)
"""All rows of the table."""
BEGIN: Final = "<!-- written by `weftwork benchmark backbones --check --write docs/backbones.md` -->"
END: Final = "<!-- end of the table -->"
LONGEST_REASON: Final = 200


@dataclass(frozen=True)
class Outcome:
    """Outcome of one cell.

    Args:
        reason: text of the error where the property does not hold; None where it does.
    """

    row: str
    method: str
    backbone: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.row} · {self.method} · {self.backbone}: {self.reason or 'holds'}"


def outcomes(chosen: Iterable[Cell], rows: Sequence[Row], show: Callable[[Outcome], object]) -> list[Outcome]:
    """Checks rows of cells; those that cannot apply are left out.

    Args:
        show: is called with each outcome as it is known.
    """
    found: list[Outcome] = []
    for cell in chosen:
        asked = [row for row in rows if cell.applies(row)]
        moves = _reason(basic.acts, cell) if asked else None
        for row in asked:
            reason = _reason(row.check, cell) if moves is None else f"without a branch that acts: {moves}"
            outcome = Outcome(row.name, cell.method.name, cell.backbone, reason)
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


def markdown(found: Sequence[Outcome]) -> str:
    """Returns the outcomes as tables of methods by families and by rows, and the reasons of what does not hold."""
    names = list(dict.fromkeys(one.method for one in found))
    lines = [summary(found)]
    for title, of in (("family", lambda one: one.backbone), ("property", lambda one: one.row)):
        lines += ["", f"| {title} | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
        for value in dict.fromkeys(map(of, found)):
            here = [[one for one in found if of(one) == value and one.method == name] for name in names]
            counts = [f"{sum(o.reason is None for o in own)}/{len(own)}" if own else "–" for own in here]
            lines.append(f"| {value} | {' | '.join(counts)} |")
    failing = dict.fromkeys((one.method, one.reason) for one in found if one.reason is not None)
    lines += ["", "These do not hold:", ""] if failing else []
    for method, reason in failing:
        where: dict[str, list[str]] = {}
        for one in found:
            if (one.method, one.reason) == (method, reason):
                where.setdefault(one.backbone, []).append(one.row)
        alike: dict[str, list[str]] = {}
        for backbone, rows in where.items():
            asked = [one.row for one in found if (one.method, one.backbone) == (method, backbone)]
            alike.setdefault("all properties" if rows == asked else ", ".join(rows), []).append(backbone)
        lines += [f"- {method} on {', '.join(names)}, {rows}: `{reason}`" for rows, names in alike.items()]
    return "\n".join(lines)


def summary(found: Sequence[Outcome]) -> str:
    """Returns the last line of the command."""
    return f"{sum(one.reason is None for one in found)} of {len(found)} cells hold"


def written(page: str, table: str) -> str:
    """Returns a page with the table between its two marks.

    Raises:
        ValueError: a page without them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"write: got a page without the lines {BEGIN!r} and {END!r}; add them where the table belongs")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def check(only: Sequence[str] = (), write: Path | None = None) -> int:
    """Prints one line per cell that does not hold, then how many hold; returns 1 if any does not.

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
    for row in rows:
        if not row.installed:
            print(f"{row.name}: {row.package} is not installed; left out")
    rows = [row for row in rows if row.installed]
    started = time.perf_counter()
    found = outcomes(cells(asked, makers), rows, lambda one: one.reason is not None and print(one, flush=True))
    print(f"checked in {time.perf_counter() - started:.0f} s")
    if write is not None:
        page = written(write.read_text(encoding="utf-8"), markdown(found))
        with atomic_path(write) as stage:
            stage.write_text(page, encoding="utf-8")
    print(summary(found))
    return int(any(one.reason is not None for one in found))
