"""Kinds of values of designs: images that are opened, and lists."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from weftwork.attention_processors.core.records import ImageKind, Kind, Locate, Recorded, Schema, short
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image, decode

Read = TypeVar("Read")


@dataclass(frozen=True)
class ListKind(Kind):
    """A list of records of one class."""

    entry: type[Recorded]

    def read(self, value: object, locate: Locate) -> tuple[Recorded, ...]:
        return each(value, "", lambda record: self.entry.from_record(record, locate))

    def schema(self) -> Schema:
        return {"type": "array", "items": self.entry.schema()}


@dataclass(frozen=True)
class OpenedKind(ImageKind):
    """An image, which is opened."""

    def read(self, value: object, locate: Locate) -> Image.Image:
        found = super().read(value, locate)
        if isinstance(found, Path):
            return as_image(decode(found, f"got {value!r}"), name=f"image {value!r}")
        return as_image(found)


@dataclass(frozen=True)
class ImagesKind(Kind):
    """A list of images, which are opened."""

    def read(self, value: object, locate: Locate) -> tuple[Image.Image, ...]:
        return each(value, "", lambda one: OpenedKind().read(one, locate))

    def schema(self) -> Schema:
        return {"type": "array", "items": ImageKind().schema()}


def each(value: object, place: str, read: Callable[[object], Read]) -> tuple[Read, ...]:
    """Reads all records of a list, at this place."""
    if not isinstance(value, list):
        raise UserError(f"{place and place + ': '}got {short(value)}, expected a list; write [{{…}}, …]")
    found = []
    for index, record in enumerate(value):
        try:
            found.append(read(record))
        except ValueError as error:
            raise UserError(f"{place}[{index}]: {error}") from error
    return tuple(found)
