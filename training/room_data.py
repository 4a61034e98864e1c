"""Training data of aligned views: rooms as latents and geometry, each with two references and one target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weft.datasets.rooms import View, sample
from weft.pipelines.point_maps import PointRange
from weft.pipelines.warping import ReferenceView, warp_mesh
from weft.training.picture_cache import DrawnPictures, file_digest

REFERENCES: Final = ("reference_0", "reference_1")
TARGETS: Final = ("interpolating", "extrapolating")
COLORS, POINTS, GEOMETRY = 3, 3, 8
PARTS: Final = (COLORS, POINTS, GEOMETRY)
"""Channels of a drawn view: its picture, its true points in the range of the references, and what is known of it."""


def reference_of(view: View) -> ReferenceView:
    """A rendered view as a reference, with its exact depth."""
    return ReferenceView.of_depth(view.image / 255, view.depth, view.camera)


class RoomPictures(DrawnPictures):
    """The first `count` rooms of a split; odd ones with the target beyond the references, even ones between them.

    `view(i)` is [reference 0, reference 1, target] x [channel of `PARTS`, height, width].
    """

    def __init__(self, folder: Path, split: str, count: int, size: int = 128, seed: int = 0) -> None:
        jobs = [(split, i, seed, size) for i in range(count)]
        super().__init__(folder, f"rooms-{size}-{split}-{seed}-{count}", _draw_room, jobs)

    def view(self, index: int) -> Float[np.ndarray, "3 14 height width"]:
        return np.ascontiguousarray(self.images[index]).view(np.float16)[..., 0].astype(np.float32)


def _draw_room(arguments: tuple[str, int, int, int]) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], str]:
    split, index, seed, size = arguments
    name = TARGETS[index % 2]
    views = sample(split, index, seed=seed, size=size, views=(*REFERENCES, name)).views
    camera, references = views[name].camera, [reference_of(views[one]) for one in REFERENCES]
    span = PointRange.over(references, camera)
    known = [warp_mesh([one], one.camera, (size, size)) for one in references]
    known.append(warp_mesh(references, camera, (size, size)))
    rows = []
    for view, warped in zip((*(views[one] for one in REFERENCES), views[name]), known, strict=True):
        flat = np.concatenate([view.image / 127.5 - 1, span.scaled(view.points)], -1)
        rows.append(np.concatenate([np.moveaxis(flat, -1, 0), span.geometry(warped).numpy()]))
    return np.stack(rows).astype(np.float16)[..., None].view(np.uint8), name


@dataclass(frozen=True)
class ViewsRecord:
    """One target with its references, references first.

    Args:
        image, points: latents of pictures and point maps.
        geometry: what `CorrespondenceEncoder` reads.
    """

    image: Float[Tensor, "view channel h w"]
    points: Float[Tensor, "view channel h w"]
    geometry: Float[Tensor, "view 8 height width"]


class RoomViews(Dataset[ViewsRecord]):
    """Rooms with the latents of their pictures and point maps.

    Args:
        latents: of `cached_room_latents`.
    """

    def __init__(self, pictures: RoomPictures, latents: "np.ndarray[Any, np.dtype[np.float16]]") -> None:
        self.pictures, self.latents = pictures, latents

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> ViewsRecord:
        image, points = torch.from_numpy(self.latents[index].astype(np.float32)).unbind(1)
        geometry = self.pictures.view(index)[:, COLORS + POINTS :]
        return ViewsRecord(image, points, torch.from_numpy(np.ascontiguousarray(geometry)))


@torch.no_grad()
def cached_room_latents(
    cache_dir: Path, vae: Any, source: Path, pictures: RoomPictures
) -> "np.ndarray[Any, np.dtype[np.float16]]":
    """Scaled latents (posterior means), [room, view, picture or points, channel, h, w], once per autoencoder."""
    digest = file_digest(source / "diffusion_pytorch_model.safetensors")
    path = cache_dir / f"latents-{pictures.name}-{digest[:16]}.npy"
    if not path.is_file():
        rows = []
        for index in tqdm(range(len(pictures)), desc="encoding", mininterval=1.0):
            both = torch.from_numpy(pictures.view(index)[:, : COLORS + POINTS]).unflatten(1, (2, 3)).flatten(0, 1)
            latents = vae.encode(both).latent_dist.mode().mul(vae.config["scaling_factor"])
            rows.append(latents.unflatten(0, (-1, 2)).half().numpy())
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.stack(rows))
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def stacked(records: Sequence[ViewsRecord]) -> Mapping[str, Tensor]:
    """One batch, [row, view, …] each."""
    return {name: torch.stack([getattr(one, name) for one in records]) for name in ("image", "points", "geometry")}
