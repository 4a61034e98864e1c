"""Fields of conditions in records, the JSON objects of design files: kinds of values, their checks and schemas."""

import dataclasses
import math
import os
import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeGuard

from PIL import Image

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.inline_images import as_text
from weftwork.datasets.readers.texts import check_characters

Locate = Callable[[str], Path | Image.Image]
"""Function from the path or data URI of an image in a record to a file or an image; raises `ValueError`."""
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
    """Text; with `empty` also empty text."""

    empty: bool = False

    def read(self, value: object, locate: Locate) -> str:
        if not isinstance(value, str):
            raise UserError(f"got {short(value)}, expected words; write some, in quotes")
        return check_characters(value)

    def schema(self) -> Schema:
        return {"type": "string"} | ({} if self.empty else {"pattern": "\\S"})


@dataclass(frozen=True)
class ImageKind(Kind):
    """The path of an image, relative to the file, or an image in a data URI."""

    def read(self, value: object, locate: Locate) -> Path | Image.Image:
        if not isinstance(value, str):
            raise UserError(f"got {short(value)}, expected the path of an image; write one, in quotes")
        return _found(value, locate, "an image")

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class PathKind(Kind):
    """The path of a file or folder, relative to the file."""

    def read(self, value: object, locate: Locate) -> Path:
        if not isinstance(value, str) or not value:
            raise UserError(f"got {short(value)}, expected a path; write one")
        path = locate(value)
        if not isinstance(path, Path) or not path.exists():
            raise UserError(f"got nothing at {short(str(path))}, expected a file or folder; check the path")
        return path

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class WholeKind(Kind):
    """A whole number in a range, where `multiple` is given a multiple of it."""

    minimum: int
    maximum: int
    multiple: int = 1

    def read(self, value: object, locate: Locate) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.minimum <= value <= self.maximum:
            expected = f"a whole number from {self.minimum} to {self.maximum}"
            raise UserError(f"got {short(value)}, expected {expected}; change it")
        if value % self.multiple:
            nearest = value // self.multiple * self.multiple
            raise UserError(f"got {value}, expected a multiple of {self.multiple}; use {nearest} or leave it out")
        return value

    def schema(self) -> Schema:
        limits = {"minimum": self.minimum, "maximum": self.maximum}
        return {"type": "integer", **limits} | ({} if self.multiple == 1 else {"multipleOf": self.multiple})


@dataclass(frozen=True)
class NumberKind(Kind):
    """A number; the condition checks its range, the schema shows it to editors, with one value that is no choice."""

    minimum: float | None = 0.0
    maximum: float | None = None
    excluded: float | None = None

    def read(self, value: object, locate: Locate) -> float:
        if not is_number(value):
            raise UserError(f"got {short(value)}, expected a number; write one, without quotes")
        return value

    def schema(self) -> Schema:
        limits = {"minimum": self.minimum, "maximum": self.maximum}
        given = {name: value for name, value in limits.items() if value is not None}
        return {"type": "number", **given} | ({} if self.excluded is None else {"not": {"const": self.excluded}})


@dataclass(frozen=True)
class ChoiceKind(Kind):
    """One of several words; the condition rejects others."""

    options: Sequence[str]

    def read(self, value: object, locate: Locate) -> str:
        if not isinstance(value, str):
            raise UserError(f"got {short(value)}, expected one of {', '.join(self.options)}; write one, in quotes")
        return value

    def schema(self) -> Schema:
        return {"enum": list(self.options)}


@dataclass(frozen=True)
class SharesKind(Kind):
    """Numbers by name; with `alone` also a single name."""

    alone: bool = False
    maximum: float | None = None

    def read(self, value: object, locate: Locate) -> Any:
        if self.alone and isinstance(value, str):
            return value
        if not (isinstance(value, dict) and all(map(is_number, value.values()))):
            expected = f"{'a name, or ' if self.alone else ''}numbers by name"
            raise UserError(f'got {short(value)}, expected {expected}; write {{"name": 0.5}}')
        return value

    def schema(self) -> Schema:
        shares = {"type": "object", "additionalProperties": NumberKind(maximum=self.maximum).schema()}
        if not self.alone:
            return shares
        named = {"minProperties": 1, "propertyNames": {"minLength": 1}, "not": {"additionalProperties": {"const": 0}}}
        return {"anyOf": [{"type": "string", "minLength": 1}, {**shares, **named}]}


@dataclass(frozen=True)
class RegionKind(Kind):
    """A box in fractions of the canvas or the path of a mask; with `sketch` also the word "sketch"."""

    sketch: bool = False

    def read(self, value: object, locate: Locate) -> Any:
        if isinstance(value, list) and all(map(is_number, value)):
            return value
        expected = ('"sketch", ' if self.sketch else "") + "[left, top, right, bottom] or the path of a mask"
        if not isinstance(value, str):
            raise UserError(f"got {short(value)}, expected {expected}; use one of these or leave it out")
        return value if value == "sketch" else _found(value, locate, expected)

    def schema(self) -> Schema:
        first, second = ({"type": "number", "minimum": 0, "maximum": 1, "not": {"const": end}} for end in (1, 0))
        path = {"type": "string", "minLength": 1} | ({} if self.sketch else {"not": {"const": "sketch"}})
        box = {"type": "array", "prefixItems": [first, first, second, second], "items": False, "minItems": 4}
        return {"anyOf": [path, box]}


