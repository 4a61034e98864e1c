"""Describe an adapter folder or a style card from its config and safetensors headers, without loading weights.

weftwork inspect outputs/mine/final
weftwork inspect paired
"""

import argparse
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.json_object import read_json
from weftwork.pretrained import located

SUFFIX = ".safetensors"
MOST_HEADER = 100_000_000
"""Largest header of the safetensors format, in bytes."""
CONFIGS = ("config.json", "model_index.json", "adapter/config.json")
"""Config files of a folder, by precedence."""
SHOWN = ("base", "layers", "training")
"""Config keys that are shown apart from the options."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork inspect`."""
    parser.add_argument("folder", help="a folder of safetensors, a safetensors file, or the name of a shipped model")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints the description."""
    found = describe(located(arguments.folder))
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(_lines(found)))


def describe(path: Path) -> dict[str, Any]:
    """Returns class, base, layers, sizes, options and metadata of a folder or file.

    Raises:
        ValueError: no safetensors found, or invalid JSON or safetensors files.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob(f"*{SUFFIX}") if p.is_file())
    if not files:
        raise UserError(f"{path}: no safetensors files found; see `weftwork convert`")
    headers = {str(file.relative_to(path)) if file != path else file.name: _header(file) for file in files}
    config: dict[str, Any] = next((read_json(path / name) for name in CONFIGS if (path / name).is_file()), {})
    dtypes = sorted({one["dtype"] for header in headers.values() for one in _tensors(header)})
    card = _metadata(next(iter(headers.values()))) if path.is_file() else {}
    return {
        "path": str(path),
        "class": config.get("_class_name"),
        "base": config.get("base") or card.get("base"),
        "layers": config.get("layers"),
        "files": {
            name: {"bytes": (path / name if path.is_dir() else path).stat().st_size, "parameters": _size(header)}
            for name, header in headers.items()
        },
        "parameters": sum(map(_size, headers.values())),
        "dtypes": dtypes,
        "options": {key: value for key, value in config.items() if not key.startswith("_") and key not in SHOWN},
        "training": config.get("training"),
        "metadata": {key: value for key, value in card.items() if key != "base"},
    }


def _header(path: Path) -> dict[str, Any]:
    """Reads the JSON header of a safetensors file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MOST_HEADER:
                raise UserError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
    except (OSError, struct.error, ValueError) as error:
        raise UserError(f"{path}: got no valid safetensors ({error}); copy or convert it again") from error
    if not (isinstance(header, dict) and all(map(_is_entry, header.items()))):
        raise UserError(f"{path}: got an invalid header, expected tensors by name; copy or convert it again")
    return header


def _is_entry(item: tuple[str, Any]) -> bool:
    name, value = item
    if not isinstance(value, dict):
        return False
    if name == "__metadata__":
        return all(isinstance(text, str) for text in value.values())
    shape = value.get("shape")
    return isinstance(value.get("dtype"), str) and isinstance(shape, list) and all(type(side) is int for side in shape)


def _metadata(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata of a header; values that are JSON objects are parsed and merged."""
    found: dict[str, Any] = {}
    for name, text in header.get("__metadata__", {}).items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found |= value if isinstance(value, dict) else {name: value}
    return found


def _tensors(header: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [value for name, value in header.items() if name != "__metadata__"]


def _size(header: Mapping[str, Any]) -> int:
    total = 0
    for one in _tensors(header):
        count = 1
        for side in one["shape"]:
            count *= side
        total += count
    return total


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    size = f"{found['parameters']:,} parameters, {', '.join(found['dtypes'])}"
    yield f"{found['path']}: {found['class'] or 'safetensors'}, {size}"
    for name, file in found["files"].items():
        yield f"  {name}: {file['bytes'] / 1e6:.2f} MB, {file['parameters']:,} parameters"
    if found["base"]:
        base = found["base"]
        yield "base: " + (", ".join(f"{k} {v}" for k, v in base.items()) if isinstance(base, dict) else str(base))
    if isinstance(found["layers"], str):
        yield f"layers: {found['layers']}"
    elif found["layers"]:
        yield f"layers: {len(found['layers'])}"
        yield from (f"  {name}: {width}" for name, width in found["layers"].items())
    for title in ("options", "metadata", "training"):
        if found[title]:
            yield f"{title}:"
            yield from (f"  {key}: {value}" for key, value in found[title].items())
