"""Streamed captioned images, for datasets that are too large to list first: read row by row, shuffled in a buffer.

The datasets are those of `CaptionedImages.from_name`; one that `save_to_disk` wrote is streamed from its files. Rows
are checked when they are read; wrong ones are left out, and counted.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

import datasets
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset

from weftwork.datasets.readers.captioned_columns import (
    check_header,
    find_columns,
    read_cell,
    wrong_text,
)
from weftwork.datasets.readers.captioned_images import CaptionedImage, Options, load
from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

BUFFER: Final = 1000
"""Size of the shuffle buffer in rows; the order of files is shuffled, too."""


class CaptionedStream(IterableDataset[CaptionedImage]):
    """Rows of a Hugging Face stream, in an order that depends on seed and epoch.

    Each process reads files of its own if there are enough, otherwise every `processes`-th row of all files.

    Args:
        rows: with known columns.
        options: as of `CaptionedImages`.
        styles: names in the style column, unless it has labels.
        seed, buffer: seed and buffer size of shuffling.
        name: name of the dataset in messages.

    Attributes:
        left_out: number of wrong rows so far.

    Raises:
        ValueError: a column that is missing or ambiguous; no style, or both a column and a name; a style column
            without `styles`, or `styles` without effect.
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        *,
        styles: Sequence[str] = (),
        seed: int = 0,
        buffer: int = BUFFER,
        name: str = "dataset",
        **options: Unpack[Options],
    ) -> None:
        rows = rows._resolve_features() if rows.features is None else rows
        features = rows.features
        assert features is not None
        try:
            self._image, self._caption, self._style_column, style = find_columns(features, **options)
            self.styles = _names(features, self._style_column, style, styles)
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
        self._labels = features[self._style_column] if self._style_column is not None else None
        self._rows = rows.cast_column(self._image, datasets.Image(decode=False))
        self._seed, self._buffer, self._name = seed, buffer, name
        self._place, self.left_out = (0, 0, 1), 0

    @classmethod
    def from_name(
        cls,
        name_or_path: str | Path,
        split: str = "train",
        *,
        styles: Sequence[str] = (),
        seed: int = 0,
        **options: Unpack[Options],
    ) -> "CaptionedStream":
        """Opens a dataset by its name on the Hub, or by the path of a folder.

        Raises:
            ValueError: as for the class, and a dataset that cannot be opened.
        """
        rows = load(name_or_path, split, None, streaming=True)
        if isinstance(rows, datasets.Dataset):
            rows = rows.to_iterable_dataset()
        return cls(rows, styles=styles, seed=seed, name=str(name_or_path), **options)

    def place(self, epoch: int, process: int = 0, processes: int = 1) -> None:
        """Sets the next epoch, and this process's share of it."""
        self._place = (epoch, process, processes)

    def __iter__(self) -> Iterator[CaptionedImage]:
        epoch, process, processes = self._place
        shuffled = self._rows.shuffle(seed=(self._seed << 20) + epoch, buffer_size=self._buffer)
        for row in split_dataset_by_node(shuffled, process, processes):
            try:
                yield self._sample(row)
            except ValueError as error:
                self.left_out += 1
                logger.warning("%s: left out a row (%d so far): %s", self._name, self.left_out, error)

    def _sample(self, row: dict[str, Any]) -> CaptionedImage:
        style: Any = self.styles[0] if self._style_column is None else row[self._style_column]
        if isinstance(self._labels, datasets.ClassLabel):
            style = None if style is None or style < 0 else self._labels.int2str(style)
        for text, place in ((row[self._caption], self._caption), (style, "style")):
            if problem := wrong_text(text, place):
                raise UserError(problem)
        if style.strip() not in self.styles:
            raise UserError(f"style: got {style!r}, expected one of {', '.join(self.styles)}; add it to styles")
        check_header(row[self._image], self._image)
        return CaptionedImage(read_cell(row[self._image], self._image), row[self._caption].strip(), style.strip())


def _names(
    features: datasets.Features, column: str | None, style: str | None, styles: Sequence[str]
) -> tuple[str, ...]:
    """Returns the names of all styles, which a stream does not list in advance."""
    feature = None if column is None else features[column]
    labels = feature.names if isinstance(feature, datasets.ClassLabel) else ()
    known = tuple(labels) if style is None else (style.strip(),)
    if known and styles:
        raise UserError(f"styles: has no effect with data whose styles are {', '.join(known)}; leave it out")
    if not known and not styles:
        raise UserError(f"styles: got none for the column {column!r}, expected its names; pass them, in order")
    return known or tuple(styles)
