"""Inline images: data URIs, written as PNG, so that one file can hold a whole design."""

import base64
import binascii
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image, decode

PREFIX: Final = "data:image/png;base64,"


def as_text(image: Image.Image) -> str:
    """Encodes an image as a data URI that `from_text` reads."""
    file = BytesIO()
    image.save(file, "PNG")
    return PREFIX + base64.b64encode(file.getvalue()).decode("ascii")


def from_text(text: str) -> Image.Image:
    """Decodes the image in a data URI; `ValueError` unless it is a whole image."""
    try:
        content = base64.b64decode(text.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise UserError(f"got a text that is not base64 ({error}), expected an image; write it again") from error
    return as_image(decode(BytesIO(content), "got an inline image"), name="inline image")


def located(text: str, folder: Path) -> Path | Image.Image:
    """Returns the image of a data URI, or a path relative to a folder."""
    return from_text(text) if text.startswith("data:image/") else folder / text
