"""Maps of Quake III's engine (IBSP, version 46): textured triangles, lightmaps and places of players and items.

Source: the format's description at http://www.mralligator.com/q3.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8

from weftwork.datasets.readers.errors import UserError

METER: Final = 40.0
"""Units of a map in a metre."""
ENTITIES, TEXTURES, VERTICES, INDICES, FACES, LIGHTMAPS = 0, 1, 10, 11, 13, 14
POLYGON, PATCH, MESH = 1, 2, 3
NODRAW, SKY = 0x80, 0x4
HIDDEN: Final = ("clip", "nodraw", "trigger", "hint", "fog", "caulk", "areaportal", "skip")
"""Parts of names of textures that are not drawn."""
LIGHTMAP_SIDE: Final = 128
PATCH_STEPS: Final = 5
"""Vertices along a side of a curved patch."""
TEXTURE = np.dtype([("name", "S64"), ("flags", "<i4"), ("contents", "<i4")])
VERTEX = np.dtype([("values", "<7f4"), ("normal", "<3f4"), ("color", "4u1")])
PLACES: Final = r'"classname"\s+"(?:info_player|item_|weapon_|ammo_|team_CTF)'
Triangles = Float[np.ndarray, "corner 7"]


@dataclass(frozen=True)
class Surface:
    """Texture and lightmap that triangles of a map share.

    Args:
        texture: its name.
        lightmap: its index; -1 for none.
        sky: whether it shows the sky.
    """

    texture: str
    lightmap: int
    sky: bool


@dataclass(frozen=True, eq=False)
class Map:
    """A map in metres, y upwards.

    Args:
        triangles: by surface, three rows a triangle: position (3), texture coordinates (2), lightmap coordinates (2).
        places: of players and items.
    """

    triangles: Mapping[Surface, Triangles]
    lightmaps: UInt8[np.ndarray, "lightmap 128 128 3"]
    places: Float[np.ndarray, "place 3"]


def read_map(data: bytes, name: str) -> Map:
    """Parses a map; `ValueError` for a file of another format, or a damaged one."""
    if data[:8] != b"IBSP" + struct.pack("<i", 46):
        raise UserError(f"{name}: got a file of another format, expected a map of Quake III (IBSP 46)")
    try:
        return _parsed(data)
    except (ValueError, IndexError, struct.error) as error:
        raise UserError(f"{name}: got a damaged map ({error}); install it again") from error


def _parsed(data: bytes) -> Map:
    lumps = struct.iter_unpack("<ii", data[8 : 8 + 17 * 8])
    parts = [data[start : start + length] for start, length in lumps]
    textures, vertices = np.frombuffer(parts[TEXTURES], TEXTURE), np.frombuffer(parts[VERTICES], VERTEX)["values"]
    indices = np.frombuffer(parts[INDICES], "<i4")
    groups: dict[Surface, list[Triangles]] = {}
    for face in np.frombuffer(parts[FACES], "<i4").reshape(-1, 26):
        texture, _, kind, first, count, start, length, lightmap = (int(value) for value in face[:8])
        words = bytes(textures[texture]["name"]).partition(b"\0")[0].decode("latin1").lower()
        flags = int(textures[texture]["flags"])
        if flags & NODRAW or any(word in words for word in HIDDEN):
            continue
        if kind in (POLYGON, MESH):
            corners = vertices[first + indices[start : start + length]]
        elif kind == PATCH:
            corners = _patch(vertices[first : first + count].reshape(int(face[25]), int(face[24]), 7))
        else:
            continue
        surface = Surface(words, lightmap, "sky" in words or bool(flags & SKY))
        groups.setdefault(surface, []).append(_in_metres(corners))
    lightmaps = np.frombuffer(parts[LIGHTMAPS], np.uint8).reshape(-1, LIGHTMAP_SIDE, LIGHTMAP_SIDE, 3)
    triangles = {surface: np.concatenate(some).astype(np.float32) for surface, some in groups.items()}
    return Map(triangles, lightmaps, _places(parts[ENTITIES].decode("latin1")))


def _places(entities: str) -> Float[np.ndarray, "place 3"]:
    found = [
        [float(number) for number in origin[1].split()]
        for entity in re.findall(r"\{[^}]*\}", entities)
        if re.search(PLACES, entity) and (origin := re.search(r'"origin"\s+"([^"]+)"', entity))
    ]
    return _in_metres(np.array(found, np.float64).reshape(-1, 3))


def _in_metres(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """Turns the first three columns so that y is upwards, in metres."""
    result = values.copy()
    result[:, 0], result[:, 1], result[:, 2] = values[:, 0], values[:, 2], -values[:, 1]
    result[:, :3] /= METER
    return result


def _patch(control: Float[np.ndarray, "rows columns 7"]) -> Triangles:
    """Triangles of a patch of quadratic Bezier surfaces, 3 x 3 points each."""
    steps = np.linspace(0, 1, PATCH_STEPS)
    weights = np.stack([(1 - steps) ** 2, 2 * steps * (1 - steps), steps**2], 1)
    parts = []
    for row in range(0, control.shape[0] - 2, 2):
        for column in range(0, control.shape[1] - 2, 2):
            grid = np.einsum("ia,jb,abc->ijc", weights, weights, control[row : row + 3, column : column + 3])
            corners = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
            parts.append(np.stack([corners[i] for i in (0, 2, 1, 1, 2, 3)], 2).reshape(-1, 7))
    return np.concatenate(parts) if parts else np.zeros((0, 7))
