"""An argument parser that gets its options when it is chosen, so that the others are never imported."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

Fill = Callable[[argparse.ArgumentParser, Sequence[str]], None]
"""Adds options to a parser that is about to parse these arguments."""


class LazyParser(argparse.ArgumentParser):
    """A parser of a command or of a method of a command.

    Args:
        fill: called once, before anything is parsed; may import modules, add options and set defaults.
    """

    def __init__(self, *args: Any, fill: Fill | None = None, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
        self._fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        given = list(sys.argv[1:] if args is None else args)
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self, given)
        return super().parse_known_args(given, namespace)
