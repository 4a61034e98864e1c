"""The command `weftwork`: a word for each thing it does, in a module of its own that is imported only when chosen."""

import argparse
import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Final

COMMANDS: Final[Mapping[str, str]] = {
    "generate": "a picture from a design file",
    "demo": "open a page in the browser to draw, describe and generate on",
    "sound": "stereo sound for a video, or for boxes over time",
    "train": "train an adapter on pictures of your own",
    "evaluate": "measure a shipped method against its baselines",
    "inspect": "what an adapter is: method, base, layers, parameters, where it comes from",
    "convert": "others' checkpoints to adapter folders, and back",
    "benchmark": "time and memory, as ratios of one run",
    "report": "one page of all that was measured",
}
MODULES: Final[Mapping[str, str]] = {
    "benchmark": "benchmarks.command",
    "convert": "converters.command",
    "demo": "demo.command",
    "inspect": "inspect_folder",
    "train": "train.command",
}
"""By command, where its module has another name."""
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 when all went well, 2 after bad input (one message on standard error), 130 after an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    module = _module(chosen) if chosen is not None and chosen in commands() else None
    expand = getattr(module, "expanded", list)

    def run() -> int | None:
        parsed = _parser(chosen, module).parse_args(expand(arguments))
        assert module is not None
        return module.run(parsed)

    return _guarded(run, show_traceback="--traceback" in arguments)


def commands() -> dict[str, str]:
    """The commands of this installation, with a line about each."""
    return {name: text for name, text in COMMANDS.items() if importlib.util.find_spec(_path(name))}


def _module(name: str) -> ModuleType:
    return importlib.import_module(_path(name))


def _path(name: str) -> str:
    return f"weftwork.scripts.{MODULES.get(name, name)}"


def _parser(chosen: str | None, module: ModuleType | None) -> argparse.ArgumentParser:
    """All commands by name, and the arguments of the chosen one."""
    parser = argparse.ArgumentParser(prog="weftwork", description="Sketches, words and other conditions for diffusion.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    several = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, text in commands().items():
        description = module.__doc__ if module is not None and name == chosen else text
        one = several.add_parser(
            name, help=text, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if module is not None and name == chosen:
            module.add_arguments(one)
        one.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _guarded(run: Callable[[], int | None], *, show_traceback: bool) -> int:
    """Run with weftwork's messages shown, and what users can mend told in one message."""
    logger, handler = logging.getLogger("weftwork"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return run() or 0
    except KeyboardInterrupt:
        print("weftwork: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, RuntimeError, FloatingPointError, OSError) as error:
        if show_traceback:
            traceback.print_exc()
        print(f"weftwork: {error}", file=sys.stderr)
        return BAD_INPUT
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
