"""Collect reports, training runs and generated images in one HTML file.

    weftwork evaluate paired --output outputs/evaluation
    weftwork benchmark step --output outputs/benchmark
    weftwork report outputs --output outputs/report.html

The page is self-contained. It shows

- the scores of evaluations and benchmarks, with their plots, and the first images of each row beside the true image;
- the curves of training runs (folders with metrics.jsonl), with the images of the last validation; needs matplotlib;
- images of `weftwork generate` and of the demo.

Prompt, sketches, texts and styles stand below each image that has a design. A click on the image saves the design,
which `weftwork generate` opens, and `weftwork demo` unless it names a LoRA or a ControlNet. Their paths are relative to
the page: save such designs beside it.
"""

import argparse
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError, check_installed
from weftwork.datasets.readers.folders import files_below
from weftwork.pipelines.designs.files import stored_if_any
from weftwork.scripts.outputs import naming_replaced
from weftwork.scripts.report_images import IMAGE_STYLE, Record, drawn, figure, image
from weftwork.scripts.training_runs import METRICS, TrainingRun, plot_curves

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
    images = generated(arguments.folders, reports, runs)
    if not (reports or runs or images):
        names = ", ".join(map(str, arguments.folders))
        raise UserError(
            f"folders: no reports found in {names}; run weftwork evaluate, benchmark, train or generate first"
        )
    if runs:
        check_installed("report", "matplotlib")
    if arguments.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"output: got {arguments.output.name!r}, expected a name that ends in .html; change it")
    with naming_replaced([arguments.output]), atomic_path(arguments.output) as partial:
        shown = page(reports, arguments.title, runs, images, arguments.output.parent)
        partial.write_text(shown, encoding="utf-8")
    print(f"{arguments.output}: {len(reports)} reports, {len(runs)} training runs, {len(images)} generated images")


def found(folders: Sequence[Path]) -> Iterator[tuple[Path, Record]]:
    """Yields reports with their paths, sorted by kind and name; skips other JSON files."""
    reports = []
    for path in sorted({path for folder in folders for path in files_below(folder) if path.suffix == ".json"}):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("kind") in KINDS and _has_rows(content):
            reports.append((path, content))
    yield from sorted(reports, key=lambda one: (list(KINDS).index(one[1]["kind"]), str(one[1]["name"]), str(one[0])))


def _has_rows(content: Record) -> bool:
    rows = content.get("rows")
    named = isinstance(rows, list) and all(isinstance(row, dict) and {"name", "scores"} <= set(row) for row in rows)
    return named and "name" in content


def training_runs(folders: Sequence[Path]) -> list[TrainingRun]:
    """Returns the training runs below folders."""
    found = sorted({path.parent for folder in folders for path in files_below(folder) if path.name == METRICS})
    return [TrainingRun(path) for path in found]


def generated(
    folders: Sequence[Path], reports: Sequence[tuple[Path, Record]], runs: Sequence[TrainingRun]
) -> dict[Path, Record]:
    """Returns the designs of images below folders, by path, except those of reports and training runs."""
    shown = {path.parent / name for path, report in reports for row in report["rows"] for name in row.get("images", ())}
    inside = {run.folder for run in runs}
    found = {path for folder in folders for path in files_below(folder) if path.suffix == ".png"}
    chosen = sorted(path for path in found - shown if not inside.intersection(path.parents))
    designs = {path: stored_if_any(path) for path in chosen if not path.stem.endswith("-maps")}
    return {path: record["design"] for path, record in designs.items() if record is not None}


def page(
    reports: Sequence[tuple[Path, Record]],
    title: str,
    runs: Sequence[TrainingRun] = (),
    images: Mapping[Path, Record] | None = None,
    folder: Path = Path(),
) -> str:
    """Returns the HTML of all reports, training runs, and designs by path of their image.

    Args:
        folder: that of the HTML, which paths of LoRAs and ControlNets in saved designs are relative to.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", _contents(reports)]
    for index, (path, report) in enumerate(reports):
        parts += [f'<h2 id="r{index}">{html.escape(str(report["name"]))}</h2>', _about(report)]
        parts += [
            f'<div class="wide">{_table(report)}</div>',
            *_rows(path, report, folder),
            *map(image, _plots(path, report)),
        ]
    for run in runs:
        name, shown, rows = html.escape(str(run.folder)), run.images(), run.rows()
        parts += [f"<h2>Training: {name}</h2>", f'<p class="about">{html.escape(run.state(rows))}</p>']
        parts.append(drawn(plot_curves(rows)))
        parts += map(image, shown.get(max(shown, default=0), []))
    if images:
        figures = [figure(path, design, folder, caption=str(path)) for path, design in images.items()]
        parts += ["<h2>Generated images</h2>", f'<div class="images">{"".join(figures)}</div>']
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    style = STYLE + IMAGE_STYLE
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>\n<body>' + "\n".join(
        [*parts, "</body></html>\n"]
    )


def _rows(path: Path, report: Record, folder: Path) -> Iterator[str]:
    """Yields the first images of each row that has some, below its name."""
    images = {row["name"]: [path.parent / name for name in row.get("images", ())] for row in report["rows"]}
    for row in report["rows"]:
        true, shown = images.get(row.get("truth"), []), []
        for index, one in enumerate(images[row["name"]]):
            record = stored_if_any(one)
            shown.append(figure(one, record and record["design"], folder, true[index] if true else None))
        if shown:
            yield f'<h3>{html.escape(str(row["name"]))}</h3><div class="images strip">{"".join(shown)}</div>'


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


def _plots(path: Path, report: Record) -> list[Path]:
    """Returns images whose names begin with that of a report; the contact sheet only if there are no single images."""
    shown = any(row.get("images") for row in report["rows"])
    return sorted(
        one for one in path.parent.glob(f"{path.stem}*.png") if one.is_file() and not (shown and one.stem == path.stem)
    )