@dataclass(frozen=True)
class RecordField:
    """Metadata of a field that records have.

    Args:
        kind: kind of its value.
        help: one sentence for the schema and the demo.
        key: in records, where it differs from the field's name.
    """

    kind: Kind
    help: str
    key: str | None = None


def recorded(kind: Kind, help: str, key: str | None = None) -> dict[str, RecordField]:
    """Returns the `metadata` of a dataclass field in records."""
    return {"record": RecordField(kind, help, key)}


class Recorded:
    """Base of dataclasses that design files hold as JSON objects; fields made by `recorded` are their keys."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Keys of which at least one is required; they identify the class of a condition."""

    @classmethod
    def record_fields(cls) -> dict[str, tuple[str, RecordField]]:
        """Returns field names and `RecordField`s by key of a record, keys in `needs` first."""
        found = {one.name: one.metadata.get("record") for one in _fields(cls)}
        keyed = {record.key or name: (name, record) for name, record in found.items() if record is not None}
        return dict(sorted(keyed.items(), key=lambda one: one[0] not in cls.needs))

    @classmethod
    def required_keys(cls) -> list[str]:
        """Returns the required keys."""
        missing = dataclasses.MISSING
        bare = {one.name for one in _fields(cls) if one.default is missing and one.default_factory is missing}
        return [key for key, (name, _) in cls.record_fields().items() if name in bare or cls.needs == (key,)]

    @classmethod
    def from_record(cls, record: object, locate: Locate) -> Self:
        """Makes an instance from an object of a design file; null counts as left out.

        Args:
            locate: finds the file of a path.

        Raises:
            ValueError: not an object, an unknown key, a value of the wrong type, a file that cannot be found or read;
                and as for the class.
        """
        known = cls.record_fields()
        if not isinstance(record, Mapping):
            raise UserError(f"got {short(record)}, expected an object with {', '.join(known)}; write {{…}}")
        if unknown := [key for key in record if key not in known]:
            names = ", ".join(map(repr, unknown))
            raise UserError(f"got the unknown key {names}, expected {', '.join(known)}; rename or drop it")
        given = {key: value for key, value in record.items() if value is not None}
        for key in cls.required_keys():
            if key not in given:
                raise UserError(f'{key}: got none, expected one; add "{key}": …')
        values: dict[str, Any] = {}
        for key, value in given.items():
            name, entry = known[key]
            try:
                values[name] = entry.kind.read(value, locate)
            except ValueError as error:
                nested = str(error).startswith(("[", "."))  # the place in a list or object
                raise UserError(f"{key}{'' if nested else ': '}{error}") from error
        if cls.needs and not any(key in given for key in cls.needs):
            raise UserError(f"got {short(dict(record))}, expected at least one of {', '.join(cls.needs)}; add it")
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """Returns the object that `from_record` reads as this instance: images as data URIs, defaults left out."""
        found, known = {}, {one.name: one for one in _fields(type(self))}
        for key, (name, _) in self.record_fields().items():
            value, one = getattr(self, name), known[name]
            default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
            if value is not default and value != default:
                found[key] = _plain(value)
        return found

    @classmethod
    def schema(cls) -> Schema:
        """Returns the JSON schema of a record."""
        required = cls.required_keys()
        defaults = {one.name: one.default for one in _fields(cls) if isinstance(one.default, str | int | float)}
        properties = {}
        for key, (name, entry) in cls.record_fields().items():
            schema = entry.kind.schema() if key in required else nullable(entry.kind.schema())
            default = {"default": defaults[name]} if name in defaults else {}
            properties[key] = {"description": entry.help, **schema, **default}
        doc = (cls.__doc__ or cls.__name__).strip().splitlines()[0]
        schema = {"title": cls.__name__, "description": doc, "type": "object", "additionalProperties": False}
        given = [{"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in cls.needs]
        schema |= {"required": required} if required else {"anyOf": given} if given else {}
        return schema | {"properties": properties}


def _found(text: str, locate: Locate, expected: str) -> Path | Image.Image:
    """Returns the image or the file of a text; `ValueError` if there is none."""
    found = locate(text)
    if isinstance(found, Path) and not os.path.isfile(found):  # is_file raises for names that are too long
        raise UserError(f"got no file at {str(found)!r}, expected {expected}; check the path")
    return found


def _plain(value: object) -> object:
    """Returns the value of a field as JSON."""
    if isinstance(value, Recorded):
        return value.record()
    if isinstance(value, Image.Image):
        return as_text(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]


def nullable(schema: Schema) -> Schema:
    """Returns the schema that also admits null."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if "type" in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that a float can hold: JSON's whole numbers have any number of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def is_finite(value: object) -> bool:
    return is_number(value) and math.isfinite(value)


def check_guidance(scale: object) -> None:
    """Raises `ValueError` unless a guidance scale is a finite number of at least 0."""
    if not (is_number(scale) and 0 <= scale < math.inf):
        raise UserError(
            f"guidance_scale: got {short(scale)}, expected a finite number of at least 0; 1 turns guidance off"
        )


def short(value: object) -> str:
    """Returns a value for an error text, shortened."""
    return reprlib.repr(value)
