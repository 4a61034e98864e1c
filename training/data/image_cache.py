"""On-disk cache of rendered synthetic datasets and their latents, as memory maps."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from diffusers import ModelMixin
from filelock import FileLock
from jaxtyping import Float, Float16, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weftwork.attention_processors.encoders.latents import encode_latents, to_unit
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.synthetic import outfits
from weftwork.datasets.synthetic.outfits import Garment
from weftwork.training.data.feature_cache import encoder_key

logger = logging.getLogger(__name__)

T = TypeVar("T")
JobT = TypeVar("JobT")
TruthT = TypeVar("TruthT")
Pixels = UInt8[np.ndarray, "*size"]
Latents = Float16[np.ndarray, "sample *size"]
Truth = dict[str, Any]
"""What an image shows, as JSON."""


class Images(Protocol):
    """Images whose latents can be cached under a name."""

    name: str

    def __len__(self) -> int: ...

    def pixels(self, rows: slice) -> Pixels: ...


CHUNK = 32
"""Images per job of a worker process."""


class DrawnImages(Generic[TruthT]):
    """Rendered images with their ground truth, drawn once into `folder`.

    `images[i]` is uint8 [height, width, 3]; `truth[i]` is the ground truth that `draw` returned with it.
    """

    def __init__(
        self, folder: Path, name: str, draw: Callable[[JobT], tuple[Pixels, TruthT]], jobs: Sequence[JobT]
    ) -> None:
        self.name = name
        pixels, truth = folder / f"{name}.npy", folder / f"{name}.json"
        if not truth.is_file():
            draw_once(pixels, truth, draw, jobs)
        self.images: UInt8[np.ndarray, "image height width channel"] = np.load(pixels, mmap_mode="r")
        self.truth: list[TruthT] = json.loads(truth.read_text())

    def __len__(self) -> int:
        return len(self.truth)

    def pixels(self, rows: slice) -> Pixels:
        """Reads images from disk."""
        return np.array(self.images[rows])


class CachedLatents(Dataset[T]):
    """Base of datasets of images whose latents, [index, channel, height, width], are cached."""

    def __init__(self, latents: Latents) -> None:
        self.cached = latents

    def __len__(self) -> int:
        return len(self.cached)

    def latent(self, index: int) -> Float[Tensor, "channel height width"]:
        return torch.from_numpy(self.cached[index].astype(np.float32))


class OutfitImages(DrawnImages[list[dict[str, str]]]):
    """The first `count` outfits of a split; `garments[i]` are those of image i.

    Args:
        styled: paint them in the eight styles, in turn; `style_of(i)` is that of image i.
    """

    def __init__(self, folder: Path, split: str, count: int, seed: int = 0, *, styled: bool = False) -> None:
        jobs = [(split, i, seed, self.style_of(i) if styled else None) for i in range(count)]
        kind = "outfits-styled" if styled else "outfits"
        super().__init__(folder, f"{kind}-{split}-{seed}-{count}", _draw_outfit, jobs)
        self.garments = [tuple(Garment(**g) for g in row) for row in self.truth]

    @staticmethod
    def style_of(index: int) -> str:
        return outfits.STYLES[index % len(outfits.STYLES)]


def _draw_outfit(arguments: tuple[str, int, int, str | None]) -> tuple[Pixels, list[dict[str, str]]]:
    split, index, seed, style = arguments
    drawn = outfits.sample(split, index, seed=seed, style=style)
    return drawn.image, [asdict(garment) for garment in drawn.garments]


def draw_once(pixels: Path, truth: Path, draw: Callable[[JobT], tuple[Pixels, object]], jobs: Sequence[JobT]) -> None:
    """Fills a memory map of bytes and a JSON list with the results of `draw` for every job, on all cores.

    `truth` is written last, so both files are complete if it exists. One process draws while others wait.
    """
    pixels.parent.mkdir(parents=True, exist_ok=True)
    with _lock(truth):
        if not truth.is_file():
            _draw(pixels, truth, draw, jobs)


def _draw(pixels: Path, truth: Path, draw: Callable[[JobT], tuple[Pixels, object]], jobs: Sequence[JobT]) -> None:
    shape = (len(jobs), *draw(jobs[0])[0].shape)
    rows: list[object] = []
    with ExitStack() as stack:
        partial = stack.enter_context(atomic_path(pixels))
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS and Windows; a disk that is full later would end the process
            with partial.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
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


def cached_latents(cache_dir: Path, vae: ModelMixin, images: Images) -> Latents:
    """Scaled latents (posterior means) of all images, cached per autoencoder."""

    def encode(rows: slice) -> Tensor:
        return encode_latents(vae, to_unit(torch.from_numpy(images.pixels(rows))))

    path = cache_dir / f"latents-{images.name}-{vae_key(vae)}.npy"
    return saved_once(path, lambda: encoded_rows(encode, len(images), 64))


def vae_key(vae: ModelMixin) -> str:
    """Digest of an autoencoder of images and of what its latents are normalised by."""
    names = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    known = [str(vae.config[name]) for name in names if vae.config.get(name) is not None]
    return encoder_key(" ".join(["vae", *known]), vae)


@torch.no_grad()
def encoded_rows(encode: Callable[[slice], Tensor], count: int, at_once: int) -> Latents:
    """Encodes samples by slices of their indices, as float16."""
    starts = tqdm(range(0, count, at_once), desc="encoding", mininterval=1.0)
    return np.concatenate([encode(slice(start, start + at_once)).half().cpu().numpy() for start in starts])


def saved_once(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
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
