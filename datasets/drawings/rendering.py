"""Rendering of SVG drawings by resvg, an optional dependency."""

import io
from types import ModuleType

import numpy as np
from PIL import Image

from weftwork.datasets.readers.errors import check_installed

Rgba = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
Gray = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


def render(svg: str, size: int) -> Rgba:
    """RGBA of `size` by `size` pixels, the drawing centred and transparency kept."""
    large = 2 * size  # resvg draws the edges of filtered shapes without anti-aliasing
    data = _resvg().svg_to_bytes(svg_string=svg, width=large, height=large)
    image = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    image.thumbnail((size, size), Image.Resampling.BOX)
    square = Image.new("RGBA", (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.array(square)


def on_white(image: Rgba) -> Gray:
    """Brightness over a white ground."""
    ground = Image.new("RGBA", (image.shape[1], image.shape[0]), "white")
    ground.alpha_composite(Image.fromarray(image))
    return np.array(ground.convert("L"))


def _resvg() -> ModuleType:
    check_installed("drawings", "resvg_py")
    import resvg_py

    return resvg_py
