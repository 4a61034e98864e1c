"""Errors that users can fix; commands show them as one line, without a traceback."""

import difflib
from collections.abc import Iterable
from importlib.util import find_spec


class UserError(ValueError):
    """Invalid input of the user: "name: got X, expected Y; remedy"."""


class NotFiniteError(UserError, FloatingPointError):
    """A training step or a generation gave NaN or infinite numbers."""


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Returns the remedy for an unknown name: the nearest of the known ones, or `otherwise`."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def check_installed(user: str, *packages: str) -> None:
    """Raises `ValueError` unless optional packages, named as their modules, are installed for `user`."""
    for package in packages:
        if find_spec(package) is None:
            raise UserError(f"{user}: needs {package}, which is not installed; pip install {package}")


def check_counts(**counts: int) -> None:
    """Raises `ValueError` unless these numbers are 1 or more, naming the first that is not."""
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name}: got {count}, expected at least 1; raise it")


def check_choice(name: str, value: object, options: Iterable[object]) -> None:
    """Raises `ValueError` unless a value is one of the options."""
    if value not in (options := tuple(options)):
        raise UserError(f"{name}: got {value!r}, expected one of {', '.join(map(str, options))}; pass one of these")
