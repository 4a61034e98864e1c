"""PNG files that store the design of their image as text; loads neither torch nor diffusers."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image, PngImagePlugin

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError

FOLDERS: Final = {"loras": "lora", "controlnets": "controlnet"}
"""Keys of designs with lists of weights, and the key of their path."""
TEXT_CHUNK: Final = "weftwork"
"""PNG text chunk of the design."""
TEXT_CHUNKS: Final = (TEXT_CHUNK, "weft")
"""PNG text chunks of the design, including that of earlier versions."""


def path_from(folder: Path, path: Path) -> str:
    """Returns a path relative to a folder; its name where both have nothing but the root in common.

    A file with such a path can be moved together with what it names, and holds no absolute path of its machine.
    """
    ends = [Path(os.path.normpath(one.absolute())) for one in (path, folder)]
    alone = Path(os.path.commonpath(ends)) == Path(ends[0].anchor)
    return ends[0].name if alone else Path(os.path.relpath(*ends)).as_posix()


def moved_paths(design: Mapping[str, Any], beside: Path, folder: Path) -> dict[str, Any]:
    """Returns the record of a design with its paths of LoRAs and ControlNets relative to another folder.

    Of those that are not there any more, the name is left.

    Args:
        beside: folder that they are relative to now.
    """

    def seen(path: str) -> str:
        return path_from(folder, beside / path) if (beside / path).exists() else Path(path).name

    moved = {
        key: [{**one, name: seen(one[name])} for one in design[key]] for key, name in FOLDERS.items() if design.get(key)
    }
    return {**design, **moved}


def write_images(files: Mapping[Path, tuple[Image.Image, str | None]]) -> None:
    """Writes all images with their stored texts, or none: files are moved to their places when all are complete."""
    with contextlib.ExitStack() as staged:
        for target, (image, text) in files.items():
            info = PngImagePlugin.PngInfo()
            if text is not None:
                info.add_text(TEXT_CHUNK, text)
            image.save(staged.enter_context(atomic_path(target)), "PNG", pnginfo=info)


def stored_in(path: Path) -> dict[str, Any] | None:
    """Returns the record stored in a PNG, None if that is cut short; `ValueError` for a whole one without."""
    try:
        with Image.open(path) as image:
            image.load()
            text = _text(image)
    except (OSError, SyntaxError):
        return None
    if text is None:
        raise UserError(f"{path}: got an image that weftwork did not make; choose another --output, or remove it")
    return json.loads(text)


def stored_if_any(path: Path) -> dict[str, Any] | None:
    """Returns the record stored in a PNG, read without its pixels; None for a file without one."""
    try:
        with Image.open(path) as image:
            text = _text(image)
            found = None if text is None else json.loads(text)
    except (OSError, SyntaxError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("design"), dict) else None


def _text(image: Image.Image) -> str | None:
    return next((image.info[name] for name in TEXT_CHUNKS if name in image.info), None)
