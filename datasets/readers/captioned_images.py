"""Captioned images for training styles: an image, a caption of its content, and the name of its style.

    folder/metadata.jsonl          or metadata.csv, with the same names as columns
    folder/1.png  ...              any names, any depth, but inside the folder

A line of ``metadata.jsonl``:

    {"file_name": "1.png", "text": "a fox on a hill", "style": "ink"}

``CaptionedImages.from_folder`` reads such a folder, with Hugging Face's ``imagefolder``; ``CaptionedImages.from_name``
reads any Hugging Face dataset of images and texts, by its name on the Hub or a path.

- images are in the one column with an ``Image`` feature, captions in the first of ``text``, ``caption`` and
  ``prompt`` that exists, styles in ``style``, as texts or a ``ClassLabel``; other columns can be named, all others are
  ignored;
- a dataset without styles gets one name for all;
- every row is checked when the dataset is opened (of images the header); pixels are read on access.
"""

import csv
import json
import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Final, TypedDict, Unpack

import datasets
from PIL import Image
from torch.utils.data import Dataset

from weftwork.datasets.readers.captioned_columns import (
    STYLE_COLUMN,
    Cell,
    check_header,
    find_columns,
    read_cell,
    wrong_text,
)
from weftwork.datasets.readers.errors import UserError, check_choice

METADATA: Final = ("metadata.jsonl", "metadata.csv")
SAVED: Final = ("state.json", "dataset_dict.json")
HUB_NAME: Final = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


class Options(TypedDict, total=False):
    """Names of columns and styles; see `CaptionedImages`."""

    image_column: str | None
    caption_column: str | None
    style_column: str | None
    style: str | None
    styled: bool


@dataclass(frozen=True, eq=False)
class CaptionedImage:
    """An RGB image, upright and on white, with its caption and the name of its style."""

    image: Image.Image
    caption: str
    style: str


