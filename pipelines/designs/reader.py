"""Reader of design files, single ones and many in one file, and their JSON schema.

`python -m weftwork.pipelines.designs.reader` writes the schema of this package's own methods beside this file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from PIL import Image

from weftwork.attention_processors.core.records import Locate, Schema, short
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.inline_images import PREFIX, located
from weftwork.datasets.readers.json_object import unique_keys
from weftwork.pipelines.designs.design import NOT_BESIDE_IMAGE, OF_IMAGE, Design
from weftwork.pipelines.designs.files import stored_if_any

SCHEMA_KEY: Final = "$schema"
SCHEMA_FILE: Final = Path(__file__).with_name("design.schema.json")
NAME: Final = re.compile(r"[\w-][\w.-]{0,99}")
IMAGE_SUFFIX: Final = ".png"
"""Left out of names, which it is added to."""


def read_design(path: str | Path) -> Design:
    """Reads and checks a design, or that in an image of weftwork; `ValueError` names the place that is wrong."""
    path = Path(path)
    record = stored["design"] if (stored := stored_if_any(path)) else _parsed(_read_text(path), str(path))
    return as_design(record, partial(located, folder=path.parent), str(path))


def read_designs(path: str | Path) -> dict[str, Design]:
    """Reads and checks designs, a JSON object per line, by their `name` or line number.

    Raises:
        ValueError: lists every line that is wrong.
    """
    path = Path(path)
    designs: dict[str, Design] = {}
    wrong: list[str] = []
    lines = _read_text(path).split("\n")  # texts may hold other line separators
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            record = _parsed(line, place)
            name = record.pop("name", f"{number:06d}") if isinstance(record, dict) else ""
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                expected = "up to 100 letters, digits, -, _ and dots, none in front"
                raise UserError(f"{place}: got the name {short(name)}, expected {expected}; rename it")
            name = name.removesuffix(IMAGE_SUFFIX)
            if name in designs:
                raise UserError(f"{place}: got the name {short(name)} again, expected each once; rename one")
            designs[name] = as_design(record, partial(located, folder=path.parent), place)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError("\n  ".join([f"{path}: got lines that are wrong", *wrong]))
    if not designs:
        raise UserError(f"{path}: got no design, expected one on each line; write some")
    return designs


def as_design(record: object, locate: Locate, place: str = "design") -> Design:
    """Reads and checks the design in a JSON object.

    Args:
        locate: finds the file of a path.
        place: beginning of error texts.

    Raises:
        ValueError: as `read_design`.
    """
    known = {k: v for k, v in record.items() if k != SCHEMA_KEY} if isinstance(record, Mapping) else record
    files: list[str] = []

    def noted(text: str) -> Path | Image.Image:
        if not text.startswith(PREFIX):
            files.append(text)
        return locate(text)

    try:
        design = Design.from_record(known, noted)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error
    return replace(design, source=record, files=tuple(files))


def design_schema() -> Schema:
    """Returns the JSON schema of design files, with the conditions of all registered methods."""
    schema = Design.schema()
    ignored = {SCHEMA_KEY: {"description": "Path or address of this schema, for editors; otherwise ignored."}}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    begun = {
        "if": {"required": ["image"], "properties": {"image": {"not": {"type": "null"}}}},
        "then": {"properties": {name: {"maxItems": 0} for name in NOT_BESIDE_IMAGE}},
        "else": {"properties": {name: {"type": "null"} for name in OF_IMAGE}},
    }
    return head | schema | {"title": "weftwork design", "properties": ignored | schema["properties"]} | begun


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"design: got {str(path)!r}, which cannot be read ({error.strerror}), expected a JSON file; check the path"
        ) from error
    except UnicodeDecodeError as error:
        expected = "JSON in UTF-8, or a PNG that weftwork made"
        raise UserError(f"{path}: got a file that is not JSON ({error.reason}), expected {expected}; fix it") from error


def _parsed(text: str, place: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: got a text that is not JSON ({error}), expected an object; fix it") from error


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(design_schema(), indent=2) + "\n", encoding="utf-8")
