"""Command line `weftwork`; each command is a module, imported only when used."""

import argparse
import functools
import importlib
import importlib.util
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Final

from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.lazy_parser import LazyParser
from weftwork.training.core.interruptions import terminable

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "generate": ("generate", "an image from a design file"),
    "demo": ("demo.command", "open a page in the browser to draw, describe and generate"),
    "sound": ("sound", "stereo audio for a video, or for boxes over time"),
    "view": ("view", "the view of another camera from a photograph and its depth"),
    "render": ("render", "posed views of OpenArena's maps, to train on"),
    "train": ("train", "train a method on your own data"),
    "evaluate": ("evaluate", "measure a method against its baselines"),
    "inspect": ("inspect_folder", "describe an adapter: method, base, layers, parameters, training"),
    "convert": ("convert", "convert checkpoints of other projects to adapter folders, and back"),
    "benchmark": ("benchmarks.command", "time and memory, as ratios of one run"),
    "report": ("report", "one page of all evaluations and benchmarks"),
}
"""Module and description by command."""
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
ROUTINE: Final[Mapping[str, str]] = {
    "transformers.utils.import_utils": "requires torchvision",
    "diffusers.models.modeling_utils": "that should be kept in float32: []",
    "diffusers.loaders.lora_base": "No LoRA keys associated to",
}
"""By logger a part of warnings that libraries give whatever a user does; they stay out of the output."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 on success, 2 after a user error (`UserError`, or `OSError` of unreadable or unwritable files; printed as one
        message on standard error), 130 after an interruption.

    Raises:
        Exception: any other error; the process prints its traceback and exits with 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run() -> int | None:
        parsed = _parser().parse_args(arguments)
        return parsed.run(parsed)

    return _guarded(run, show_traceback="--traceback" in arguments)


def commands() -> dict[str, str]:
    """Returns the installed commands with their descriptions."""
    return {name: text for name, (module, text) in COMMANDS.items() if importlib.util.find_spec(_path(module))}


def _path(module: str) -> str:
    return f"weftwork.scripts.{module}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weftwork", description="Sketches, text and other conditions for diffusion.")
    parser.add_argument("--version", action="version", version=f"weftwork {version('weftwork')}")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of user errors")
    several = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=LazyParser)
    for name, text in commands().items():
        fill = functools.partial(_fill, COMMANDS[name][0])
        one = several.add_parser(name, help=text, fill=fill)
        one.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _fill(name: str, parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    module = importlib.import_module(_path(name))
    parser.description = module.__doc__
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def _guarded(run: Callable[[], int | None], *, show_traceback: bool) -> int:
    """Runs a command with logging to standard error; user errors are one message, SIGTERM cleans up."""
    logger, handler = logging.getLogger("weftwork"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for name in ROUTINE:
        logging.getLogger(name).addFilter(_is_unusual)
    try:
        with terminable(), warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):  # for those who write code with a library
                warnings.simplefilter("ignore", kind)
            return run() or 0
    except KeyboardInterrupt:
        print("weftwork: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        if show_traceback:
            traceback.print_exc()
        print(f"weftwork: {error}", file=sys.stderr)
        return BAD_INPUT
    finally:
        for name in ROUTINE:
            logging.getLogger(name).removeFilter(_is_unusual)
        logger.removeHandler(handler)
        logger.setLevel(level)


def _is_unusual(record: logging.LogRecord) -> bool:
    return ROUTINE[record.name] not in record.getMessage()


if __name__ == "__main__":
    sys.exit(main())
