"""Sketchy: photos of outfits with a sketch and a description per garment, read as the dataset is published.

    <root>/<split>_sketchy.json
    <root>/<split>/images/<image id>/<file name>                        photo
    <root>/<split>/full_sketches/<image id>/<image id>.png              sketch of the whole outfit
    <root>/<split>/partial_sketches/<image id>/<annotation id>.png      sketch of one garment on the whole canvas

The JSON is COCO's: ``images`` (``id``, ``file_name``) and ``annotations`` (``id``, ``image_id``, ``category_name``,
``description``); other keys are ignored. The file name of the later release with colour words is found as well.

Source: https://huggingface.co/datasets/federicogirella/sketchy; LOTS, arXiv 2507.22627 and 2602.18309.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from PIL import Image
from torch.utils.data import Dataset

from weftwork.datasets.readers.errors import UserError, check_choice, check_counts
from weftwork.datasets.readers.images import as_sketch, compose_sketches, read_image
from weftwork.datasets.readers.pair_folder import PairSample, Problem
from weftwork.datasets.readers.texts import check_characters

ANNOTATIONS: Final = (
    "{split}_sketchy.json",
    "{split}_square_white_color_global_structured_descriptions_shoes_merged.json",
)
DROPPED: Final = ("shoe",)
Row = dict[str, object]
"""An entry of the JSON, which may be anything else until `_wrong` has checked it."""
GlobalSketch = Literal["composed", "full"]


@dataclass(frozen=True)
class _Outfit:
    image_id: str
    photo: Path
    full_sketch: Path
    sketches: tuple[Path, ...]
    texts: tuple[str | None, ...]


class Sketchy(Dataset[PairSample]):
    """Outfits of a split of Sketchy, pairs in the order of the JSON, descriptions stripped and lower-cased.

    The caption joins the descriptions, the name is the image's id. Sketches are grey and unchanged, blank ones
    included; a missing or empty description is None.

    Args:
        annotations: name of the JSON in ``root``; by default the first of ``ANNOTATIONS`` that exists.
        drop: names of the categories to leave out; images left with none are left out as well.
        size: side to which photo and sketches are stretched, without keeping their aspect, as in training LOTS; as
            they are when left out.
        global_sketch: "composed" of the garments that are kept, or the "full" sketch on disk.

    Raises:
        ValueError: a folder or the JSON is missing, it has no such category to drop, or a row of it is wrong;
            ``validate`` lists all wrong rows.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotations: str | None = None,
        drop: Collection[str] = DROPPED,
        size: int | None = None,
        global_sketch: GlobalSketch = "composed",
    ) -> None:
        check_choice("global_sketch", global_sketch, ("composed", "full"))
        check_counts(size=1 if size is None else size)
        file = _annotation_file(Path(root), split, annotations)
        self._outfits, problems = _read(file, Path(root) / split, drop)
        if problems:
            raise UserError(
                f"{file.name}: got {len(problems)} wrong rows, expected none, first {problems[0]}; "
                "call validate(root, split) for all"
            )
        self._size = size
        self._global_sketch = global_sketch

    def __len__(self) -> int:
        return len(self._outfits)

    def __getitem__(self, index: int) -> PairSample:
        outfit = self._outfits[index]
        sketches = tuple(self._sized(read_image(path, "L")) for path in outfit.sketches)
        if self._global_sketch == "full":
            whole = self._sized(read_image(outfit.full_sketch, "L"))
        else:
            whole = compose_sketches(sketches)
        return PairSample(
            image=self._sized(read_image(outfit.photo)),
            sketches=sketches,
            texts=outfit.texts,
            caption=". ".join(filter(None, outfit.texts)),
            global_sketch=whole,
            name=outfit.image_id,
        )

    def _sized(self, image: Image.Image) -> Image.Image:
        return image.resize((self._size, self._size), Image.Resampling.BILINEAR) if self._size else image


def validate(
    root: str | Path, split: str = "train", *, annotations: str | None = None, drop: Collection[str] = DROPPED
) -> list[Problem]:
    """Lists all problems of a split: rows of the JSON, descriptions, and every image, which is opened.

    Raises:
        ValueError: a folder or the JSON is missing, or it has no rows.
    """
    file = _annotation_file(Path(root), split, annotations)
    outfits, problems = _read(file, Path(root) / split, drop)

    def check(where: str, look: Callable[[], object]) -> None:
        try:
            look()
        except ValueError as error:
            problems.append(Problem(file.name, where, str(error)))

    for outfit in outfits:
        where = f"image {outfit.image_id}"
        check(where, lambda path=outfit.photo: read_image(path))
        check(where, lambda path=outfit.full_sketch: read_image(path, "L"))
        for path, text in zip(outfit.sketches, outfit.texts, strict=True):
            where = f"annotation {path.stem}"
            check(where, lambda path=path: as_sketch(read_image(path, "L"), "dark", name=f"sketch {str(path)!r}"))
            if text is None:
                reason = "description: got none, expected words; write some, or the pair has a sketch alone"
                problems.append(Problem(file.name, where, reason))
    return problems


