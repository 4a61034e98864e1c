"""Reader of a folder of recorded footsteps, with their surfaces and a split by recording.

folder/<surface>/<name>.wav       or .flac, .ogg; one step per file, one or two channels
folder/<surface>_<name>.wav       in the folder itself: the name up to its first "_", "-", "." or digit
folder/footsteps.json             optional: by path in the folder surface, license, author and source
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from weftwork.datasets.readers.audio_files import SUFFIXES, audio_seconds
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.folders import files_below
from weftwork.datasets.readers.json_object import read_json

CREDITS: Final = "footsteps.json"
SPLITS: Final = ("train", "validation", "test")
HELD_OUT: Final = 5
"""One in so many recordings of a surface is for validation, and as many are for the test split."""


@dataclass(frozen=True)
class Recording:
    """A file with one recorded footstep; empty texts are unknown."""

    path: Path
    surface: str
    license: str = ""
    author: str = ""
    source: str = ""

    @cached_property
    def digest(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class FootstepFolder:
    """Recorded footsteps by surface; `ValueError` for none, unreadable files, or credits without their file."""

    folder: Path

    def __post_init__(self) -> None:
        _ = self.recordings

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        """All recordings, sorted by path."""
        paths = [path for path in files_below(self.folder) if path.suffix.lower() in SUFFIXES]
        if not paths:
            ends = ", ".join(SUFFIXES)
            raise UserError(f"{self.folder}: got no footsteps, expected <surface>/<name> that ends in {ends}; add some")
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        credited = read_credits(self.folder)
        if missing := sorted(set(credited) - set(names)):
            raise UserError(
                f"{self.folder / CREDITS}: got {missing[0]!r}, which is not in the folder; remove its entry"
            )
        found = []
        for name, path in names.items():
            audio_seconds(path)  # refuses what cannot be read
            found.append(Recording(path, **{"surface": surface_of(name), **credited.get(name, {})}))
            if not found[-1].surface:
                raise UserError(f"{path}: got no surface, expected <surface>/<name> or <surface>_<name>; rename it")
        return tuple(found)

    @property
    def surfaces(self) -> tuple[str, ...]:
        """All surfaces, sorted."""
        return tuple(sorted({one.surface for one in self.recordings}))

    def of(self, split: str) -> dict[str, list[Recording]]:
        """Returns the recordings of a split by surface; surfaces with one recording are in the train split alone.

        Recordings of a surface are ordered by the hash of their content, so that names do not matter. With two
        recordings, one is for training and one for the test.

        Raises:
            ValueError: an unknown split, or one without recordings.
        """
        check_choice("split", split, SPLITS)
        found = {surface: self._split(surface)[SPLITS.index(split)] for surface in self.surfaces}
        found = {surface: some for surface, some in found.items() if some}
        if not found:
            raise UserError(
                f"{self.folder}: got no recordings for the {split} split, expected three or more of a surface; add some"
            )
        return found

    @cached_property
    def digest(self) -> str:
        """Hash of all recordings and their surfaces."""
        parts = [f"{one.surface} {one.digest}" for one in self.recordings]
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()

    def _split(self, surface: str) -> tuple[list[Recording], list[Recording], list[Recording]]:
        every = sorted((one for one in self.recordings if one.surface == surface), key=lambda one: one.digest)
        held_out = max(1, round(len(every) / HELD_OUT))
        test, validation = held_out * (len(every) > 1), held_out * (len(every) > 2)
        return every[test + validation :], every[test : test + validation], every[:test]


def surface_of(name: str) -> str:
    """Returns the surface that the path of a recording in its folder names."""
    parts = name.split("/")
    return parts[-2].lower() if len(parts) > 1 else re.split(r"[\d_.\- ]", parts[0])[0].lower()


def read_credits(folder: Path) -> Mapping[str, dict[str, str]]:
    """Returns credits by path in the folder, none without `footsteps.json`; `ValueError` if that is wrong."""
    path, names = folder / CREDITS, {"surface", "license", "author", "source"}
    if not path.is_file():
        return {}
    found = read_json(path)
    for name, entry in found.items():
        texts = isinstance(entry, dict) and all(isinstance(text, str) for text in entry.values())
        if not texts or set(entry) - names:
            expected = f"texts named {', '.join(sorted(names))}"
            raise UserError(f"{path}: got {entry!r} for {name!r}, expected {expected}; correct the entry")
    return found
