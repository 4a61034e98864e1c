"""Rendered worlds on disk: the training loops read pictures from a memory map instead of drawing them again."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from weftwork.attention_processors.encoders.latents import encode_latents, to_unit
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.synthetic import creatures, outfits
from weftwork.datasets.synthetic.creatures import Creature
from weftwork.datasets.synthetic.outfits import Garment

logger = logging.getLogger(__name__)

CHUNK = 32
"""Images that a process draws at a time."""


class DrawnPictures:
    """Pictures of a world with what they show, drawn once into `folder`.

    `images[i]` is uint8 [height, width, 3]; `truth[i]` is what `draw` said of that picture.
    """

    def __init__(self, folder: Path, name: str, draw: Callable[[Any], tuple[Any, Any]], jobs: Sequence[Any]) -> None:
        self.name = name
        pictures, truth = folder / f"{name}.npy", folder / f"{name}.json"
        if not truth.is_file():
            draw_once(pictures, truth, draw, jobs)
        self.images: np.ndarray[Any, np.dtype[np.uint8]] = np.load(pictures, mmap_mode="r")
        self.truth: list[Any] = json.loads(truth.read_text())

    def __len__(self) -> int:
        return len(self.truth)


class OutfitPictures(DrawnPictures):
    """The first `count` outfits of a split; `garments[i]` are those of picture i.

    Args:
        styled: whether they are painted in the styles of the creatures, by turns; `style_of(i)` is that of picture i.
    """

    def __init__(self, folder: Path, split: str, count: int, seed: int = 0, *, styled: bool = False) -> None:
        jobs = [(split, i, seed, self.style_of(i) if styled else None) for i in range(count)]
        world = "outfits-styled" if styled else "outfits"
        super().__init__(folder, f"{world}-{split}-{seed}-{count}", _draw_outfit, jobs)
        self.garments = [tuple(Garment(**g) for g in row) for row in self.truth]

    @staticmethod
    def style_of(index: int) -> str:
        return creatures.STYLES[index % len(creatures.STYLES)]


class CreaturePictures(DrawnPictures):
    """The first `count` creatures of a split; `creatures[i]` in `styles[i]`.

    Args:
        style: the one look to draw; None draws all styles, and no neutral look.
    """

    def __init__(self, folder: Path, split: str, count: int, style: str | None = None, seed: int = 0) -> None:
        jobs = [(split, i, seed, style) for i in range(count)]
        super().__init__(folder, f"creatures-{style or 'styled'}-{split}-{seed}-{count}", _draw_creature, jobs)
        self.creatures = [Creature(**row["creature"]) for row in self.truth]
        self.styles: list[str] = [row["style"] for row in self.truth]


def _draw_outfit(
    arguments: tuple[str, int, int, str | None],
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[dict[str, str]]]:
    split, index, seed, style = arguments
    drawn = outfits.sample(split, index, seed=seed, style=style)
    return drawn.image, [asdict(garment) for garment in drawn.garments]


def _draw_creature(
    arguments: tuple[str, int, int, str | None],
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], dict[str, Any]]:
    split, index, seed, style = arguments
    drawn = creatures.sample(split, index, seed=seed, style=style)
    return drawn.image, {"creature": asdict(drawn.creature), "style": drawn.style}


def draw_once(
    pixels: Path, truth: Path, draw: Callable[[Any], tuple[np.ndarray[Any, Any], Any]], jobs: Sequence[Any]
) -> None:
    """Fill a memory map of bytes and a JSON list with what `draw` makes of every job, on all cores.

    `truth` is written last, so whoever finds it finds both whole. Of several processes one draws, the others wait.
    """
    pixels.parent.mkdir(parents=True, exist_ok=True)
    with _alone(truth):
        if not truth.is_file():
            _draw(pixels, truth, draw, jobs)


def _draw(
    pixels: Path, truth: Path, draw: Callable[[Any], tuple[np.ndarray[Any, Any], Any]], jobs: Sequence[Any]
) -> None:
    shape = (len(jobs), *draw(jobs[0])[0].shape)
    rows: list[Any] = []
    with ExitStack() as stack:
        partial = stack.enter_context(atomic_path(pixels))
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        drawn = map(draw, jobs)
        if len(jobs) > CHUNK:  # fewer are drawn sooner than processes start
            pool = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
            drawn = stack.enter_context(pool).map(draw, jobs, chunksize=CHUNK)
        for i, (image, row) in enumerate(tqdm(drawn, total=len(jobs), desc=f"drawing {pixels.stem}", mininterval=1.0)):
            images[i] = image
            rows.append(row)
        images.flush()
        del images
    with atomic_path(truth) as partial:
        partial.write_text(json.dumps(rows))


@torch.no_grad()
def cached_latents(
    cache_dir: Path, vae: Any, source: Path, pictures: DrawnPictures
) -> "np.ndarray[Any, np.dtype[np.float16]]":
    """Scaled latents (posterior means) of all pictures, encoded once per autoencoder."""
    digest = file_digest(source / "diffusion_pytorch_model.safetensors")
    path = cache_dir / f"latents-{pictures.name}-{digest[:16]}.npy"

    def encoded() -> np.ndarray[Any, np.dtype[np.float16]]:
        rows = []
        for start in tqdm(range(0, len(pictures), 64), desc="encoding", mininterval=1.0):
            batch = to_unit(torch.from_numpy(np.array(pictures.images[start : start + 64])))
            rows.append(encode_latents(vae, batch).half().cpu().numpy())
        return np.concatenate(rows)

    return saved_once(path, encoded)


def saved_once(path: Path, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """An array on disk, made by `make` unless it is there; whole or not at all, and by one process of several."""
    if not path.is_file():
        with _alone(path):
            if not path.is_file():
                made = make()
                with atomic_path(path) as partial:
                    np.save(partial, made)
    return np.load(path, mmap_mode="r")


def _alone(path: Path) -> FileLock:
    """Held by the process that makes a file; the system frees it if that one dies."""
    return FileLock(path.with_name(f".{path.name}.lock"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
