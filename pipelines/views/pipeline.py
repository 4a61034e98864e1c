"""Pipeline of new views: image and aligned geometry of a scene (after MoAI, arXiv 2506.11924).

    pipe = AlignedViewsPipeline.from_pretrained(backbone)
    pipe.load_views(folder)
    references = [ReferenceView.of_depth(image, depth, camera), ...]
    out = pipe(references, target_camera)
    out.images[0], out.depth, out.normals
    out.save_point_cloud("room.ply")

The references are warped to the target camera; the warped view and its mask become features of both roles of one frozen
denoiser (`weftwork.attention_processors.views.adapter`). One role denoises the image, the other, with the attention of
the first, the point map.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.views.adapter import AlignedViews, SeenReferences
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.views.point_maps import PointRange, depth_along_rays, normals_of
from weftwork.pipelines.views.warping import ReferenceView, WarpedView, warp_mesh, warp_points

Callback = Callable[[StableDiffusionPipeline, int, Tensor, dict[str, Tensor]], object]


@dataclass
class AlignedViewsOutput(BaseOutput):
    """Output of `AlignedViewsPipeline`.

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
        """Write all pixels as a coloured point cloud, for example as PLY.

        Raises:
            ValueError: an unknown suffix.
        """
        path = Path(path)
        if path.suffix.lower() not in (".ply", ".glb", ".xyz"):
            raise UserError(f"path: got {path.name!r}, expected a name that ends in .ply, .glb or .xyz; change it")
        cloud = trimesh.PointCloud(self.points.reshape(-1, 3), self.pixels.reshape(-1, 3))
        with atomic_path(path) as partial:
            cloud.export(partial)
        return path


