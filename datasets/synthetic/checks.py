"""Checks of arguments, shared by the synthetic datasets."""

from collections.abc import Iterable

from weftwork.datasets.readers.errors import UserError


def known(name: str, value: str, options: Iterable[str]) -> None:
    """Raise unless the value is one of the options."""
    if value not in (options := tuple(options)):
        raise UserError(f"{name}: got {value!r}, expected one of {', '.join(options)}; pass one of these")
