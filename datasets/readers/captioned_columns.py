"""Columns of images, captions and styles in a Hugging Face dataset, and checks of its rows."""

import os
import reprlib
from collections.abc import Mapping
from io import BytesIO
from typing import Final, TypedDict

import datasets
from PIL import Image

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.images import as_image, decode, opened, read_image

CAPTION_COLUMNS: Final = ("text", "caption", "prompt")
STYLE_COLUMN: Final = "style"

Features = Mapping[str, object]


class Cell(TypedDict):
    """An image that is not decoded: its bytes, or the path of its file."""

    bytes: bytes | None
    path: str | None


def find_columns(
    features: Features,
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    style_column: str | None = None,
    style: str | None = None,
    styled: bool = True,
) -> tuple[str, str, str | None, str | None]:
    """Returns the columns of images, captions and styles, and the style of all images; one of the last two is None."""
    for name, value in (("style", style), ("style_column", style_column)):
        if not styled and value is not None:
            raise UserError(f"{name}: got {value!r}, has no effect with styled=False; leave it out")
    image, caption = _image_column(features, image_column), _caption_column(features, caption_column)
    return image, caption, _style_column(features, style_column, style) if styled else None, style if styled else "any"


def _image_column(features: Features, given: str | None) -> str:
    """Returns the name of the image column."""
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    if given is None:
        if len(images) != 1:
            remedy = "pass image_column" if images else "cast one with cast_column(NAME, Image())"
            raise UserError(
                f"image_column: got {', '.join(images) or 'none'} with an Image feature among the columns "
                f"{', '.join(features)}, expected one; {remedy}"
            )
        return images[0]
    check_choice("image_column", given, features)
    if given not in images:
        raise UserError(
            f"image_column: got {given!r} with the feature {features[given]}, expected an Image feature "
            f"({', '.join(images) or 'no column has one'}); cast it with cast_column({given!r}, Image())"
        )
    return given


def _caption_column(features: Features, given: str | None) -> str:
    """Returns the name of the caption column."""
    if given is not None:
        check_choice("caption_column", given, features)
        return given
    found = [name for name in CAPTION_COLUMNS if name in features]
    if not found:
        raise UserError(
            f"caption_column: got the columns {', '.join(features)}, expected {', '.join(CAPTION_COLUMNS)} among them; "
            "pass caption_column"
        )
    return found[0]


def _style_column(features: Features, given: str | None, style: str | None) -> str | None:
    """Returns the name of the style column; None if all images have the given style."""
    if given is not None:
        check_choice("style_column", given, features)
    column = given or (STYLE_COLUMN if STYLE_COLUMN in features else None)
    if style is not None:
        if column is not None:
            raise UserError(f"style: got {style!r} and the column {column!r}, expected one of them; leave style= out")
        if not (isinstance(style, str) and style.strip()):
            raise UserError(f"style: got {style!r}, expected a name; write one")
    elif column is None:
        raise UserError(
            f"style_column: got the columns {', '.join(features)}, expected {STYLE_COLUMN!r} among them; pass "
            "style_column, or style for one name for all"
        )
    return column


def wrong_text(text: object, place: str) -> str | None:
    """Returns the error of a caption or style name; None if it is valid."""
    if isinstance(text, str) and text.strip():
        return None
    return f"{place}: got {reprlib.repr(text)}, expected a text; write one or drop the row"


def check_header(cell: Cell | None, place: str) -> None:
    """Raises for a cell that is not an image; reads the header only."""
    data, path = (cell["bytes"], cell["path"] or "") if cell else (None, "")
    if data is None and not path:
        raise UserError(f"{place}: got none, expected an image; add it or drop the row")
    if data is None and not os.path.isfile(path):
        raise UserError(f"{place}: got no file at {path!r}, expected an image; check the path and its capitals")
    place = f"{place}: got {path!r}" if path else f"{place}: got an image"
    with opened(path if data is None else BytesIO(data), place):
        pass


def read_cell(cell: Cell, place: str) -> Image.Image:
    """Reads the image of an undecoded cell; `place` names it in errors."""
    if cell["bytes"] is None:
        return read_image(cell["path"] or "")
    return as_image(decode(BytesIO(cell["bytes"]), f"{place}: got an image"), name=place)