class CaptionedImages(Dataset[CaptionedImage]):
    """Rows of a Hugging Face dataset, in order, captions and styles stripped.

    Args:
        image_column: column of the images; by default the only one with an `Image` feature.
        caption_column: column of the captions; by default the first of `CAPTION_COLUMNS` that exists.
        style_column: column of the styles; by default "style".
        style: the style of all images, for a dataset without a style column.
        styled: whether styles are read; otherwise that of all images is "any".
        name: name of the dataset in errors.

    Raises:
        ValueError: no rows; a column that is missing or ambiguous; no style, or both a column and a name; or rows with
            an image that does not open, an empty caption or no style.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        *,
        name: str = "dataset",
        **options: Unpack[Options],
    ) -> None:
        rows = rows.with_format(None)
        try:
            if not len(rows):
                raise UserError("rows: got none, expected at least one; add images or choose another split")
            self._image_column, caption_column, style_column, style = find_columns(rows.features, **options)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
        self._name = name
        undecoded = datasets.Image(decode=False)
        self._images = rows.select_columns(self._image_column).cast_column(self._image_column, undecoded)
        captions = list(rows[caption_column])
        styles: list[object] = [style] * len(rows) if style_column is None else _styles(rows, style_column)
        problems = [*_wrong_texts(captions, caption_column), *_wrong_texts(styles, style_column or STYLE_COLUMN)]
        problems += _wrong_images((self._cell(i) for i in range(len(rows))), self._image_column)
        if problems:
            count = f"{len(problems)} wrong entr{'y' if len(problems) == 1 else 'ies'}"
            raise UserError(f"{name}: got {count}, expected none: {' | '.join(problems)}")
        self._captions, self._styles = ([str(text).strip() for text in texts] for texts in (captions, styles))

    @classmethod
    def from_folder(cls, folder: str | Path, **options: Unpack[Options]) -> "CaptionedImages":
        """Reads the images that a folder's metadata lists, and no others; `ValueError` without, and as the class."""
        file = _metadata(Path(folder))
        # pass the metadata alone: files named "test" in a folder would become another split
        files = {"train": escape(os.path.abspath(file))}
        try:
            rows = datasets.load_dataset("imagefolder", data_files=files, split="train")
        except Exception as error:
            raise UserError(
                f"{file}: got rows that cannot be read ({_reason(error)}), expected a file_name, a text and a style "
                "in each; correct them"
            ) from error
        return cls(rows, name=str(folder), **options)

    @classmethod
    def from_name(
        cls,
        name_or_path: str | Path,
        split: str = "train",
        *,
        config_name: str | None = None,
        **options: Unpack[Options],
    ) -> "CaptionedImages":
        """Opens a dataset by its name on the Hub, or by the path of a folder of `save_to_disk` or of parquet files.

        Args:
            split: name of the split, of a dataset that was saved with splits.
            config_name: configuration of a dataset on the Hub that has several.

        Raises:
            ValueError: no such folder, a dataset that cannot be opened, no such split, or a split or configuration of a
                dataset that was saved without; and as for the class.
        """
        rows = load(name_or_path, split, config_name)
        assert isinstance(rows, datasets.Dataset)
        return cls(rows, name=str(name_or_path), **options)

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of all styles, sorted."""
        return tuple(sorted(set(self._styles)))

    @property
    def captions(self) -> tuple[str, ...]:
        """Captions by row."""
        return tuple(self._captions)

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> CaptionedImage:
        image = read_cell(self._cell(index), f"{self._name}: {self._image_column}[{index}]")
        return CaptionedImage(image, self._captions[index], self._styles[index])

    def _cell(self, index: int) -> Cell:
        return self._images[index][self._image_column]


def _metadata(folder: Path) -> Path:
    """Returns a folder's metadata file, checked for file names, of which Hugging Face's errors are unclear."""
    if not folder.is_dir():
        raise UserError(f"folder: got no folder at {str(folder)!r}, expected one of images; check the path")
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) != 1:
        got = "both" if found else "neither"
        remedy = "remove one" if found else "list the images in one, or read a saved dataset with from_name"
        raise UserError(f"{folder}: got {got} of {' and '.join(METADATA)}, expected one of them; {remedy}")
    (file,) = found
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        table = file.suffix == ".csv"
        if len(lines) <= table:
            raise UserError("got no rows, expected one per image; write some")
        first = next(csv.reader(lines)) if table else json.loads(lines[0])
        if not isinstance(first, list if table else dict) or "file_name" not in first:
            raise UserError(
                f"got {reprlib.repr(lines[0])} as the first line, expected file_name, text and style in it; add them"
            )
    except UnicodeDecodeError:
        raise UserError(
            f"{file}: got bytes that are not UTF-8, expected lines of UTF-8 text; save it as UTF-8"
        ) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{file}: got no JSON ({error}), expected one object a line; correct it") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    return file


def load(
    name_or_path: str | Path, split: str, config_name: str | None, *, streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """Loads a split of a dataset on disk or on the Hub; with `streaming` rows are read on access."""
    path = Path(name_or_path)
    saved = any((path / name).is_file() for name in SAVED)
    if not path.is_dir() and not (isinstance(name_or_path, str) and HUB_NAME.fullmatch(name_or_path)):
        raise UserError(
            f"dataset: got no folder at {str(path)!r}, expected one, or a name on the Hub (owner/name); check the path"
        )
    try:
        if saved:
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(str(name_or_path), config_name, split=split, streaming=streaming)
    except Exception as error:
        raise UserError(
            f"dataset: got {str(name_or_path)!r}, which cannot be opened ({_reason(error)}), expected a folder or a "
            "name on the Hub; check it, its split and its config_name"
        ) from error
    whole = isinstance(loaded, datasets.Dataset | datasets.IterableDataset)
    for name, value, default in (("split", split, "train"), ("config_name", config_name, None)):
        if saved and value != default and (whole or name != "split"):
            raise UserError(f"{name}: got {value!r}, but {str(path)!r} was saved without any; leave it out")
    if isinstance(loaded, datasets.Dataset | datasets.IterableDataset):
        return loaded
    check_choice("split", split, map(str, loaded))
    return loaded[split]


def _reason(error: Exception) -> str:
    """Returns the reason of a reader's error in one line: that of the innermost exception."""
    cause = error.__cause__ or error
    return " ".join(str(cause).split()) or type(cause).__name__


def _styles(rows: datasets.Dataset, column: str) -> list[object]:
    """Returns the entries of the style column, labels by their names; None without a label."""
    feature = rows.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        return list(rows[column])
    return [None if label is None or label < 0 else feature.int2str(label) for label in rows[column]]


def _wrong_texts(texts: Sequence[object], column: str) -> list[str]:
    return [wrong for index, text in enumerate(texts) if (wrong := wrong_text(text, f"{column}[{index}]"))]


def _wrong_images(cells: Iterable[Cell | None], column: str) -> list[str]:
    problems: list[str] = []
    for index, cell in enumerate(cells):
        try:
            check_header(cell, f"{column}[{index}]")
        except ValueError as error:
            problems.append(str(error))
    return problems
