"""Fetch the pinned sets of emoji drawings and the parts of people with `npm pack`, and check their integrity.

    python -m weftwork.scripts.maintenance.fetch_drawings .cache/drawings
    python -m weftwork.scripts.maintenance.fetch_drawings .cache/drawings --sample examples/drawings
    python -m weftwork.scripts.maintenance.fetch_drawings .cache/drawings --demo scripts/demo/assets

`--sample` writes the drawings of some subjects by four designers as SVG files, with a NOTICE, `--demo` the names that
the demo suggests, a cat by each designer for its buttons, and the words of captions where warnings read them.
"""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from weftwork.attention_processors.encoders.vocabulary import TRAINED_WORDS, WORD
from weftwork.datasets.drawings.collection import Drawings, Subject
from weftwork.datasets.drawings.colors import PALETTE
from weftwork.datasets.drawings.packages import check_integrity, read_packages
from weftwork.datasets.drawings.rendering import render
from weftwork.datasets.drawings.sets import NAMES, PEOPLE, SETS, Package, notice
from weftwork.datasets.drawings.splits import split_of

SAMPLE_SETS: Final = ("noto", "fluent_flat", "twemoji", "emojione")
SAMPLE_SUBJECTS: Final = 60
SAMPLE_BYTES: Final = 5500
"""Most bytes of a subject's longest drawing, so that the sample stays small."""
CAT: Final = "1F408"
SIDE: Final = 64
COLORS: Final = 128
"""Subject, pixels of each side, and colours of the designers' samples."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the tarballs")
    parser.add_argument("--sample", type=Path, help="folder for the sample")
    parser.add_argument("--demo", type=Path, help="folder of the demo's assets")
    arguments = parser.parse_args(argv)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for package in (*(one.package for one in SETS.values()), NAMES, PEOPLE):
        fetch(package, arguments.folder)
    if arguments.sample:
        sample(read_packages(arguments.folder, SAMPLE_SETS)).save(arguments.sample)
        (arguments.sample / "NOTICE").write_text(notice(SAMPLE_SETS))
    if arguments.demo:
        drawings = read_packages(arguments.folder)
        listed = {arguments.demo / "subjects.txt": trained_names(drawings), TRAINED_WORDS: trained_words(drawings)}
        for path, found in listed.items():
            path.write_text("".join(f"{one}\n" for one in found), encoding="utf-8")
        cats = np.concatenate([render(drawings.vectors[key][CAT], SIDE) for key in SETS], axis=1)
        sheet = Image.fromarray(cats).quantize(COLORS, Image.Quantize.FASTOCTREE)
        sheet.save(arguments.demo / "designers.png", optimize=True)
        (arguments.demo / "NOTICE").write_text(notice())


def trained_names(drawings: Drawings) -> list[str]:
    """The names of the subjects of the training split, sorted, without lists such as "family with man, boy"."""
    return sorted({one.name for one in _trained(drawings) if "," not in one.name})


def trained_words(drawings: Drawings) -> list[str]:
    """The words of names, tags, categories, colours and designers in captions of the training split, sorted."""
    said = [*PALETTE, *(one.words for one in SETS.values())]
    said += [text for one in _trained(drawings) for text in (one.name, *one.tags, one.category)]
    return sorted({word for text in said for word in WORD.findall(text.lower())})


def _trained(drawings: Drawings) -> list[Subject]:
    codes = {
        code
        for key, texts in drawings.vectors.items()
        for code in texts
        if split_of(code, SETS[key].designer) == "train"
    }
    return [subject for code, subject in drawings.subjects.items() if code in codes]


def fetch(package: Package, folder: Path) -> Path:
    """The tarball of a package, fetched unless it is there; `ValueError` if it is not the pinned one."""
    path = folder / package.file_name
    if not path.is_file():
        wanted = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", wanted, "--pack-destination", str(folder)], check=True)
    check_integrity(path, package)
    return path


def sample(drawings: Drawings) -> Drawings:
    """Every so many-th of the subjects that all sets draw with few bytes."""
    common = [
        code
        for code in drawings.subjects
        if all(len(texts.get(code, " " * SAMPLE_BYTES)) < SAMPLE_BYTES for texts in drawings.vectors.values())
    ]
    step = len(common) // SAMPLE_SUBJECTS
    return drawings.only(SAMPLE_SETS, set(common[::step][:SAMPLE_SUBJECTS]))


if __name__ == "__main__":
    main()
