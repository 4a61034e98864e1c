"""Safe reader of image files: returns RGB or grey images, or raises one-line errors.

All images are converted to one convention: 8 bits, upright, the first frame, transparency composited on white. 16 bits
are scaled, never clipped. Formats that run programs or have no pixels (EPS, PDF, SVG) are rejected. A sketch is dark
strokes on a light ground, in one channel.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from weftwork.datasets.readers.errors import UserError

Mode = Literal["RGB", "L"]
Ink = Literal["auto", "dark", "light"]

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS: Final = 64_000_000
MIN_CONTRAST: Final = 16
MAX_ASPECT: Final = 16
BICUBIC: Final = Image.Resampling.BICUBIC

# stroke regions are computed on a grid of at most this many cells a side, and lengths are in its cells
REGION_CELLS: Final = 128
CLOSINGS: Final = (1, 4, 12)
CLOSED_SHARE: Final = 0.7
MARGIN: Final = 1
SOFTNESS: Final = 1.0


def read_image(path: str | Path, mode: Mode = "RGB", *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image file: upright, 8 bits a channel, on white.

    Raises:
        ValueError: the file is missing, not an image, damaged, cut short, or holds more than ``max_pixels``.
    """
    if not os.path.isfile(path):
        raise UserError(f"image: got no file at {str(path)!r}, expected an image; check the path")
    return as_image(decode(path, f"image: got {str(path)!r}", max_pixels), mode, name=f"image {str(path)!r}")