def _annotation_file(root: Path, split: str, annotations: str | None) -> Path:
    """Returns the JSON of a split, after checking the folders beside it."""
    names = [name.format(split=split) for name in ANNOTATIONS] if annotations is None else [annotations]
    found = [root / name for name in names if (root / name).is_file()]
    if not found:
        raise UserError(
            f"annotations: got no {' or '.join(names)} in {str(root)!r}, expected one of them; download it or pass "
            "annotations="
        )
    for folder in ("images", "partial_sketches"):
        if not (root / split / folder).is_dir():
            raise UserError(
                f"{folder}: got no folder {str(root / split / folder)!r}, expected one folder in it per image; "
                "download and unpack it, or pass another split"
            )
    return found[0]


def _read(file: Path, folder: Path, drop: Collection[str]) -> tuple[list[_Outfit], list[Problem]]:
    """Reads the outfits of a JSON and the problems of its wrong rows; no image is opened."""
    document = _load(file)
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    known = {str(row.get("category_name")) for row in document["annotations"] if isinstance(row, dict)}
    for name in drop:
        check_choice("drop", name, sorted({*known, *DROPPED}))
    problems: list[Problem] = []
    images: dict[str, Row] = {}
    pairs: dict[str, dict[str, str | None]] = {}
    for index, image in enumerate(document["images"]):
        if reason := _wrong(image, ("id", "file_name")) or _doubled(image["id"], images):
            problems.append(Problem(file.name, _where("image", image, index), reason))
        else:
            images[str(image["id"])] = image
    for index, annotation in enumerate(document["annotations"]):
        if isinstance(annotation, dict) and annotation.get("category_name") in drop:
            continue
        if reason := _wrong_annotation(annotation, images, pairs):
            problems.append(Problem(file.name, _where("annotation", annotation, index), reason))
        else:
            description = str(annotation.get("description") or "").strip().lower()
            pairs.setdefault(str(annotation["image_id"]), {})[str(annotation["id"])] = description or None
    outfits = [_outfit(folder, image, pairs[key]) for key, image in images.items() if key in pairs]
    if not outfits and not problems:
        raise UserError(f"{file.name}: got no images with garments to keep, expected some; drop fewer categories")
    return outfits, problems


def _load(file: Path) -> dict[str, list[Row]]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: got no JSON ({error}), expected images and annotations; download it again") from error
    for key in ("images", "annotations"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise UserError(f"{file}: got no list {key!r}, expected images and annotations; check which file it is")
    return document


def _outfit(folder: Path, image: Row, pairs: dict[str, str | None]) -> _Outfit:
    key = str(image["id"])
    return _Outfit(
        image_id=key,
        photo=folder / "images" / key / str(image["file_name"]),
        full_sketch=folder / "full_sketches" / key / f"{key}.png",
        sketches=tuple(folder / "partial_sketches" / key / f"{name}.png" for name in pairs),
        texts=tuple(pairs.values()),
    )


def _wrong(row: object, keys: tuple[str, ...]) -> str | None:
    """Returns why a row cannot be used; these values become parts of paths."""
    if not isinstance(row, dict):
        return f"got a {type(row).__name__}, expected an object with {', '.join(keys)}; correct it"
    for key in keys:
        value = row.get(key)
        plain = isinstance(value, int | str) and not isinstance(value, bool)
        if not plain or str(value) in ("", "..") or Path(str(value)).name != str(value):
            return f"{key}: got {value!r}, expected a number or the name of a file; correct it"
    return None


def _wrong_annotation(row: Row, images: Collection[str], pairs: dict[str, dict[str, str | None]]) -> str | None:
    if reason := _wrong(row, ("id", "image_id")):
        return reason
    if not isinstance(row.get("category_name"), str):
        return f"category_name: got {row.get('category_name')!r}, expected the name of a garment; quote it"
    if not isinstance(row.get("description"), str | None):
        return f"description: got {row['description']!r}, expected a text; quote it"
    try:
        check_characters(str(row.get("description") or ""), "description")
    except UserError as error:
        return str(error)
    if str(row["image_id"]) not in images:
        return f"image_id: got {row['image_id']!r}, expected the id of one of the images; drop it or add its image"
    return _doubled(row["id"], pairs.get(str(row["image_id"]), {}))


def _doubled(key: object, known: Collection[str]) -> str | None:
    return f"id: got {key!r} a second time, expected each once; drop one" if str(key) in known else None


def _where(kind: str, row: object, index: int) -> str:
    return f"{kind} {row['id']}" if isinstance(row, dict) and "id" in row else f"{kind} number {index}"
