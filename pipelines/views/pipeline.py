"""Pipeline of new views: image and aligned geometry of a scene (after MoAI, arXiv 2506.11924).

    pipe = AlignedViewsPipeline.from_pretrained(backbone)
    pipe.load_adapter(folder, "views")
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
from diffusers import StableDiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.batch import EncodedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.point_maps import PointRange, depth_along_rays, normals_of
from weftwork.attention_processors.views.warping import WarpedView
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.attach import attached
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.views.known import KnownLatents, KnownPixels

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


class AlignedViewsPipeline(ConditionedPipelineMixin, StableDiffusionPipeline):
    """Stable Diffusion pipeline of new views; attach one `AlignedViews` adapter, by any name."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas in pixels."""
        side = self.unet.config["sample_size"]
        height, width = (side, side) if isinstance(side, int) else side
        return height * self.vae_scale_factor, width * self.vae_scale_factor

    @property
    def views(self) -> AlignedViews | None:
        """The attached adapter of views."""
        return next((one for one in attached(self).values() if isinstance(one, AlignedViews)), None)

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
        blend_latents: bool = True,
        blend_pixels: bool = True,
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
            blend_latents: replace, at each step, latents of pixels that references show reliably by those of the warped
                references at the step's noise level, in image and point map; see `KnownPixels`.
            blend_pixels: blend these pixels' colours and depth into the result.
            callback_on_step_end: called after each step with `latents` of the image; its result is ignored.

        Raises:
            ValueError: no modules loaded, no reference, other sizes than the canvas's, or a camera that sees nothing.
        """
        views = self._checked_views()
        if output_type not in ("pil", "np"):
            raise UserError(f"output_type: got {output_type!r}, expected 'pil' or 'np'; pass one of these")
        self._check_canvas(references)
        batch = views.collate([references], cameras=[camera], mesh=mesh)
        (scene,) = batch.scenes
        if not scene.warped.seen.any():
            raise UserError("camera: got one that sees nothing of the references; turn it towards them, or move it")
        known = KnownPixels.of(references, scene.warped, camera)
        context = self._context(prompt, negative_prompt, guidance_scale > 1)
        batch = batch.to(self._execution_device)
        encoded = views(views.features(batch, {"vae": self.vae, "context": context}))
        noise = self._noise(encoded.features.shape[-2:], generator)
        kept = self._known_latents(known, scene.span) if blend_latents else None
        latents = self._denoised(views, noise, encoded, num_inference_steps, guidance_scale, callback_on_step_end, kept)
        image, values = (self._decoded(part) for part in latents)
        depth = depth_along_rays(scene.span.restored(values * 2 - 1), camera)
        if blend_pixels:
            image, depth = known.kept(image, depth)
        points = camera.points(depth)
        pixels = (image * 255).round().astype(np.uint8)
        return AlignedViewsOutput(
            images=[Image.fromarray(pixels)] if output_type == "pil" else image[None],
            pixels=pixels,
            points=points,
            depth=depth,
            normals=normals_of(points, camera),
            seen=scene.warped.seen,
            warped=scene.warped,
        )

    def _checked_views(self) -> AlignedViews:
        """Returns the adapter, checked for its default weight."""
        found = {name: one for name, one in attached(self).items() if isinstance(one, AlignedViews)}
        if len(found) != 1:
            raise UserError(
                f"views: got {len(found)} adapters of views, expected one; call load_adapter(folder, "
                "'views') first, and detach others"
            )
        ((name, views),) = found.items()
        if self.adapters is not None and self.adapters.weights[name] != 1:
            raise UserError(f"weight: got {self.adapters.weights[name]} for {name!r}, expected 1; set it to 1")
        return views

    def _known_latents(self, known: KnownPixels, span: PointRange) -> KnownLatents:
        """Encodes known pixels and their point map."""
        parts = np.stack([known.image * 2 - 1, span.scaled(span.camera.points(known.depth))])
        images = torch.from_numpy(parts).movedim(-1, 1).to(self._execution_device, self.vae.dtype)
        latents = encode_latents(self.vae, images).to(self.unet.dtype)
        return KnownLatents(latents.split(1), known.cells(*latents.shape[-2:]).to(latents))

    def _check_canvas(self, references: Sequence[ReferenceView]) -> None:
        """Raises unless all references have the size of the canvas."""
        if not references:
            raise UserError("references: got none, expected at least one view; pass at least one image")
        sizes, wanted = {one.image.shape[:2] for one in references}, self.size
        if sizes != {wanted}:
            got = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
            raise UserError(
                f"references: got images of {got}, expected {wanted[1]}x{wanted[0]} for all; resize images and "
                "depth, cameras stay as they are"
            )

    def _context(self, prompt: str, negative_prompt: str | None, guided: bool) -> Float[Tensor, "row token dim"]:
        positive, negative = self.encode_prompt(prompt, self._execution_device, 1, guided, negative_prompt)
        return positive if negative is None else torch.cat([negative, positive])

    def _decoded(self, latents: Float[Tensor, "1 channel h w"]) -> Float[np.ndarray, "height width 3"]:
        """Decodes latents to an image in [0, 1]."""
        decoded = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config["scaling_factor"])[0]
        return (decoded.float() / 2 + 0.5).clamp(0, 1)[0].movedim(0, -1).cpu().numpy()

    def _noise(self, size: Sequence[int], generator: torch.Generator | None) -> Tensor:
        shape = (1, self.unet.config["in_channels"], *size)
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)

    def _denoised(
        self,
        views: AlignedViews,
        noise: Tensor,
        encoded: EncodedViews,
        steps: int,
        guidance_scale: float,
        callback: Callback | None,
        known: KnownLatents | None,
    ) -> tuple[Tensor, Tensor]:
        """Denoises the latents of image and point map, from one noise."""
        device, rows = self._execution_device, len(encoded.context)
        schedulers = [copy.deepcopy(self.scheduler) for _ in range(2)]
        for scheduler in schedulers:
            scheduler.set_timesteps(steps, device=device)
        latents = [noise * scheduler.init_noise_sigma for scheduler in schedulers]
        for step, time in enumerate(self.progress_bar(schedulers[0].timesteps)):  # pyright: ignore
            inputs = [
                s.scale_model_input(x, time).repeat(rows, 1, 1, 1) for s, x in zip(schedulers, latents, strict=True)
            ]
            predicted = views.denoise(*inputs, time.repeat(rows).to(device), encoded)
            for i, (scheduler, output) in enumerate(zip(schedulers, predicted, strict=True)):
                if rows == 2:
                    free, guided = output.chunk(2)
                    output = free + guidance_scale * (guided - free)
                latents[i] = scheduler.step(output, time, latents[i]).prev_sample
                if known is not None:
                    latents[i] = known.blended(i, latents[i], noise, scheduler, step)
            if callback is not None:
                callback(self, step, time, {"latents": latents[0]})
        return latents[0], latents[1]
