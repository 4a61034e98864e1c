"""Options of a command in a TOML file: the same names as its flags, which go before the file's."""

import argparse
import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FLAG = "--config"


def expanded(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Arguments with the options of the file that `--config` names put before them, so that flags replace them.

    Args:
        parser: knows all options.

    Raises:
        ValueError: a file that cannot be read, a name that is no option, or a value that is no number, text, truth
            value or list of these.
    """
    rest, path = [], None
    words = iter(arguments)
    for word in words:
        if word == FLAG or word.startswith(f"{FLAG}="):
            path = word.partition("=")[2] or next(words, "")
        else:
            rest.append(word)
    if path is None:
        return rest
    known = parser._option_string_actions
    return [token for name, value in _read(Path(path)).items() for token in _tokens(name, value, known, path)] + rest


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as TOML ({error}); correct the file") from error


def _tokens(name: str, value: Any, known: dict[str, argparse.Action], path: str) -> list[str]:
    flag = f"--{name}"
    if flag not in known or flag == FLAG:
        near = difflib.get_close_matches(name, [one.removeprefix("--") for one in known], 1)
        hint = f"did you mean {near[0]!r}?" if near else "see --help for all options"
        raise ValueError(f"{path}: got the option {name!r}, which there is not; {hint}")
    if isinstance(value, bool):
        if isinstance(known[flag], argparse.BooleanOptionalAction):
            return [flag if value else f"--no-{name}"]
        if known[flag].nargs == 0:
            return [flag] if value else []
        raise ValueError(f"{path}: got {str(value).lower()} for {name!r}, which takes a value; write one")
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise ValueError(f"{path}: got {value!r} for {name!r}, expected a number, a text or a list; write one of these")
    return [f"{flag}={values[0]}"] if len(values) == 1 else [flag, *map(str, values)]
