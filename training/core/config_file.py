"""Command-line options from a TOML file, named as the flags; flags take precedence."""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from weftwork.datasets.readers.errors import UserError, nearest

FLAG = "--config"


def set_defaults(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Sets a parser's defaults from the file that `--config` names.

    Args:
        parser: with all options of the command.
        arguments: command line that the parser will parse.

    Raises:
        ValueError: an unreadable file, an unknown option, or an invalid value of one.
    """
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    finder.add_argument(FLAG, type=Path, nargs="?")
    path = finder.parse_known_args(arguments)[0].config
    if path is None:
        return
    known = {flag: action for action in parser._actions for flag in action.option_strings}
    for name, value in _read(path).items():
        if (action := known.get(f"--{name}")) is None or f"--{name}" == FLAG:
            hint = nearest(name, (one.removeprefix("--") for one in known), "see --help for all options")
            raise UserError(f"{path}: unknown option {name!r}; {hint}")
        try:
            action.default = _value(action, value)
        except ValueError as error:
            shown = str(value).lower() if isinstance(value, bool) else repr(value)
            raise UserError(f"{path}: got {shown} for {name!r}, {error}") from error
        action.required = False


def _read(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read as TOML ({error}); correct the file") from error


def _value(action: argparse.Action, value: object) -> object:
    """Parses a value as its flag would; errors name the expected value."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise UserError("expected true or false; write one of them")
        return value
    if isinstance(value, list) and action.nargs in ("*", "+"):
        return [_scalar(action, one) for one in value]
    one = _scalar(action, value[0] if isinstance(value, list) and len(value) == 1 else value)
    return [one] if action.nargs in ("*", "+") else one


def _scalar(action: argparse.Action, value: object) -> object:
    if isinstance(value, bool):
        raise UserError("which takes a value; write one")
    if not isinstance(value, str | int | float):
        raise UserError("expected a number, a text or a list; write one of these")
    kind = action.type if callable(action.type) else str
    try:
        parsed = kind(str(value))
    except ValueError:
        raise UserError(f"expected {getattr(kind, '__name__', 'another value')}; correct it") from None
    if action.choices is not None and parsed not in action.choices:
        raise UserError(f"expected one of {', '.join(map(str, action.choices))}; write one of these")
    return parsed
