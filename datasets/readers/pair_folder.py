"""Images with pairs of sketch and text: a folder with one line of JSON per image.

    folder/metadata.jsonl
    folder/images/1.png  folder/sketches/1a.png  ...         any names, any depth, but inside the folder

A line of ``metadata.jsonl`` (shown on three):

    {"file_name": "images/1.png", "caption": "a person in a street",
     "pairs": [{"sketch": "sketches/1a.png", "text": "red jacket", "region": [0.2, 0.1, 0.8, 0.5]},
               {"text": "black skirt", "region": "regions/1b.png"}, {"sketch": "sketches/1c.png"}]}

- ``file_name`` and ``pairs`` are required, ``pairs`` may be empty, ``caption`` is empty when left out;
- a pair has a sketch or a text or both; ``null`` counts as left out;
- a sketch lies on the canvas of its image: light with dark strokes, or dark with light ones, which are inverted;
- a region is a grey image on the same canvas, white where the pair acts, or a box ``[left, top, right, bottom]``
  in fractions of the canvas from its top left corner; without one the pair may act everywhere;
- other keys, keys given twice, images listed twice and equal pairs of one image are rejected.

``validate`` lists all problems of a folder; ``PairFolder`` raises if lines are wrong.
"""

import json
import os
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeGuard

from PIL import Image
from torch.utils.data import Dataset

from weftwork.datasets.readers.atomic import atomic_path, check_new_folder
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.images import INKS, Ink, as_image, compose_sketches, read_image, read_sketch
from weftwork.datasets.readers.json_object import unique_keys
from weftwork.datasets.readers.masks import read_mask
from weftwork.datasets.readers.texts import check_characters

METADATA: Final = "metadata.jsonl"
ROW_KEYS: Final = ("file_name", "caption", "pairs")
PAIR_KEYS: Final = ("sketch", "text", "region")