class AlignedViewsPipeline(StableDiffusionPipeline):
    """Stable Diffusion pipeline of new views; `load_adapter` loads the trained modules."""

    views: AlignedViews | None = None
    unet: UNet2DConditionModel

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas in pixels."""
        side = self.unet.config["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        return height * self.vae_scale_factor, width * self.vae_scale_factor

    def load_views(self, views: str | Path | AlignedViews) -> None:
        """Loads trained modules, or their folder.

        Raises:
            ValueError: as `AlignedViews.from_pretrained`.
        """
        if not isinstance(views, AlignedViews):
            views = AlignedViews.from_pretrained(views, self.unet)
        self.views = views.to(self._execution_device).eval()

    def load_adapter(self, pretrained_model_name_or_path: str | Path, name: str = "views") -> AlignedViews:
        """Load trained modules from their folder, for the interface of all pipelines; `name` is not used.

        Raises:
            ValueError: as `AlignedViews.from_pretrained`.
        """
        self.load_views(pretrained_model_name_or_path)
        assert self.views is not None
        return self.views

    @torch.no_grad()
    def __call__(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        references: Sequence[ReferenceView],
        camera: Camera,
        prompt: str = "",
        *,
        negative_prompt: str | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        mesh: bool = True,
        callback_on_step_end: Callback | None = None,
    ) -> AlignedViewsOutput:
        """Generates the view of a camera.

        Args:
            references: any number of images with their geometry, all of the canvas's size.
            camera: camera of the new view.
            prompt, negative_prompt: as in the stock call.
            guidance_scale: of the prompt; 1 turns it off.
            output_type: "pil", or "np" for floats in [0, 1].
            mesh: warp references as meshes; as points otherwise.
            callback_on_step_end: called after each step with `latents` of the image; its result is ignored.

        Raises:
            ValueError: no modules loaded, no reference, other sizes than the canvas's, or a camera that sees nothing.
        """
        if self.views is None:
            raise UserError("views: got none, expected trained modules; call load_views(folder) first")
        if output_type not in ("pil", "np"):
            raise UserError(f"output_type: got {output_type!r}, expected 'pil' or 'np'; pass one of these")
        size = self._canvas(references)
        self.views.to(self._execution_device)  # the pipeline may have been moved since
        warp = warp_mesh if mesh else warp_points
        warped = warp(references, camera, size)
        span = PointRange.over(references, camera)
        if not warped.seen.any():
            raise UserError("camera: got one that sees nothing of the references; turn it towards them, or move it")
        guided = guidance_scale > 1
        context = self._context(prompt, negative_prompt, guided)
        known = [warp([one], one.camera, size) for one in references]
        images = self._encoded([one.image for one in references], len(context))
        maps = self._encoded([(span.scaled(one.points) + 1) / 2 for one in references], len(context))
        geometry = self._geometry(span, known).repeat(len(context), 1, 1, 1)
        seen = self.views.see(images, maps, geometry, context)
        colors = self._encoded([np.where(warped.seen[..., None], warped.image, 0.5)], 1)
        features = self.views.correspondence(self._geometry(span, [warped]), colors).repeat(len(context), 1, 1, 1)
        noise = self._noise(features.shape[-2:], generator)
        latents = self._denoised(
            noise, context, features, seen, num_inference_steps, guidance_scale, callback_on_step_end
        )
        image, values = (self._decoded(part) for part in latents)
        depth = depth_along_rays(span.restored(values * 2 - 1), camera)
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

    def _canvas(self, references: Sequence[ReferenceView]) -> tuple[int, int]:
        """Returns height and width of the canvas, checked for all references."""
        if not references:
            raise UserError("references: got none, expected at least one view; pass at least one image")
        sizes, wanted = {one.image.shape[:2] for one in references}, self.size
        if sizes != {wanted}:
            got = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            raise UserError(
                f"references: got images of {got}, expected {wanted[1]}x{wanted[0]} for all; resize images and "
                "depth, cameras stay as they are"
            )
        return wanted

    def _context(self, prompt: str, negative_prompt: str | None, guided: bool) -> Float[Tensor, "row token dim"]:
        positive, negative = self.encode_prompt(prompt, self._execution_device, 1, guided, negative_prompt)
        return positive if negative is None else torch.cat([negative, positive])

    def _encoded(
        self, images: Sequence[Float[np.ndarray, "height width 3"]], rows: int
    ) -> Float[Tensor, "row_view channel h w"]:
        """Encodes images in [0, 1] as latents (posterior means), once per row."""
        stacked = torch.from_numpy(np.stack(images)).movedim(-1, 1)
        latents = encode_latents(self.vae, stacked.to(self._execution_device, self.vae.dtype) * 2 - 1)
        return latents.to(self.unet.dtype).repeat(rows, 1, 1, 1)

    def _decoded(self, latents: Float[Tensor, "1 channel h w"]) -> Float[np.ndarray, "height width 3"]:
        """Decodes latents to an image in [0, 1]."""
        decoded = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample
        return (decoded.float() / 2 + 0.5).clamp(0, 1)[0].movedim(0, -1).cpu().numpy()

    def _geometry(self, span: PointRange, views: Sequence[WarpedView]) -> Float[Tensor, "view 8 height width"]:
        return torch.stack([span.geometry(one) for one in views]).to(self._execution_device, self.unet.dtype)

    def _noise(self, size: Sequence[int], generator: torch.Generator | None) -> Tensor:
        shape = (1, self.unet.config["in_channels"], *size)
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)

    def _denoised(
        self,
        noise: Tensor,
        context: Tensor,
        features: Tensor,
        seen: SeenReferences,
        steps: int,
        guidance_scale: float,
        callback: Callback | None,
    ) -> tuple[Tensor, Tensor]:
        """Denoises the latents of image and point map, from one noise."""
        assert self.views is not None
        device, rows = self._execution_device, len(context)
        schedulers = [copy.deepcopy(self.scheduler) for _ in range(2)]
        for scheduler in schedulers:
            scheduler.set_timesteps(steps, device=device)
        latents = [noise * scheduler.init_noise_sigma for scheduler in schedulers]
        for step, time in enumerate(self.progress_bar(schedulers[0].timesteps)):  # pyright: ignore
            inputs = [
                s.scale_model_input(x, time).repeat(rows, 1, 1, 1) for s, x in zip(schedulers, latents, strict=True)
            ]
            predicted = self.views(*inputs, time.repeat(rows).to(device), features, context, seen)
            for i, (scheduler, output) in enumerate(zip(schedulers, predicted, strict=True)):
                if rows == 2:
                    free, guided = output.chunk(2)
                    output = free + guidance_scale * (guided - free)
                latents[i] = scheduler.step(output, time, latents[i]).prev_sample
            if callback is not None:
                callback(self, step, time, {"latents": latents[0]})
        return latents[0], latents[1]
