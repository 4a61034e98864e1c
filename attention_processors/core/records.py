"""Fields of conditions in records, the JSON objects of design files: kinds of values, their checks and schemas."""

import math
import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

Locate = Callable[[str], Path | Image.Image]
"""Turns the path or data URI of an image, as a record has it, into a file or an image; raises `ValueError`."""
Schema = dict[str, Any]
"""A JSON schema."""


class Kind(ABC):
    """A kind of values in records; the demo shows one widget per kind."""

    @abstractmethod
    def read(self, value: object, locate: Locate) -> Any:
        """Returns the value as the condition takes it.

        Raises:
            ValueError: "got …, expected …; remedy".
        """

    @abstractmethod
    def schema(self) -> Schema:
        """Returns the JSON schema of the value."""


@dataclass(frozen=True)
class TextKind(Kind):
    """Words."""

    def read(self, value: object, locate: Locate) -> str:
        if not isinstance(value, str):
            raise ValueError(f"got {short(value)}, expected words; quote it")
        return value

    def schema(self) -> Schema:
        return {"type": "string", "pattern": "\\S"}


@dataclass(frozen=True)
class ImageKind(Kind):
    """The path of an image, relative to the file, or a PNG in a data URI."""

    def read(self, value: object, locate: Locate) -> Path | Image.Image:
        if not isinstance(value, str):
            raise ValueError(f"got {short(value)}, expected the path of an image; quote it")
        return locate(value)

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class NumberKind(Kind):
    """A number; the condition checks its range, the schema tells editors."""

    minimum: float = 0.0
    maximum: float | None = None

    def read(self, value: object, locate: Locate) -> float:
        if not is_number(value):
            raise ValueError(f"got {short(value)}, expected a number; write it without quotes")
        return value  # pyright: ignore[reportReturnType]

    def schema(self) -> Schema:
        limits = {"minimum": self.minimum} | ({} if self.maximum is None else {"maximum": self.maximum})
        return {"type": "number", **limits}


@dataclass(frozen=True)
class ChoiceKind(Kind):
    """One of several words; the condition refuses others."""

    options: Sequence[str]

    def read(self, value: object, locate: Locate) -> str:
        if not isinstance(value, str):
            raise ValueError(f"got {short(value)}, expected one of {', '.join(self.options)}; quote it")
        return value

    def schema(self) -> Schema:
        return {"enum": list(self.options)}


@dataclass(frozen=True)
class SharesKind(Kind):
    """Numbers by name; with `alone` a single name, too."""

    alone: bool = False

    def read(self, value: object, locate: Locate) -> Any:
        if self.alone and isinstance(value, str):
            return value
        if not (isinstance(value, dict) and all(map(is_number, value.values()))):
            raise ValueError(f'got {short(value)}, expected numbers by name; write {{"name": 0.5}}')
        return value

    def schema(self) -> Schema:
        shares = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}
        return {"anyOf": [{"type": "string", "minLength": 1}, {**shares, "minProperties": 1}]} if self.alone else shares


@dataclass(frozen=True)
class RegionKind(Kind):
    """A box in fractions of the canvas or the path of a mask; with `sketch` also the word "sketch"."""

    sketch: bool = False
    expected: ClassVar[str] = 'expected "sketch", [left, top, right, bottom] or the path of a mask'

    def read(self, value: object, locate: Locate) -> Any:
        if isinstance(value, list) and all(map(is_number, value)):
            return value
        if not isinstance(value, str):
            raise ValueError(f"got {short(value)}, {self.expected}; use one of these or leave it out")
        return value if value == "sketch" else locate(value)

    def schema(self) -> Schema:
        side = {"type": "number", "minimum": 0, "maximum": 1}
        path = {"type": "string", "minLength": 1} | ({} if self.sketch else {"not": {"const": "sketch"}})
        return {"anyOf": [path, {"type": "array", "items": side, "minItems": 4, "maxItems": 4}]}


@dataclass(frozen=True)
class RecordField:
    """One field of a condition as records have it.

    Args:
        kind: of its value.
        help: one sentence for the schema and the demo.
        key: in records, where it differs from the field's name.
    """

    kind: Kind
    help: str
    key: str | None = None


def recorded(kind: Kind, help: str, key: str | None = None) -> dict[str, RecordField]:
    """Returns the `metadata` of a dataclass field that records may have."""
    return {"record": RecordField(kind, help, key)}


def is_number(value: object) -> bool:
    """Whether a value is a number that a float can hold: JSON's whole numbers have any number of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def is_finite(value: object) -> bool:
    return is_number(value) and math.isfinite(value)  # pyright: ignore[reportArgumentType]


def short(value: object) -> str:
    """The value for an error text, cut where it is long."""
    return reprlib.repr(value)
