"""Rendered drawings on disk: images, sketches and colour words, made once from vectors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from filelock import FileLock

from weftwork.datasets.drawings.captions import Depicted
from weftwork.datasets.drawings.collection import SUBJECTS_FILE, Drawings, Subject
from weftwork.datasets.drawings.colors import color_words
from weftwork.datasets.drawings.line_art import line_art
from weftwork.datasets.drawings.packages import read_packages
from weftwork.datasets.drawings.rendering import on_white, render
from weftwork.datasets.drawings.scenes import SIZE
from weftwork.datasets.drawings.sets import SETS
from weftwork.datasets.drawings.splits import Split, split_of

VERSION: Final = "2"
"""Changes with what is rendered or read from it, so that old caches are left alone."""


@dataclass(frozen=True)
class Cell:
    """One drawing: a subject by a set."""

    key: str
    code: str
    depicted: Depicted

    @property
    def split(self) -> Split:
        return split_of(self.code, SETS[self.key].designer)


@dataclass(frozen=True)
class RenderedDrawings:
    """Drawings rendered into a folder, one row per cell; images are memory maps, opened when first needed."""

    folder: Path

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        rows = json.loads((self.folder / "cells.json").read_text())
        return tuple(Cell(key, code, Depicted(name, tuple(t), kind, tuple(c))) for key, code, name, t, kind, c in rows)

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 [cell, SIZE, SIZE, 4]."""
        return np.load(self.folder / "images.npy", mmap_mode="r")

    @cached_property
    def sketches(self) -> np.ndarray:
        """uint8 [cell, SIZE, SIZE], black strokes on white."""
        return np.load(self.folder / "sketches.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type["RenderedDrawings"], tuple[Path]]:
        return RenderedDrawings, (self.folder,)  # worker processes map the files themselves


def open_rendered(folder: Path, cache_dir: Path) -> RenderedDrawings:
    """Drawings of a folder of SVG files (`Drawings.read`) or npm tarballs (`read_packages`), rendered once.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a tarball is not the pinned one.
    """
    vectors = Drawings.read(folder) if (folder / SUBJECTS_FILE).is_file() else read_packages(folder)
    return render_once(vectors, cache_dir)


def render_once(drawings: Drawings, cache_dir: Path) -> RenderedDrawings:
    """Render all drawings, unless `cache_dir` has them; of several processes one renders, the others wait."""
    jobs = [(key, code, texts[code]) for key, texts in drawings.vectors.items() for code in sorted(texts)]
    digest = sha256(VERSION.encode())
    for job in jobs:
        digest.update("\0".join(job).encode())
    folder = cache_dir / f"drawings-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "cells.json").is_file():  # written last
            _render(jobs, drawings.subjects, folder)
    return RenderedDrawings(folder)


def _render(jobs: list[tuple[str, str, str]], subjects: Mapping[str, Subject], folder: Path) -> None:
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (len(jobs), SIZE, SIZE, 4))
    sketches = np.lib.format.open_memmap(folder / "sketches.npy", "w+", np.uint8, (len(jobs), SIZE, SIZE))
    rows = []
    for i, (key, code, svg) in enumerate(jobs):
        images[i] = render(svg, SIZE)
        sketches[i] = on_white(render(line_art(svg), SIZE))
        subject = subjects[code]
        rows.append((key, code, subject.name, subject.tags, subject.category, color_words(images[i])))
    images.flush()
    sketches.flush()
    (folder / "cells.json").write_text(json.dumps(rows))
