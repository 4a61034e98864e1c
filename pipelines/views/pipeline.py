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
import itertools
from collections.abc import Callable, Sequence

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.attach import attached
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.views.known import KnownPixels
from weftwork.pipelines.views.sampling import (
    AlignedViewsOutput,
    check_call,
    check_seen,
    decoded_view,
    denoised,
    known_latents,
)

Callback = Callable[[StableDiffusionPipeline, int, Tensor, dict[str, Tensor]], object]


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
        check_call(references, self.size, output_type)
        batch = views.collate([references], cameras=[camera], mesh=mesh)
        (scene,) = batch.scenes
        check_seen(scene.warped)
        known = KnownPixels.of(references, scene.warped) if blend_latents or blend_pixels else None
        guided, device = guidance_scale > 1, self._execution_device  # which visits all modules at each access
        given = self._given(prompt, negative_prompt, guided, device)
        batch = batch.to(device)
        encoded = views(views.features(batch, {"vae": self.vae, "given": given}))
        shape = (1, self.unet.config["in_channels"], *encoded.features.shape[-2:])
        noise = randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        scheduler = copy.deepcopy(self.scheduler)
        scheduler.set_timesteps(num_inference_steps, device=device)

        def on_step(step: int, time: Tensor, latents: Tensor) -> None:
            if callback_on_step_end is not None:
                callback_on_step_end(self, step, time, {"latents": latents})

        index, count = itertools.count(), len(scheduler.timesteps)
        latents = denoised(
            lambda image, points, times: views.denoise(image, points, times, encoded, (next(index), count)),
            scheduler,
            noise,
            guidance_scale if guided else None,
            known_latents(known, scene.span, self.vae, self.unet.dtype) if known and blend_latents else None,
            self.progress_bar,
            on_step,
        )
        kept = known if blend_pixels else None
        return decoded_view(latents, self.vae, scene.span, scene.warped, kept, output_type)

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
            weight = self.adapters.weights[name]
            raise UserError(f"weight: got {weight} for {name!r}, expected 1; call set_weights({name}=1)")
        return views

    def _given(self, prompt: str, negative_prompt: str | None, guided: bool, device: torch.device) -> dict[str, Tensor]:
        """Returns the arguments of the denoiser's calls, whose latents and timestep are replaced."""
        positive, negative = self.encode_prompt(prompt, device, 1, guided, negative_prompt)
        context = positive if negative is None else torch.cat([negative, positive])
        context = context.to(self.unet.dtype)
        sides = (side // self.vae_scale_factor for side in self.size)
        sample = context.new_zeros(len(context), self.unet.config["in_channels"], *sides)
        times = torch.zeros(len(context), dtype=torch.long, device=context.device)
        return {"sample": sample, "timestep": times, "encoder_hidden_states": context}