def read_sketch(path: str | Path, ink: Ink = "auto", *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads a sketch file as dark strokes on a light ground; see ``as_sketch``."""
    return as_sketch(read_image(path, "L", max_pixels=max_pixels), ink, name=f"sketch {str(path)!r}")


def as_image(image: Image.Image, mode: Mode = "RGB", *, name: str = "image") -> Image.Image:
    """Converts an image of any mode to RGB or grey: 16 bits and floats scaled to 8, transparency composited on
    white."""
    if mode not in ("RGB", "L"):
        raise UserError(f"mode: got {mode!r}, expected 'RGB' or 'L'; pass one of these")
    if 0 in image.size:
        raise UserError(f"{name}: got {_by(image)} pixels, expected at least 1x1; pass another image")
    if image.mode.startswith(("I", "F")):
        image = _scaled_to_8_bits(image, name)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB").convert(mode)


def as_sketch(image: Image.Image, ink: Ink = "auto", *, name: str = "sketch") -> Image.Image:
    """Converts an image to a sketch: one channel, dark strokes on a light ground.

    Args:
        ink: whether the strokes are "dark" or "light"; light ones are inverted. "auto" takes the median of the
            image's border for the ground, and the strokes for light when the ground is nearer its darkest tone
            than its lightest.

    Raises:
        ValueError: there are no strokes; all is one tone.
    """
    if ink not in ("auto", "dark", "light"):
        raise UserError(f"ink: got {ink!r}, expected 'auto', 'dark' or 'light'; pass one of these")
    grey = as_image(image, "L", name=name)
    values = np.asarray(grey)
    darkest, lightest = int(values.min()), int(values.max())
    if lightest - darkest < MIN_CONTRAST:
        raise UserError(
            f"{name}: got one tone all over ({darkest} to {lightest} of 255), expected strokes on a plain ground; "
            "draw some (light strokes on a transparent ground vanish on white)"
        )
    light = ink == "light" or (ink == "auto" and _ground(values) < (darkest + lightest) / 2)
    return ImageOps.invert(grey) if light else grey


def letterbox(
    image: Image.Image, size: int | tuple[int, int], fill: str | int | tuple[int, int, int] = "white"
) -> Image.Image:
    """Resizes an image with its aspect kept, centred on a canvas of a size (a side, or width and height)."""
    size = (size, size) if isinstance(size, int) else size
    scale = min(side / old for side, old in zip(size, image.size, strict=True))
    width, height = (max(1, round(old * scale)) for old in image.size)
    canvas = Image.new(image.mode, size, fill)
    canvas.paste(image.resize((width, height), BICUBIC), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def center_crop(image: Image.Image, size: int = 224, shortest_edge: int = 256) -> Image.Image:
    """Crops the middle of an image: shortest edge resized, then a square cut out, with 6 % of each margin lost.

    Source: preprocessing of facebook/dinov2-base, which LOTS (arXiv 2507.22627) uses for sketches.
    Differs: an image longer than ``MAX_ASPECT`` times its short edge loses its ends before the resizing.
    """
    reach = MAX_ASPECT * min(image.size)
    image = _crop(image, min(image.width, reach), min(image.height, reach))
    short = min(image.size)
    resized = image.resize((shortest_edge * image.width // short, shortest_edge * image.height // short), BICUBIC)
    return _crop(resized, size, size)


def compose_sketches(sketches: Sequence[Image.Image]) -> Image.Image:
    """Composes several sketches of one canvas: every pixel about as dark as in the darkest sketch.

    Each sketch is inverted and pasted through itself on black, and the whole inverted, as LOTS composes its global
    sketch. A sketch of another size than the first is stretched to it.
    """
    canvas = Image.new("L", sketches[0].size, 0)
    for sketch in sketches:
        strokes = ImageOps.invert(sketch if sketch.size == canvas.size else sketch.resize(canvas.size, BICUBIC))
        canvas.paste(strokes, mask=strokes)
    return ImageOps.invert(canvas)


def stroke_region(sketch: Image.Image) -> Float[np.ndarray, "height width"]:
    """Computes a soft mask of a sketch's subject (dark strokes, see ``as_sketch``): 1 inside, falling to 0 around.

    Gaps in the strokes are closed, enclosed areas are filled, and the strokes are added with a margin. Of three
    closings, the finest is used that encloses about as much as the widest, so that complete outlines keep their
    concavities and broken ones are filled. An outline that leaves the canvas is closed along its edge.
    """
    ink = _ink(np.asarray(as_image(sketch, "L", name="sketch")))
    for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
        touched = np.flatnonzero(edge)
        if touched.size:
            edge[touched[0] : touched[-1]] = True
    region = _grown(ink, MARGIN)
    if ink.any():
        rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        region[box] |= _filled(ink[box], max(ink.shape) / REGION_CELLS)
    soft = _mask_image(region).filter(ImageFilter.GaussianBlur(SOFTNESS)).resize(sketch.size, Image.Resampling.BILINEAR)
    return np.asarray(soft, np.float32) / 255


def decode(source: str | Path | BinaryIO, place: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes the first frame of an image, upright.

    Args:
        place: beginning of errors, for example "image: got 'a.png'".
    """
    with opened(source, place, max_pixels) as image, _failing_in_one_way(place):
        image.load()
        return _upright(image)


@contextmanager
def opened(source: str | Path | BinaryIO, place: str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Opens an image and checks format and size, without reading pixels; the arguments are `decode`'s."""
    with _failing_in_one_way(place):
        image = Image.open(source, formats=FORMATS)
    with image:
        if image.width * image.height > max_pixels:
            raise UserError(
                f"{place} with {image.width}x{image.height} pixels, expected at most {max_pixels}; scale it down"
            )
        yield image


@contextmanager
def _failing_in_one_way(place: str) -> Iterator[None]:
    """Turns all errors and warnings of decoders into one error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "unknown format" if unknown else " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{place}, which cannot be read ({reason}), expected a whole {', '.join(FORMATS)} file; export it "
                "again, for example as PNG"
            ) from error


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; without a readable one returns the image as stored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image.copy()


def _scaled_to_8_bits(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    limit = 1 if image.mode == "F" else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= limit):
        raise UserError(
            f"{name}: got values from {low} to {high} in mode {image.mode}, expected 0 to {limit}; save it with 8 bits"
        )
    grey = np.rint(values * (255 / limit)).astype(np.uint8)
    clear = image.info.get("transparency")
    return Image.fromarray(grey if clear is None else np.where(values == clear, np.uint8(255), grey))


def _crop(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _by(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _ground(values: UInt8[np.ndarray, "height width"]) -> float:
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    return float(np.median(border))


def _ink(values: UInt8[np.ndarray, "height width"]) -> Bool[np.ndarray, "rows columns"]:
    """Mask of cells with a stroke: their darkest pixel differs from the ground."""
    ground, shrink = _ground(values), min(1, REGION_CELLS / max(values.shape))
    for axis, length in enumerate(values.shape):
        cells = max(1, round(length * shrink))
        values = np.minimum.reduceat(values, np.arange(cells) * length // cells, axis=axis)
    contrast = ground - values.astype(np.float32)
    return contrast > 0.3 * max(contrast.max(), MIN_CONTRAST)


def _filled(ink: Bool[np.ndarray, "rows columns"], scale: float) -> Bool[np.ndarray, "rows columns"]:
    """Mask of the area enclosed by strokes, by the finest closing that encloses about as much as the widest."""
    *finer, widest = (round(radius * scale) for radius in CLOSINGS)
    most = _enclosed(ink, widest)
    for radius in finer:
        region = _enclosed(ink, radius)
        if np.count_nonzero(region) >= CLOSED_SHARE * np.count_nonzero(most):
            return region
    return most


def _enclosed(ink: Bool[np.ndarray, "rows columns"], radius: int) -> Bool[np.ndarray, "rows columns"]:
    """Dilates strokes by a radius, fills areas without a path from outside, and erodes by the same radius."""
    around = radius + 1
    outside = _reached(~_grown(np.pad(ink, around), radius))
    return ~_grown(outside, radius)[around:-around, around:-around]


def _grown(mask: Bool[np.ndarray, "rows columns"], radius: int) -> Bool[np.ndarray, "rows columns"]:
    """Dilates a mask with a square of this radius."""
    for radii in ((radius, 0), (0, radius)):
        mask = np.asarray(_mask_image(mask).filter(ImageFilter.BoxBlur(radii))) > 0
    return mask


def _reached(free: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Flood fill: free cells that are connected with the border, which is free, along rows and columns."""
    seen = np.zeros_like(free)
    seen[0] = True
    known = 0
    while (count := np.count_nonzero(seen)) > known:
        known = count
        for _ in range(4):
            seen, free = np.rot90(_walked_down(seen, free)), np.rot90(free)
    return seen


def _walked_down(
    seen: Bool[np.ndarray, "rows columns"], free: Bool[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Mask of seen cells and of the cells below them without a wall in between."""
    rows, none = np.arange(len(free), dtype=np.int16)[:, None], np.int16(-1)
    last_seen = np.maximum.accumulate(np.where(seen, rows, none), axis=0)
    last_wall = np.maximum.accumulate(np.where(free, none, rows), axis=0)
    return last_seen > last_wall


def _mask_image(mask: Bool[np.ndarray, "rows columns"]) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
