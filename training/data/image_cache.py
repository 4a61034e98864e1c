"""On-disk cache of rendered synthetic datasets and their latents, as memory maps."""

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
"""Images per job of a worker process."""


class DrawnImages:
    """Rendered images with their ground truth, drawn once into `folder`.

    `images[i]` is uint8 [height, width, 3]; `truth[i]` is the ground truth that `draw` returned with it.
    """

    def __init__(self, folder: Path, name: str, draw: Callable[[Any], tuple[Any, Any]], jobs: Sequence[Any]) -> None:
        self.name = name
        pixels, truth = folder / f"{name}.npy", folder / f"{name}.json"
        if not truth.is_file():
            draw_once(pixels, truth, draw, jobs)
        self.images: np.ndarray[Any, np.dtype[np.uint8]] = np.load(pixels, mmap_mode="r")
        self.truth: list[Any] = json.loads(truth.read_text())

    def __len__(self) -> int:
        return len(self.truth)


class OutfitImages(DrawnImages):
    """The first `count` outfits of a split; `garments[i]` are those of image i.

    Args:
        styled: paint them in the creatures' styles, in turn; `style_of(i)` is that of image i.
    """

    def __init__(self, folder: Path, split: str, count: int, seed: int = 0, *, styled: bool = False) -> None:
        jobs = [(split, i, seed, self.style_of(i) if styled else None) for i in range(count)]
        kind = "outfits-styled" if styled else "outfits"
        super().__init__(folder, f"{kind}-{split}-{seed}-{count}", _draw_outfit, jobs)
        self.garments = [tuple(Garment(**g) for g in row) for row in self.truth]

    @staticmethod
    def style_of(index: int) -> str:
        return creatures.STYLES[index % len(creatures.STYLES)]


class CreatureImages(DrawnImages):
    """The first `count` creatures of a split; `creatures[i]` in `styles[i]`.

    Args:
        style: the only style; None draws all styles except the neutral one.
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
    """Fills a memory map of bytes and a JSON list with the results of `draw` for every job, on all cores.

    `truth` is written last, so both files are complete if it exists. One process draws while others wait.
    """
    pixels.parent.mkdir(parents=True, exist_ok=True)
    with _lock(truth):
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
        if len(jobs) > CHUNK:  # starting processes takes longer than drawing fewer
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
    cache_dir: Path, vae: Any, source: Path, images: DrawnImages
) -> "np.ndarray[Any, np.dtype[np.float16]]":
    """Scaled latents (posterior means) of all images, cached per autoencoder."""
    digest = file_digest(source / "diffusion_pytorch_model.safetensors")
    path = cache_dir / f"latents-{images.name}-{digest[:16]}.npy"

    def encoded() -> np.ndarray[Any, np.dtype[np.float16]]:
        rows = []
        for start in tqdm(range(0, len(images), 64), desc="encoding", mininterval=1.0):
            batch = to_unit(torch.from_numpy(np.array(images.images[start : start + 64])))
            rows.append(encode_latents(vae, batch).half().cpu().numpy())
        return np.concatenate(rows)

    return saved_once(path, encoded)


def saved_once(path: Path, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Loads an array from disk; if not found, one process makes it with `make` and saves it atomically."""
    if not path.is_file():
        with _lock(path):
            if not path.is_file():
                made = make()
                with atomic_path(path) as partial:
                    np.save(partial, made)
    return np.load(path, mmap_mode="r")


def _lock(path: Path) -> FileLock:
    """Lock of the process that makes a file; the system releases it if that process dies."""
    return FileLock(path.with_name(f".{path.name}.lock"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
