"""Rendered worlds on disk: the training loops read pictures from a memory map instead of drawing them again."""

import hashlib
import json
import logging
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from weft.datasets.outfits import Garment, sample

logger = logging.getLogger(__name__)


class OutfitPictures:
    """The first `count` pictures of a split with what they show, drawn once into `folder`.

    `images[i]` is uint8 [height, width, 3]; `garments[i]` the garments of that picture.
    """

    def __init__(self, folder: Path, split: str, count: int, seed: int = 0) -> None:
        name = f"outfits-{split}-{seed}-{count}"
        pictures, truth = folder / f"{name}.npy", folder / f"{name}.json"
        if not truth.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _render_all(pictures, truth, split, count, seed)
        self.images: np.ndarray[Any, np.dtype[np.uint8]] = np.load(pictures, mmap_mode="r")
        self.garments = [tuple(Garment(**g) for g in row) for row in json.loads(truth.read_text())]

    def __len__(self) -> int:
        return len(self.garments)


def _render_one(
    arguments: tuple[str, int, int],
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[dict[str, str]]]:
    split, index, seed = arguments
    drawn = sample(split, index, seed=seed)
    return drawn.image, [asdict(garment) for garment in drawn.garments]


def _render_all(pictures: Path, truth: Path, split: str, count: int, seed: int) -> None:
    partial = pictures.with_suffix(".partial.npy")
    first, _ = _render_one((split, 0, seed))
    images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(count, *first.shape))
    garments: list[list[dict[str, str]]] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = pool.map(_render_one, ((split, i, seed) for i in range(count)), chunksize=64)
        for i, (image, row) in enumerate(tqdm(jobs, total=count, desc=f"drawing {split}", mininterval=1.0)):
            images[i] = image
            garments.append(row)
    images.flush()
    del images
    partial.replace(pictures)
    partial_truth = truth.with_suffix(".partial")
    partial_truth.write_text(json.dumps(garments))
    partial_truth.replace(truth)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
