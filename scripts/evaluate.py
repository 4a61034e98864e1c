"""Evaluate a method on unseen cases beside upper bounds and baselines: a table, a JSON file and a contact sheet.

weftwork evaluate paired
weftwork evaluate composition --limit 16 --rows pairs style pairs_style
weftwork evaluate drawings --model my-backbone --paired my-pairs --split subjects
weftwork evaluate drawings --model my-backbone --style my-styles --curve
weftwork evaluate spatial-audio --seed 0 1 2
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from weftwork.attention_processors.core.method import Method, load
from weftwork.attention_processors.core.records import check_guidance
from weftwork.datasets.readers.errors import UserError, check_counts, check_installed
from weftwork.evaluation.core.curve import plot_curve
from weftwork.evaluation.core.measurement import Measurement
from weftwork.evaluation.measurements import measured
from weftwork.pipelines.core.hardware import device_named
from weftwork.pretrained import model_folder
from weftwork.scripts.lazy_parser import LazyParser
from weftwork.scripts.outputs import naming_replaced

ENDINGS = (".json", ".png", "-curve.json", "-curve.png")
"""Of names of the files of an evaluation."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork evaluate`."""
    several = parser.add_subparsers(dest="method", required=True, metavar="method", parser_class=LazyParser)
    for name, method in measured().items():
        several.add_parser(name, help=method.summary, fill=functools.partial(_fill, method))


def _fill(method: Method, parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    measurement = _measurement(method)
    parser.description = measurement.description
    parser.add_argument("--output", type=Path, default=Path("outputs/evaluation"), help="folder of the report")
    parser.add_argument("--limit", type=int, default=200, help="cases per row")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of cases and noise; several give a spread")
    parser.add_argument("--model", help=f"a shipped backbone or a folder (default: the shipped {measurement.backbone})")
    parser.add_argument("--device", default="cpu", help="where the model runs, for example cuda")
    parser.add_argument("--rows", nargs="*", default=(), help="only these rows")
    measurement.add_arguments(parser)


def _measurement(method: Method) -> Measurement:
    assert method.evaluation is not None
    return load(method.evaluation)


def run(arguments: argparse.Namespace) -> None:
    """Prints the table and writes the report; `ValueError` for options out of range, or missing weights."""
    method = measured()[arguments.method]
    measurement, curve = _measurement(method), getattr(arguments, "curve", False)
    check_counts(limit=arguments.limit, num_inference_steps=arguments.num_inference_steps)
    if min(arguments.seed) < 0 or len(set(arguments.seed)) < len(arguments.seed):
        got = ", ".join(map(str, arguments.seed))
        raise UserError(f"seed: got {got}, expected different whole numbers of at least 0; change them")
    check_guidance(arguments.guidance_scale)
    if len(set(arguments.rows)) < len(arguments.rows):
        raise UserError(f"rows: got {', '.join(arguments.rows)}, expected different names; leave out the doubled ones")
    if curve:
        check_installed("curve", "matplotlib")
    device = device_named(arguments.device)
    pipe = load(method.pipeline)(str(model_folder(arguments.model or measurement.backbone))).to(device)
    evaluation = measurement.open(pipe, arguments)
    folder = arguments.output
    with naming_replaced(folder / f"{evaluation.title}{ending}" for ending in ENDINGS):
        print(evaluation.run(folder, arguments.rows, arguments.seed).table())
        if curve:
            plot_curve(evaluation.title, evaluation.curve(), measurement.curve, folder, measurement.curve_over)
    print(f"written to {arguments.output}")
