"""Outcomes of the cells of the table, kept in a file as they are known, and as tables of a page."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from weftwork.datasets.readers.errors import UserError

BEGIN: Final = "<!-- written by `weftwork benchmark backbones --check --write docs/backbones.md` -->"
END: Final = "<!-- end of the table -->"
FILE: Final = "backbones-check.jsonl"
"""Name of the file in the folder of reports."""


@dataclass(frozen=True)
class Place:
    """One cell of the table."""

    row: str
    method: str
    backbone: str


def installed() -> str:
    """Returns the versions that a check depends on."""
    return f"torch {version('torch')}, diffusers {version('diffusers')}"


@dataclass(frozen=True)
class Outcome:
    """Outcome of one cell.

    Args:
        reason: text of the error where the property does not hold; None where it does.
        date: day of the check, in UTC.
        versions: versions of the libraries that it was checked with.
    """

    place: Place
    reason: str | None
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    versions: str = field(default_factory=installed)

    def __str__(self) -> str:
        place = self.place
        return f"{place.row} · {place.method} · {place.backbone}: {self.reason or 'holds'}"

    def append(self, path: Path) -> None:
        """Adds the outcome to a file of outcomes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self)) + "\n")


Outcomes = dict[Place, Outcome]


def recorded(path: Path) -> Outcomes:
    """Returns the last outcome of each cell in a file, checked with the installed versions; none without a file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    found: Outcomes = {}
    for line in lines:
        if line.endswith("}\n"):  # else cut short, when its process was killed
            values = json.loads(line)
            outcome = Outcome(**{**values, "place": Place(**values["place"])})
            found[outcome.place] = outcome
    versions = installed()
    return {place: outcome for place, outcome in found.items() if outcome.versions == versions}


def summary(asked: Sequence[Place], found: Outcomes) -> str:
    """Returns how many of the cells hold, and how many were not run."""
    held, left = sum(_holds(found, place) for place in asked), sum(place not in found for place in asked)
    return f"{held} of {len(asked)} cells hold" + (f", {left} were not run" if left else "")


def _holds(found: Outcomes, place: Place) -> bool:
    return place in found and found[place].reason is None


def markdown(asked: Sequence[Place], found: Outcomes) -> str:
    """Returns the outcomes as tables of methods by families and by rows, and the reasons of what does not hold."""
    methods = list(dict.fromkeys(place.method for place in asked))
    ran = [found[place] for place in asked if place in found]
    days = sorted({one.date for one in ran})
    when = f", checked with {ran[0].versions} ({' to '.join(dict.fromkeys((days[0], days[-1])))})" if ran else ""
    lines = [f"{summary(asked, found)}{when}."]
    titles: dict[str, Callable[[Place], str]] = {"family": lambda one: one.backbone, "property": lambda one: one.row}
    for title, of in titles.items():
        lines += ["", f"| {title} | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
        for value in dict.fromkeys(map(of, asked)):
            own = [[p for p in asked if of(p) == value and p.method == method] for method in methods]
            lines.append(f"| {value} | {' | '.join(_count(places, found) for places in own)} |")
    failing = [one for one in ran if one.reason is not None]
    return "\n".join([*lines, *(["", "These do not hold:", "", *_reasons(failing, asked)] if failing else [])])


def _count(places: Sequence[Place], found: Outcomes) -> str:
    left = sum(place not in found for place in places)
    if left == len(places):
        return "not run" if places else "–"
    held = sum(_holds(found, place) for place in places)
    return f"{held}/{len(places) - left}" + (f" ({left} not run)" if left else "")


def _reasons(failing: Iterable[Outcome], asked: Sequence[Place]) -> list[str]:
    """Returns one line for each method, reason and set of rows that do not hold, with the families."""
    rows: dict[tuple[str, str | None, str], list[str]] = defaultdict(list)
    for one in failing:
        rows[one.place.method, one.reason, one.place.backbone].append(one.place.row)
    families: dict[tuple[str, str | None, str], list[str]] = defaultdict(list)
    for (method, reason, backbone), here in rows.items():
        everything = here == [p.row for p in asked if (p.method, p.backbone) == (method, backbone)]
        families[method, reason, "all properties" if everything else ", ".join(here)].append(backbone)
    return [f"- {method} on {', '.join(on)}, {what}: `{reason}`" for (method, reason, what), on in families.items()]


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
