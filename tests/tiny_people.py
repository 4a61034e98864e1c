"""A tarball of tiny parts of people, each variant a bar of its own height."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_packages import pack

from weftwork.datasets.drawings import sets
from weftwork.datasets.people import parts


def bars(variants: Iterable[str], color: str, left: int) -> dict[str, Any]:
    """A component whose variants are bars of this colour."""

    def bar(height: int) -> dict[str, Any]:
        attributes = {"x": left, "y": 0, "width": 6, "height": height, "fill": {"type": "color", "name": color}}
        return {"type": "element", "name": "rect", "attributes": attributes}

    return {"variants": {name: {"elements": [bar(2 + 2 * i)]} for i, name in enumerate(variants)}}


def people_folder(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Writes the tarball, which is the pinned one from then on."""

    def whole(color: str, top: int) -> dict[str, Any]:
        attributes = {"x": 0, "y": top, "width": 64, "height": 32, "fill": {"type": "color", "name": color}}
        return {"type": "element", "name": "rect", "attributes": attributes}

    def placed(name: str, left: int) -> dict[str, Any]:
        return {"type": "component", "name": name, "attributes": {"transform": f"translate({left} 4)"}}

    elements = [
        whole("skin", 0),
        whole("clothing", 32),
        placed("head", 4),
        placed("expression", 24),
        placed("mask", 44),
    ]
    components = {
        "head": bars(parts.HAIR.values(), "headContrast", 0),
        "expression": bars(parts.EXPRESSIONS.values(), "ink", 0),
        "mask": bars(["respirator"], "ink", 0),
    }
    definition = {"canvas": {"width": 64, "height": 64, "elements": elements}, "components": components}
    digest = pack(folder / sets.PEOPLE.file_name, {parts.DEFINITION: definition})
    patch.setattr(parts, "PEOPLE", replace(sets.PEOPLE, integrity=digest))
    parts.open_parts.cache_clear()
    return folder
