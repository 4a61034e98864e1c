"""Training data of aligned views: latents and geometry of two references and one target."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from diffusers import ModelMixin
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.views.batch import ViewsBatch, WarpedScene
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.readers.posed_views import PosedViews
from weftwork.datasets.synthetic.rooms import REFERENCES, TARGETS, Scene, sample
from weftwork.training.data.image_cache import DrawnImages, Latents, Pixels, encoded_rows, saved_once, vae_key

COLORS, POINTS = 3, 3


class Prepared(Protocol):
    """Sequence of view sets, as arrays of `prepared`."""

    def __len__(self) -> int: ...
    def view(self, index: int) -> Float[np.ndarray, "view 17 height width"]: ...


def prepared(references: Sequence[ReferenceView], target: ReferenceView) -> Float[np.ndarray, "view 17 height width"]:
    """Stacks the collated references and then the target, in the target's frame and the references' range.

    Channels: the view's image, its true points, the input of the correspondence encoder, and, of the target alone, the
    references warped to its camera, 0 where they are not visible.
    """
    scene = WarpedScene.of(references, target.camera)
    batch = ViewsBatch.of_scenes([scene])
    known = torch.cat([batch.images[0], batch.points[0]], 1).numpy() * 2 - 1
    sought = np.concatenate([target.image * 2 - 1, scene.span.scaled(target.points)], -1)
    planes = np.concatenate([known, np.moveaxis(sought, -1, 0)[None]])
    warped = np.zeros_like(planes[:, :COLORS])
    warped[-1] = batch.warped[0].numpy() * 2 - 1
    return np.concatenate([planes, batch.geometry[0].numpy(), warped], 1)


class RoomImages(DrawnImages[str]):
    """The first `count` rooms of a split; even ones with the target between the references, odd ones beyond them.

    `view(i)` is the array of `prepared` of room i.
    """

    def __init__(self, folder: Path, split: str, count: int, size: int = 128, seed: int = 0) -> None:
        jobs = [(split, i, seed, size) for i in range(count)]
        super().__init__(folder, f"rooms-warped-{size}-{split}-{seed}-{count}", _draw_room, jobs)
        self.folder = folder
        self.scenes: list[Scene] = [sample(split, i, seed=seed, views=()).scene for i in range(count)]

    def planes(self) -> UInt8[np.ndarray, "plane height width 3"]:
        """Training data of an autoencoder, uint8: by room the images of all views, then their point maps."""

        def made() -> UInt8[np.ndarray, "plane height width 3"]:
            rows = []
            for index in range(len(self)):
                both = np.clip(self.view(index)[:, : COLORS + POINTS] * 127.5 + 128, 0, 255).astype(np.uint8)
                rows += [both[:, :COLORS], both[:, COLORS:]]
            return np.moveaxis(np.concatenate(rows), 1, -1)

        return saved_once(self.folder / f"planes-{self.name}.npy", made)

    def view(self, index: int) -> Float[np.ndarray, "view 17 height width"]:
        return np.ascontiguousarray(self.images[index]).view(np.float16)[..., 0].astype(np.float32)


def room_views(split: str, index: int, size: int, seed: int = 0) -> tuple[list[ReferenceView], ReferenceView]:
    """Returns references and target of a room of `RoomImages`."""
    name = TARGETS[index % 2]
    views = sample(split, index, seed=seed, size=size, views=(*REFERENCES, name)).views
    return [ReferenceView.of_view(views[one]) for one in REFERENCES], ReferenceView.of_view(views[name])


def _draw_room(arguments: tuple[str, int, int, int]) -> tuple[Pixels, str]:
    split, index, seed, size = arguments
    rows = prepared(*room_views(split, index, size, seed))
    return rows.astype(np.float16)[..., None].view(np.uint8), TARGETS[index % 2]


class ClipImages:
    """Stretches of user clips, each with one target between the references and one beyond them.

    Args:
        size: side in pixels that frames and depth are squeezed to.

    Raises:
        ValueError: in `view`, a frame without depth.
    """

    def __init__(self, stretches: PosedViews, size: int) -> None:
        self.stretches, self.size = stretches, size

    def __len__(self) -> int:
        return len(self.stretches) * len(TARGETS)

    def view(self, index: int) -> Float[np.ndarray, "view 17 height width"]:
        return prepared(*self.views(index))

    def views(self, index: int) -> tuple[list[ReferenceView], ReferenceView]:
        """Returns references and target of a sample."""
        place, target = divmod(index, len(TARGETS))
        frames = self.stretches[place]
        made = [ReferenceView.of_frame(frames[one], self.size) for one in (*REFERENCES, TARGETS[target])]
        return made[:-1], made[-1]


class ViewsRecord(NamedTuple):
    """One target with its references, references first; as a batch, each tensor has one more dimension.

    Args:
        image, points: latents of images and point maps.
        warped: latents of the references warped to the target.
        geometry: input of `CorrespondenceEncoder`.
    """

    image: Float[Tensor, "view channel h w"]
    points: Float[Tensor, "view channel h w"]
    warped: Float[Tensor, "channel h w"]
    geometry: Float[Tensor, "view 8 height width"]


class PreparedViews(Dataset[ViewsRecord]):
    """View sets with the latents of their images and point maps, as `view_latents` returns them."""

    def __init__(self, images: Prepared, latents: Latents) -> None:
        self.images, self.latents = images, latents

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ViewsRecord:
        latents = torch.from_numpy(self.latents[index].astype(np.float32))
        image, points = latents[:-1].chunk(2)
        geometry = np.ascontiguousarray(self.images.view(index)[:, COLORS + POINTS : -COLORS], np.float32)
        return ViewsRecord(image, points, latents[-1], torch.from_numpy(geometry))


def view_latents(images: Prepared, vae: ModelMixin) -> Latents:
    """Scaled latents (posterior means), [sample, plane, channel, h, w].

    Planes: the images of all views, their point maps, and the references warped to the target.
    """

    def encode(rows: slice) -> Tensor:
        known = images.view(rows.start)
        parts = np.concatenate([known[:, :COLORS], known[:, COLORS : COLORS + POINTS], known[-1:, -COLORS:]])
        return encode_latents(vae, torch.from_numpy(parts))[None]

    return encoded_rows(encode, len(images), 1)


def cached_room_latents(cache_dir: Path, vae: ModelMixin, images: RoomImages) -> Latents:
    """`view_latents` of rooms, cached per autoencoder."""
    path = cache_dir / f"view-latents-{images.name}-{vae_key(vae)}.npy"
    return saved_once(path, lambda: view_latents(images, vae))
