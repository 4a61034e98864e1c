"""Remedies in errors of synthetic datasets and of others' files: the same call succeeds after them."""

import base64
from dataclasses import replace
from functools import partial
from hashlib import sha512
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
from remedies import Row, check, given, itself, row, table, text

from weftwork.datasets.drawings.packages import check_integrity
from weftwork.datasets.openarena.archives import Archives
from weftwork.datasets.synthetic import outfits, rooms, walks
from weftwork.datasets.synthetic.outfits import Garment


def by(call: Any, name: str, wrong: Any, words: str, right: Any) -> Row:
    """A call with another value of an argument."""
    return row(lambda value: call(**{name: value}), given(wrong), words, given(right))


WALK = walks.walk_of("test", 0)
COUNT = len(WALK.steps)
walk = partial(replace, WALK)
JACKET = Garment.of("jacket", "red", "plain")
UNORDERED = np.array([9.0, *WALK.steps[::-1]])
ORDERED = np.sort(UNORDERED[WALK.seconds > UNORDERED])
SAMPLES = [
    by(partial(outfits.sample, "test", size=64), "index", -1, "both at least 0; pass non-negative integers", 0),
    by(partial(outfits.sample, "test", 0), "size", 100, "64, 128 or 256; resize the image for other sizes", 128),
    by(partial(outfits.sample, "test", 0, size=64), "style", "a", "; pass one of these", "ink"),
    by(partial(outfits.sample, "test", 0, size=64), "count", 5, "1 to 4 garments; pass one of these or leave", 4),
    by(partial(outfits.sample, "test", 0, size=64), "count", 5, "or leave it out", None),
    by(partial(outfits.render, seed=0, size=64), "garments", [JACKET] * 2, "once; drop one of the doubled", [JACKET]),
    (
        r"slot: got 'bottom' for a jacket, .*; use Garment.of\(kind, color, pattern\)",
        lambda _: Garment("bottom", "jacket", "red", "plain"),
        lambda _: Garment.of("jacket", "red", "plain"),
    ),
    by(partial(rooms.sample, "test", 0, size=8), "views", ["up"], "expected some of .*; pass these", ["interpolating"]),
    by(walk, "knots", WALK.knots[:1], r"finite numbers \[knot, 2\]; pass two or more knots", WALK.knots),
    by(walk, "knots", WALK.knots * 0.1, "nearer steps would clip", WALK.knots),
    by(walk, "knots", WALK.knots * 9, "farther ones are behind the wall", WALK.knots),
    by(walk, "knots", WALK.knots + np.array([9, 0]), "within -1 and 1; keep the walker in the image", WALK.knots),
    by(walk, "seconds", 0, "expected more than 0; pass the length of the clip", WALK.seconds),
    by(walk, "levels", np.zeros(1), "expected one for each of .*; pass as many", np.zeros(COUNT)),
    by(walk, "levels", np.full(COUNT, 99), "finite ones up to .* dB; louder steps clip", np.zeros(COUNT)),
    by(
        partial(walk, levels=np.zeros(len(ORDERED))),
        "steps",
        UNORDERED[-len(ORDERED) :],
        "increasing times in .* seconds; sort them, and drop others",
        ORDERED,
    ),
]
PACKAGE: Any = SimpleNamespace(integrity=base64.b64encode(sha512(b"whole").digest()).decode())


def archive(folder: Path) -> Path:
    with ZipFile(folder / "a.pk3", "w") as file:
        file.writestr("maps/one.bsp", b"")
    return folder


OTHERS = [
    row(Archives, itself, "got no .pk3 file in .*; install openarena-081-maps", archive),
    row(Archives, lambda folder: text("x", "a.pk3")(folder).parent, "no archive .*; install it again", archive),
    row(
        lambda path: [check_integrity(path, PACKAGE)],
        text("half", "a.tgz"),
        "got SHA-512 .*; fetch it again",
        text("whole", "a.tgz"),
    ),
]


@table(*SAMPLES, *OTHERS)
def test_remedies_of_datasets(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
