"""Sampling of views: image and point map denoised together from one noise, and their result."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import PointRange, depth_along_rays, normals_of
from weftwork.attention_processors.views.warping import WarpedView
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.views.known import KnownLatents, KnownPixels

Denoise = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Predictions for noisy latents of image and point map at timesteps, by row."""
Pair = tuple[Tensor, Tensor]


@dataclass
class AlignedViewsOutput(BaseOutput):
    """Output of pipelines of views.

    Args:
        images: the image, of the type `output_type`.
        pixels: the image as bytes.
        points, normals: in world coordinates.
        depth: along the target camera's axis, in the references' unit.
        seen: mask of pixels that references cover; others are generated.
        warped: the references, warped to the target camera.
    """

    images: "list[Image.Image] | Float[np.ndarray, '1 height width 3']"
    pixels: UInt8[np.ndarray, "height width 3"]
    points: Float[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    normals: Float[np.ndarray, "height width 3"]
    seen: Bool[np.ndarray, "height width"]
    warped: WarpedView

    def save_point_cloud(self, path: str | Path) -> Path:
        """Writes all pixels as a coloured point cloud, for example as PLY; `ValueError` for an unknown suffix."""
        path = Path(path)
        if path.suffix.lower() not in (".ply", ".glb", ".xyz"):
            raise UserError(f"path: got {path.name!r}, expected a name that ends in .ply, .glb or .xyz; change it")
        import trimesh  # slow, and only needed here

        cloud = trimesh.PointCloud(self.points.reshape(-1, 3), self.pixels.reshape(-1, 3))
        with atomic_path(path) as partial:
            cloud.export(partial)
        return path


def check_call(references: Sequence[ReferenceView], size: tuple[int, int], output_type: str) -> None:
    """Raises unless all references have the size of the canvas and the output has a known type."""
    if output_type not in ("pil", "np"):
        raise UserError(f"output_type: got {output_type!r}, expected 'pil' or 'np'; pass one of these")
    if not references:
        raise UserError("references: got none, expected at least one view; pass at least one image")
    sizes = {one.image.shape[:2] for one in references}
    if sizes != {size}:
        got = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UserError(
            f"references: got images of {got}, expected {size[1]}x{size[0]} for all; resize images and depth, cameras "
            "stay as they are"
        )


def check_seen(warped: WarpedView) -> None:
    """Raises if the target camera sees nothing of the references."""
    if not warped.seen.any():
        raise UserError("camera: got one that sees nothing of the references; turn it towards them, or move it")


def known_latents(known: KnownPixels, span: PointRange, vae: Any, dtype: torch.dtype) -> KnownLatents:
    """Encodes known pixels and their point map."""
    parts = np.stack([known.image * 2 - 1, span.scaled(span.camera.points(known.depth))])
    latents = encode_latents(vae, torch.from_numpy(parts).movedim(-1, 1)).to(dtype)
    return KnownLatents(latents.split(1), known.cells(*latents.shape[-2:]).to(latents))


def denoised(
    denoise: Denoise,
    scheduler: Any,
    noise: Float[Tensor, "1 channel h w"],
    guidance_scale: float | None,
    known: KnownLatents | None,
    steps: Any,
    on_step: Callable[[int, Tensor, Tensor], object],
) -> Pair:
    """Denoises the latents of image and point map, from one noise.

    Args:
        scheduler: with its timesteps set.
        guidance_scale: of two rows, the unconditional one first; None for one row.
        steps: function that shows the progress over timesteps and yields them.
        on_step: called after each step with its index, its timestep, and the latents of the image.
    """
    schedulers, rows = [copy.deepcopy(scheduler) for _ in range(2)], 1 if guidance_scale is None else 2
    latents = [noise * scheduler.init_noise_sigma for scheduler in schedulers]
    for step, time in enumerate(steps(scheduler.timesteps)):
        image, points = (
            s.scale_model_input(x, time).repeat(rows, 1, 1, 1) for s, x in zip(schedulers, latents, strict=True)
        )
        predicted = denoise(image, points, time.repeat(rows).to(noise.device))
        for i, output in enumerate(predicted):
            if guidance_scale is not None:
                free, guided = output.chunk(2)
                output = free + guidance_scale * (guided - free)
            latents[i] = schedulers[i].step(output, time, latents[i]).prev_sample
            if known is not None:
                latents[i] = known.blended(i, latents[i], noise, schedulers[i], step)
        on_step(step, time, latents[0])
    return latents[0], latents[1]


def decoded_view(
    latents: Pair, vae: Any, span: PointRange, warped: WarpedView, known: KnownPixels | None, output_type: str
) -> AlignedViewsOutput:
    """Decodes the latents of image and point map, and puts known pixels in."""
    image, values = (_decoded(vae, part) for part in latents)
    camera = span.camera
    depth = depth_along_rays(span.restored(values * 2 - 1), camera)
    if known is not None:
        image, depth = known.kept(image, depth)
    points = camera.points(depth)
    pixels = (image * 255).round().astype(np.uint8)
    return AlignedViewsOutput(
        images=[Image.fromarray(pixels)] if output_type == "pil" else image[None],
        pixels=pixels,
        points=points,
        depth=depth,
        normals=normals_of(points, camera),
        seen=warped.seen,
        warped=warped,
    )


def _decoded(vae: Any, latents: Float[Tensor, "1 channel h w"]) -> Float[np.ndarray, "height width 3"]:
    """Decodes latents to an image in [0, 1]."""
    decoded = vae.decode(latents.to(vae.dtype) / vae.config["scaling_factor"])[0]
    return (decoded.float() / 2 + 0.5).clamp(0, 1)[0].movedim(0, -1).cpu().numpy()
