"""Files of a game folder: its pk3 archives as one, and the textures that its shaders name."""

import io
import re
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from weftwork.datasets.readers.errors import UserError

ENDINGS: Final = (".tga", ".jpg", ".png")
FOLDER: Final = Path("/usr/share/games/openarena/baseoa")
"""Folder of the maps on Debian."""


class Archives:
    """All pk3 archives of a folder; of files with one name, that of the last archive counts, as in the game.

    Raises:
        ValueError: a folder without archives, or one that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, tuple[zipfile.ZipFile, str]] = {}
        paths = sorted(folder.glob("*.pk3"))
        if not paths:
            raise UserError(
                f"maps: got no .pk3 file in {str(folder)!r}, expected OpenArena's; install openarena-081-maps, "
                "openarena-081-textures, openarena-data and openarena-085-data"
            )
        for path in paths:
            try:
                archive = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"{path}: got a file that is no archive ({error}); install it again") from error
            self._files |= {name.lower(): (archive, name) for name in archive.namelist()}

    @property
    def maps(self) -> list[str]:
        """Names of all maps, sorted."""
        return sorted(name[5:-4] for name in self._files if name.startswith("maps/") and name.endswith(".bsp"))

    def read(self, name: str) -> bytes:
        """Returns the content of a file; `KeyError` if there is none."""
        archive, exact = self._files[name.lower()]
        return archive.read(exact)

    def texture(self, name: str) -> Image.Image | None:
        """Returns the texture of a surface: its file, or the first image of its shader; None without either."""
        for candidate in (name.lower(), self._shaders.get(name.lower())):
            if candidate is None:
                continue
            base = re.sub(r"\.(tga|jpe?g|png)$", "", candidate)
            for ending in ENDINGS:
                if base + ending in self._files:
                    try:
                        return Image.open(io.BytesIO(self.read(base + ending))).convert("RGB")
                    except (UnidentifiedImageError, OSError):
                        return None
        return None

    @cached_property
    def _shaders(self) -> Mapping[str, str]:
        """Image of each shader: of its first stage with a file, else the one that editors show."""
        found: dict[str, str] = {}
        for name in self._files:
            if name.startswith("scripts/") and name.endswith(".shader"):
                found = {**shader_images(self.read(name).decode("latin1")), **found}
        return found


def shader_images(text: str) -> dict[str, str]:
    """Parses the shaders of a file; returns by shader its first image."""
    stages: dict[str, str] = {}
    editor: dict[str, str] = {}
    depth, current = 0, ""
    for line in (one.strip() for one in re.sub(r"//.*", "", text).splitlines()):
        if depth == 0 and line and line[0] not in "{}":
            current = line.split()[0].lower()
        depth += line.count("{") - line.count("}")
        stage = re.match(r"(?i)(?:map|clampmap|animmap\s+\S+)\s+([^$\s]\S*)", line)
        if stage:
            stages.setdefault(current, stage[1].lower())
        shown = re.match(r"(?i)qer_editorimage\s+(\S+)", line)
        if shown:
            editor.setdefault(current, shown[1].lower())
    return {**editor, **stages}
