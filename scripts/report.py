"""Collect reports and training runs in one HTML file: tables, contact sheets, curves and validation images.

    weftwork evaluate paired --output outputs/evaluation
    weftwork benchmark step --output outputs/benchmark
    weftwork report outputs --output outputs/report.html

The page is self-contained. Of a training run (a folder with metrics.jsonl), it shows the curves and the images of the
last validation. Images of a report are the PNG files next to its JSON file that begin with its name.
"""

import argparse
import base64
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.folders import files_below
from weftwork.scripts.outputs import naming_replaced
from weftwork.scripts.training_runs import METRICS, TrainingRun

Record = Mapping[str, Any]
"""A report as it is in its JSON file."""
KINDS = {"evaluation": "Evaluations", "benchmark": "Benchmarks"}
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
tbody tr:hover td { background: var(--soft); }
.spread { opacity: .6; font-size: .85em; }
img { max-width: 100%; margin: .8rem 0; image-rendering: auto; }
.about { opacity: .75; font-size: .9em; }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork report`."""
    parser.add_argument("folders", nargs="+", type=Path, help="folders to search for reports, recursively")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/report.html"), help="HTML file to write (default: %(default)s)"
    )
    parser.add_argument("--title", default="weftwork: what was measured", help="title of the page")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page atomically; `ValueError` for no reports, or an output that is not HTML."""
    reports, runs = list(found(arguments.folders)), training_runs(arguments.folders)
    if not (reports or runs):
        names = ", ".join(map(str, arguments.folders))
        raise UserError(
            f"folders: no reports found in {names}; run weftwork evaluate, weftwork benchmark or weftwork train first"
        )
    if arguments.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"output: got {arguments.output.name!r}, expected a name that ends in .html; change it")
    with naming_replaced([arguments.output]), atomic_path(arguments.output) as partial:
        partial.write_text(page(reports, arguments.title, runs), encoding="utf-8")
    print(f"{arguments.output}: {len(reports)} reports, {len(runs)} training runs")


def found(folders: Sequence[Path]) -> Iterator[tuple[Path, Record]]:
    """Yields reports with their paths, sorted by kind and name; skips other JSON files."""
    reports = []
    for path in sorted({path for folder in folders for path in files_below(folder) if path.suffix == ".json"}):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("kind") in KINDS and isinstance(content.get("rows"), list):
            reports.append((path, content))
    yield from sorted(reports, key=lambda one: (list(KINDS).index(one[1]["kind"]), str(one[1]["name"]), str(one[0])))


def training_runs(folders: Sequence[Path]) -> list[TrainingRun]:
    """Returns the training runs below folders."""
    found = sorted({path.parent for folder in folders for path in files_below(folder) if path.name == METRICS})
    return [TrainingRun(path) for path in found]


def page(reports: Sequence[tuple[Path, Record]], title: str, runs: Sequence[TrainingRun] = ()) -> str:
    """Returns the HTML of all reports and training runs."""
    parts = [f"<h1>{html.escape(title)}</h1>", _contents(reports)]
    for index, (path, report) in enumerate(reports):
        parts += [f'<h2 id="r{index}">{html.escape(str(report["name"]))}</h2>', _about(report)]
        parts += [f'<div class="wide">{_table(report)}</div>', *map(_image, _images(path))]
    for run in runs:
        name, images = html.escape(str(run.folder)), run.images()
        parts += [f"<h2>Training: {name}</h2>", f'<p class="about">{html.escape(run.state())}</p>', run.plots()]
        parts += map(_image, images.get(max(images, default=0), []))
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>' + "\n".join(
        [*parts, "</body></html>\n"]
    )


def _contents(reports: Sequence[tuple[Path, Record]]) -> str:
    lines = []
    for kind, text in KINDS.items():
        links = [
            f'<a href="#r{index}">{html.escape(str(report["name"]))}</a>'
            for index, (_, report) in enumerate(reports)
            if report["kind"] == kind
        ]
        if links:
            lines.append(f"<p>{text}: {', '.join(links)}</p>")
    return "\n".join(lines)


def _about(report: Record) -> str:
    """Returns split, count, seeds, hardware, settings and versions as HTML."""
    shown = {key: report.get(key) for key in ("split", "count", "seed", "hardware")}
    shown |= dict(report.get("settings") or {})
    shown |= {name: version for name, version in (report.get("versions") or {}).items() if version}
    text = " · ".join(f"{key} {value}" for key, value in shown.items() if value is not None)
    return f'<p class="about">{html.escape(text)}</p>'


def _table(report: Record) -> str:
    columns = list(dict.fromkeys(score for row in report["rows"] for score in row["scores"]))
    head = "".join(f"<th>{html.escape(column.replace('_', ' '))}</th>" for column in ("", *columns))
    body = []
    for row in report["rows"]:
        spread = row.get("spread") or {}
        cells = "".join(f"<td>{_cell(row['scores'].get(column), spread.get(column))}</td>" for column in columns)
        body.append(f"<tr><td>{html.escape(str(row['name']))}</td>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(value: float | None, spread: float | None) -> str:
    if value is None:
        return "–"
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return shown if spread is None else f'{shown} <span class="spread">±{spread:.3f}</span>'


def _images(path: Path) -> list[Path]:
    """Returns the contact sheet of a report, and plots whose names begin with its name."""
    return sorted(one for one in path.parent.glob(f"{path.stem}*.png") if one.is_file())


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">'
