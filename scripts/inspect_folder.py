"""Describe an adapter folder or a style card from its config and safetensors headers, without loading weights.

weftwork inspect outputs/mine/final
weftwork inspect paired
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.folders import files_below
from weftwork.datasets.readers.json_object import read_json
from weftwork.pretrained import located
from weftwork.training.core.checkpoints import checkpoints

SUFFIX = ".safetensors"
CONFIGS = ("config.json", "model_index.json", "adapter/config.json")
"""Config files of a folder, by precedence."""
STATE = "state"
"""Folder in a checkpoint, with the weights again and the optimizer's."""
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
    """Returns class, base, layers, sizes, options and metadata of a folder or file; `ValueError` if unreadable."""
    if unfinished := checkpoints(path):
        raise UserError(f"{path}: got a run without a result; pass one of its checkpoints, {unfinished[-1]}")
    files = [path] if path.is_file() else [one for one in files_below(path) if one.name.endswith(SUFFIX)]
    files = [one for one in files if one.parent != path / STATE]
    if not path.exists():
        raise UserError(f"folder: got nothing at {str(path)!r}, expected an adapter or a shipped model; check the path")
    if not files:
        raise UserError(f"{path}: no safetensors files found; see `weftwork convert`")
    headers = {str(file.relative_to(path)) if file != path else file.name: Header.read(file) for file in files}
    config: dict[str, Any] = next((read_json(path / name) for name in CONFIGS if (path / name).is_file()), {})
    card = next(iter(headers.values())).metadata if path.is_file() else {}
    return {
        "path": str(path),
        "class": config.get("_class_name"),
        "base": config.get("base") or card.get("base"),
        "layers": config.get("layers"),
        "files": {name: {"bytes": one.bytes, "parameters": one.parameters} for name, one in headers.items()},
        "parameters": sum(one.parameters for one in headers.values()),
        "dtypes": sorted(set().union(*(one.dtypes for one in headers.values()))),
        "options": {key: value for key, value in config.items() if not key.startswith("_") and key not in SHOWN},
        "training": config.get("training"),
        "metadata": {key: value for key, value in card.items() if key != "base"},
    }


@dataclass(frozen=True)
class Header:
    """Header of a safetensors file; metadata values that are JSON objects are parsed and merged."""

    bytes: int
    parameters: int
    dtypes: set[str]
    metadata: dict[str, object]

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            with safe_open(path, "numpy") as file:
                slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118  (it is no mapping)
                texts = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: got no valid safetensors ({error}); copy or convert it again") from error
        size = sum(math.prod(one.get_shape()) for one in slices)
        return cls(path.stat().st_size, size, {one.get_dtype() for one in slices}, _parsed(texts))


def _parsed(texts: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, text in texts.items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found |= value if isinstance(value, dict) else {name: value}
    return found


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
            yield from (f"  {key}: {value}" for key, value in found[title].items() if key != "after")
    run = found["training"]
    while run := (run or {}).get("after"):
        yield "after: " + ", ".join(f"{key} {value}" for key, value in run.items() if key != "after")