Box = tuple[float, float, float, float]
Region = Image.Image | Box
Fail = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class PairSample:
    """An image with its pairs: sketches, texts and regions have one entry per pair, None where a pair lacks it."""

    image: Image.Image
    sketches: tuple[Image.Image | None, ...]
    texts: tuple[str | None, ...]
    caption: str
    global_sketch: Image.Image | None
    name: str
    regions: tuple[Region | None, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", self.regions or (None,) * len(self.texts))
        counts = [len(self.sketches), len(self.texts), len(self.regions)]
        if len(set(counts)) > 1:
            raise UserError(
                f"{self.name}: got {counts[0]} sketches, {counts[1]} texts and {counts[2]} regions, "
                "expected as many of each; put None where a pair lacks one"
            )
        for index, (sketch, text) in enumerate(zip(self.sketches, self.texts, strict=True)):
            if sketch is None and text is None:
                raise UserError(f"{self.name}: got pair {index} empty, expected a sketch or a text; drop it")


@dataclass(frozen=True)
class Problem:
    """A problem of a dataset: file, place in it, and reason."""

    file: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{', '.join(filter(None, (self.file, self.where)))}: {self.reason}"


@dataclass(frozen=True)
class _Pair:
    sketch: Path | None
    text: str | None
    region: Path | Box | None


@dataclass(frozen=True)
class _Row:
    line: int
    name: str
    image: Path
    caption: str
    pairs: tuple[_Pair, ...]


class PairFolder(Dataset[PairSample]):
    """Dataset of a folder in the plain format, in the order of its lines."""

    def __init__(self, folder: str | Path, *, ink: Ink = "auto") -> None:
        check_choice("ink", ink, INKS)
        self._rows, problems = _read(Path(folder))
        self._ink: Ink = ink
        if problems:
            raise UserError(
                f"{folder}: got {len(problems)} problems in {METADATA}, expected none, first {problems[0]}; "
                "call validate(folder) for all"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> PairSample:
        row = self._rows[index]
        sketches = tuple(pair.sketch and read_sketch(pair.sketch, self._ink) for pair in row.pairs)
        drawn = [sketch for sketch in sketches if sketch is not None]
        return PairSample(
            image=read_image(row.image),
            sketches=sketches,
            texts=tuple(pair.text for pair in row.pairs),
            caption=row.caption,
            global_sketch=compose_sketches(drawn) if drawn else None,
            name=row.name,
            regions=tuple(
                read_mask(pair.region) if isinstance(pair.region, Path) else pair.region for pair in row.pairs
            ),
        )


def validate(folder: str | Path, *, ink: Ink = "auto") -> list[Problem]:
    """Lists all problems of a folder: its lines, and every image, which is opened."""
    check_choice("ink", ink, INKS)
    rows, problems = _read(Path(folder))
    for row in rows:
        readings = [
            partial(read_image, row.image),
            *(partial(read_mask, pair.region) for pair in row.pairs if isinstance(pair.region, Path)),
            *(partial(read_sketch, pair.sketch, ink) for pair in row.pairs if pair.sketch),
        ]
        for reading in readings:
            try:
                reading()
            except ValueError as error:
                problems.append(Problem(METADATA, f"line {row.line}", str(error)))
    return problems


def report(problems: Sequence[Problem]) -> str:
    """Formats problems, one a line, below their number."""
    count = f"{len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}"
    return "\n".join([count, *(f"  {problem}" for problem in problems)])


def write_pair_folder(samples: Iterable[PairSample], folder: str | Path) -> Path:
    """Writes samples in the plain format, as PNG, atomically, without ``global_sketch``, which readers compose.

    Raises:
        ValueError: the folder exists and is not empty, or there are no samples.
    """
    folder = Path(folder).resolve()
    check_new_folder(folder)
    with atomic_path(folder) as stage:
        for name in ("images", "sketches", "regions"):
            (stage / name).mkdir(parents=True)
        rows = [_write(sample, f"{index:06d}", stage) for index, sample in enumerate(samples)]
        if not rows:
            raise UserError("samples: got none, expected at least one; pass samples")
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (stage / METADATA).write_text("".join(lines), encoding="utf-8", newline="\n")
    return folder


def _write(sample: PairSample, name: str, stage: Path) -> dict[str, object]:
    """Writes the images of a sample, and returns its line."""

    def save(image: Image.Image, path: str) -> str:
        image.save(stage / path)
        return path

    pairs: list[dict[str, object]] = []
    for index, (sketch, text, region) in enumerate(zip(sample.sketches, sample.texts, sample.regions, strict=True)):
        pair: dict[str, object] = {}
        if sketch is not None:
            pair["sketch"] = save(as_image(sketch, "L"), f"sketches/{name}_{index}.png")
        if text is not None:
            pair["text"] = text
        if isinstance(region, Image.Image):
            pair["region"] = save(as_image(region, "L"), f"regions/{name}_{index}.png")
        elif region is not None:
            pair["region"] = list(region)
        pairs.append(pair)
    return {"file_name": save(as_image(sample.image), f"images/{name}.png"), "caption": sample.caption, "pairs": pairs}


def _read(folder: Path) -> tuple[list[_Row], list[Problem]]:
    """Reads the rows of a folder and the problems of its lines; images need only exist."""
    try:
        lines = (folder / METADATA).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        found = isinstance(error, ValueError)
        got, remedy = ("other bytes", "save it as UTF-8") if found else ("no such file", "write one")
        return [], [Problem(METADATA, "", f"got {got} in {str(folder)!r}, expected lines of UTF-8 text; {remedy}")]
    rows: list[_Row] = []
    problems: list[Problem] = []
    first_lines: dict[Path, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        reasons: list[str] = []
        row = _row(number, line, folder.resolve(), reasons.append)
        if row and (first := first_lines.setdefault(row.image, number)) != number:
            reasons.append(f"file_name: got {row.name!r} as on line {first}, expected each image once; join the lines")
        problems += [Problem(METADATA, f"line {number}", reason) for reason in reasons]
        if row:
            rows.append(row)
    if not rows and not problems:
        problems.append(Problem(METADATA, "", "got no lines, expected one per image; write some"))
    return rows, problems


def _row(number: int, line: str, folder: Path, fail: Fail) -> _Row | None:
    try:
        record = json.loads(line, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        return fail(f"got {reprlib.repr(line)}, which is not JSON ({error}), expected one object a line; correct it")
    if not _is_object(record, "the line", ROW_KEYS, fail):
        return None
    image = _file(record.get("file_name"), "file_name", folder, fail)
    caption, pairs = record.get("caption") or "", record.get("pairs")
    if not isinstance(caption, str):
        fail(f"caption: got {reprlib.repr(caption)}, expected a text; quote it or leave it out")
    else:
        _check_text(caption, "caption", fail)
    if not isinstance(pairs, list):
        return fail(f"pairs: got {reprlib.repr(pairs)}, expected a list of pairs; write [] for none")
    read = [_pair(pair, f"pairs[{index}]", folder, fail) for index, pair in enumerate(pairs)]
    for index, pair in enumerate(read):
        if pair and read.index(pair) < index:
            fail(f"pairs[{index}]: got the same as pairs[{read.index(pair)}], expected each pair once; drop one")
    return image and _Row(number, str(record["file_name"]), image, str(caption), tuple(pair for pair in read if pair))


def _pair(record: object, key: str, folder: Path, fail: Fail) -> _Pair | None:
    if not _is_object(record, key, PAIR_KEYS, fail):
        return None
    sketch, text, region = (record.get(name) for name in PAIR_KEYS)
    if sketch is None and text is None:
        return fail(f"{key}: got neither a sketch nor a text, expected one or both; add one or drop the pair")
    if text is not None and not (isinstance(text, str) and text.strip()):
        fail(f"{key}.text: got {reprlib.repr(text)}, expected words; write some or leave it out")
    elif text is not None:
        _check_text(text, f"{key}.text", fail)
    path = None if sketch is None else _file(sketch, f"{key}.sketch", folder, fail)
    place = None
    if isinstance(region, list):
        place = _box(region, f"{key}.region", fail)
    elif region is not None:
        place = _file(region, f"{key}.region", folder, fail)
    return _Pair(path, text.strip() if isinstance(text, str) else None, place)


def _check_text(text: str, key: str, fail: Fail) -> None:
    try:
        check_characters(text, key)
    except UserError as error:
        fail(str(error))


def _is_object(record: object, key: str, keys: Sequence[str], fail: Fail) -> TypeGuard[dict[str, object]]:
    if not isinstance(record, dict):
        fail(f"{key}: got {reprlib.repr(record)}, expected an object with {', '.join(keys)}; write {{…}}")
        return False
    unknown = [name for name in record if name not in keys]
    if unknown:
        fail(
            f"{key}: got the unknown key {', '.join(map(repr, unknown))}, expected {', '.join(keys)}; rename or drop it"
        )
    return True


def _file(value: object, key: str, folder: Path, fail: Fail) -> Path | None:
    """Returns an existing file inside a folder, which may be a link: downloads from the Hub are."""
    try:
        if not isinstance(value, str):
            raise TypeError
        path = Path(os.path.normpath(folder / value))
        path.resolve()
    except (TypeError, ValueError, RuntimeError):  # not a text, invalid characters, a link to itself
        return fail(f"{key}: got {reprlib.repr(value)}, expected the path of an image; write it from the folder on")
    if not path.is_relative_to(folder):
        return fail(f"{key}: got {value!r}, which leaves the folder, expected a path inside it; copy the image there")
    if not os.path.isfile(path):
        return fail(f"{key}: got {value!r}, which is no file, expected an image; check the path and its capitals")
    return path


def _box(value: list[object], key: str, fail: Fail) -> Box | None:
    numbers = [entry for entry in value if isinstance(entry, int | float) and not isinstance(entry, bool)]
    if len(numbers) == len(value) == 4:
        left, top, right, bottom = numbers
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return left, top, right, bottom
    return fail(
        f"{key}: got {reprlib.repr(value)}, expected [left, top, right, bottom] in 0 to 1, in order; correct it"
    )
