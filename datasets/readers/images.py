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
from typing import BinaryIO, Final, Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from weftwork.datasets.readers.errors import UserError, check_choice

Mode = Literal["RGB", "L"]
Ink = Literal["auto", "dark", "light"]
INKS: Final[tuple[Ink, ...]] = get_args(Ink)

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS: Final = 64_000_000
MIN_CONTRAST: Final = 16
FADED: Final = 0.5
"""Strokes whose contrast falls below this share of the original's by resizing are thickened."""
MAX_ASPECT: Final = 16
BICUBIC: Final = Image.Resampling.BICUBIC


def read_image(path: str | Path, mode: Mode = "RGB") -> Image.Image:
    """Reads an image file: upright, 8 bits a channel, on white.

    `ValueError` if it is missing, not an image, damaged, cut short, or holds more than `MAX_PIXELS`.
    """
    return as_image(read_any(path), mode, name=f"image {str(path)!r}")


def read_any(path: str | Path, name: str = "image") -> Image.Image:
    if not os.path.isfile(path):
        raise UserError(f"{name}: got no file at {str(path)!r}, expected an image; check the path")
    return decode(path, f"{name}: got {str(path)!r}")


def read_sketch(path: str | Path, ink: Ink = "auto") -> Image.Image:
    """Reads a sketch file as dark strokes on a light ground; see ``as_sketch``."""
    return as_sketch(read_any(path, "sketch"), ink, name=f"sketch {str(path)!r}")


def as_image(image: Image.Image, mode: Mode = "RGB", *, name: str = "image") -> Image.Image:
    """Converts an image of any mode to RGB or grey: upright, 16 bits and floats scaled to 8, transparency on white."""
    check_choice("mode", mode, ("RGB", "L"))
    if 0 in image.size:
        raise UserError(f"{name}: got {image.width}x{image.height} pixels, expected at least 1x1; pass another image")
    with _failing_in_one_way(name):
        image = upright(image)
        image.load()
    if image.mode.startswith(("I", "F")):
        image = _scaled_to_8_bits(image, name)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB").convert(mode)


def as_sketch(image: Image.Image, ink: Ink = "auto", *, name: str = "sketch") -> Image.Image:
    """Converts an image to a sketch: one channel, dark strokes on white; grey or yellowed paper is brightened.

    Args:
        ink: whether the strokes are "dark" or "light"; light ones are inverted. "auto" takes for the ground what two of
            three have: the border, a line further inside, and all of the image. Strokes are light when the ground is
            nearer the darkest tone than the lightest.

    Raises:
        ValueError: there are no strokes; all is one tone.
    """
    check_choice("ink", ink, INKS)
    grey = as_image(image, "L", name=name)
    values = np.asarray(grey)
    darkest, lightest = int(values.min()), int(values.max())
    if lightest - darkest < MIN_CONTRAST:
        raise UserError(
            f"{name}: got one tone all over ({darkest} to {lightest} of 255), expected strokes on a plain ground; "
            "draw some (light strokes on a transparent ground vanish on white)"
        )
    ground, middle = ground_tone(values), (darkest + lightest) / 2
    if ink == "light" or (ink == "auto" and ground < middle):
        grey, ground, middle = ImageOps.invert(grey), 255 - ground, 255 - middle
    # encoders take everything below white for ink; a ground darker than the middle is not paper, but drawn on all over
    return grey.point([min(255, round(tone * 255 / ground)) for tone in range(256)]) if middle < ground < 255 else grey


def letterbox(
    image: Image.Image, size: int | tuple[int, int], fill: str | int | tuple[int, int, int] = "white"
) -> Image.Image:
    """Resizes an image with its aspect kept, centred on a canvas of a size (a side, or width and height)."""
    size = (size, size) if isinstance(size, int) else size
    scale = min(side / old for side, old in zip(size, image.size, strict=True))
    width, height = (max(1, round(old * scale)) for old in image.size)
    canvas = Image.new(image.mode, size, fill)
    canvas.paste(resized_sketch(image, (width, height)), ((size[0] - width) // 2, (size[1] - height) // 2))
    return canvas


def resized_sketch(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes an image to a width and height; strokes of a grey one are thickened before where hairlines would fade."""
    small = image.resize(size, BICUBIC)
    blocks = image.width // (2 * size[0]), image.height // (2 * size[1])
    if image.mode != "L" or min(blocks) < 2:
        return small
    darkest, lightest = np.asarray(image).min(), int(np.asarray(image).max())
    if lightest - np.asarray(small).min() >= FADED * (lightest - darkest):
        return small
    values = np.asarray(image)
    for axis, length in enumerate(values.shape):
        starts = np.arange(0, length, blocks[1 - axis])
        values = np.minimum.reduceat(values, starts, axis=axis)
    return Image.fromarray(values).resize(size, BICUBIC)


def center_crop(image: Image.Image, size: int = 224, shortest_edge: int = 256) -> Image.Image:
    """Crops the middle of an image: shortest edge resized, then a square cut out, with 6 % of each margin lost.

    Source: preprocessing of facebook/dinov2-base, which LOTS (arXiv 2507.22627) uses for sketches.
    Differs: an image longer than ``MAX_ASPECT`` times its short edge loses its ends before the resizing.
    """
    reach = MAX_ASPECT * min(image.size)
    image = _crop(image, min(image.width, reach), min(image.height, reach))
    short = min(image.size)
    resized = resized_sketch(image, (shortest_edge * image.width // short, shortest_edge * image.height // short))
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


def decode(source: str | Path | BinaryIO, place: str) -> Image.Image:
    """Decodes the first frame of an image, upright.

    Args:
        place: beginning of errors, for example "image: got 'a.png'".
    """
    with opened(source, place) as image, _failing_in_one_way(place):
        image.load()
        return upright(image)


@contextmanager
def opened(source: str | Path | BinaryIO, place: str) -> Iterator[Image.Image]:
    """Opens an image and checks format and size, without reading pixels; the arguments are `decode`'s."""
    with _failing_in_one_way(place):
        image = Image.open(source, formats=FORMATS)
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"{place} with {image.width}x{image.height} pixels, expected at most {MAX_PIXELS}; scale it down"
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


def upright(image: Image.Image) -> Image.Image:
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


def ground_tone(values: UInt8[np.ndarray, "height width"]) -> float:
    """Tone of the paper: scans and screenshots may have a frame, and drawings may be filled up to the border."""
    inset = np.asarray(values.shape) // 6
    inner = values[inset[0] : values.shape[0] - inset[0], inset[1] : values.shape[1] - inset[1]]
    borders = [np.concatenate([one[0], one[-1], one[:, 0], one[:, -1]]) for one in (values, inner)]
    return float(np.median([np.median(one) for one in (*borders, values)]))
