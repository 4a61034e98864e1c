"""Pipeline of the published MoAI checkpoints: four denoisers, as `weftwork convert moai` writes them.

    pipe = MoAIPipeline.from_folder("models/moai", vae=vae, image_encoder=image_encoder)
    out = pipe(references, target_camera)

The context of every denoiser is one token, the CLIP embedding of an image: that of the reference nearest to the target
for the target, and each reference's own for itself.

Source: arXiv 2506.11924 and the authors' code at 8cfc44f. Differs: autoencoder latents are means, not samples; warped
colours and points come from a mesh over each reference; the unconditional half has the embedding that training used
(`null="learned"`), where the authors sample with zeros (`null="zeros"`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned, install, restore
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.encoders.image import clip_normalized
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.views.batch import ViewsBatch, WarpedScene
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder, added_to_latents
from weftwork.attention_processors.views.instillation import Instillation
from weftwork.attention_processors.views.point_maps import PointRange
from weftwork.attention_processors.views.reference_attention import References
from weftwork.attention_processors.views.warping import WarpedView
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.pipelines.views.known import KnownPixels
from weftwork.pipelines.views.sampling import (
    AlignedViewsOutput,
    check_call,
    check_seen,
    decoded_view,
    denoised,
    known_latents,
)

DENOISERS: Final = ("image", "geometry", "image_reference", "geometry_reference")
NULLS: Final = ("learned", "zeros")
SCHEDULE: Final[Mapping[str, Any]] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}
"""Of the published DDIM scheduler: zero terminal SNR."""


class MoAIPipeline(DiffusionPipeline):
    """Pipeline of new views with four denoisers of their own weights.

    Args:
        image, geometry: denoisers of the target; `geometry` reads [warped image | noisy points], `image` the noisy
            image alone (4 channels), or [noisy image | warped image] (8).
        image_reference, geometry_reference: denoisers that read the references at timestep 0, [image | points] (8
            channels) or the image alone (4).
        correspondence: encoder with 16, 17, 19 or 20 channels, shared by all.
        image_encoder: CLIP ViT-H/14 for the published weights.
    """

    size = 512, 512
    """Height and width that the published weights were trained on."""

    def __init__(
        self,
        image: UNet2DConditionModel,
        geometry: UNet2DConditionModel,
        image_reference: UNet2DConditionModel,
        geometry_reference: UNet2DConditionModel,
        correspondence: CorrespondenceEncoder,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        scheduler: Any = None,
    ) -> None:
        super().__init__()
        width, dim = image.config["cross_attention_dim"], image_encoder.config.projection_dim
        if width != dim:
            raise UserError(
                f"image_encoder: got embeddings of width {dim}, expected {width}; pass one of this width, for the "
                "published weights laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
            )
        denoisers = (image, geometry, image_reference, geometry_reference)
        self.register_modules(
            **dict(zip(DENOISERS, denoisers, strict=True)),
            correspondence=correspondence,
            vae=vae,
            image_encoder=image_encoder,
            scheduler=scheduler or DDIMScheduler(**SCHEDULE),
        )

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, vae: str | Path | AutoencoderKL, image_encoder: str | Path | nn.Module
    ) -> Self:
        """Loads the folder that `weftwork convert moai` wrote.

        Args:
            vae: autoencoder or its folder, `stabilityai/sd-vae-ft-mse` for the published weights.
            image_encoder: CLIP image encoder with projection, or its folder.

        Raises:
            ValueError: a folder without one of the models.
        """
        for role in (*DENOISERS, "correspondence"):
            if not (Path(folder) / role / "config.json").is_file():
                raise UserError(f"{folder}: {role}/config.json is missing; give the folder of weftwork convert moai")
        parts: dict[str, Any] = {
            role: UNet2DConditionModel.from_pretrained(Path(folder) / role, use_safetensors=True) for role in DENOISERS
        }
        parts["correspondence"] = CorrespondenceEncoder.from_pretrained(Path(folder) / "correspondence")
        for name, kind, given in (
            ("vae", AutoencoderKL, vae),
            ("image_encoder", CLIPVisionModelWithProjection, image_encoder),
        ):
            parts[name] = given if isinstance(given, nn.Module) else kind.from_pretrained(given, use_safetensors=True)
        return cls(**parts)

    @torch.no_grad()
    def __call__(  # noqa: PLR0913
        self,
        references: Sequence[ReferenceView],
        camera: Camera,
        *,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.5,
        null: str = "learned",
        half_references: bool = False,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        mesh: bool = True,
        blend_latents: bool = True,
        blend_pixels: bool = True,
    ) -> AlignedViewsOutput:
        """Generates the view of a camera.

        Args:
            references: any number of images with their geometry, of one size, a multiple of 64 pixels.
            guidance_scale: of image and geometry; 1 turns it off.
            null: context of the unconditional half: the CLIP embedding of an image of zeros ("learned"), or "zeros".
            half_references: keep features of the references in half precision, as the authors' code does.
            mesh, blend_latents, blend_pixels: as in `AlignedViewsPipeline`.

        Raises:
            ValueError: an unknown null, no reference, images of several sizes or of no multiple of 64 pixels, or a
                camera that sees nothing.
        """
        check_choice("null", null, NULLS)
        size = references[0].image.shape[:2] if references else self.size
        check_call(references, size, output_type)
        if any(side % 64 for side in size):
            raise UserError(f"references: got images of {size[1]}x{size[0]}, expected multiples of 64; resize them")
        scene = WarpedScene.of(references, camera, mesh=mesh)
        scene = replace(scene, span=PointRange.over(references, camera, margin=0))
        check_seen(scene.warped)
        known = KnownPixels.of(references, scene.warped) if blend_latents or blend_pixels else None
        guided, device, dtype = guidance_scale > 1, self._execution_device, self.image.dtype
        scheduler = self.scheduler
        scheduler.set_timesteps(num_inference_steps, device=device)
        shape = (1, self.vae.config["latent_channels"], *(side // 8 for side in size))
        noise = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        contexts = self._contexts(references, camera, null if guided else None)
        with self._installed():
            denoise = self._denoiser(scene, camera, contexts, torch.float16 if half_references else None)
            latents = denoised(
                denoise,
                scheduler,
                noise,
                guidance_scale if guided else None,
                known_latents(known, scene.span, self.vae, dtype) if known and blend_latents else None,
                self.progress_bar,
                lambda step, time, latents: None,
            )
        return decoded_view(latents, self.vae, scene.span, scene.warped, known if blend_pixels else None, output_type)

    @contextmanager
    def _installed(self) -> Iterator[None]:
        networks = [getattr(self, name) for name in DENOISERS]
        for network in networks:
            install(network)
        try:
            yield
        finally:
            for network in networks:
                restore(network)

    def _contexts(
        self, references: Sequence[ReferenceView], camera: Camera, null: str | None
    ) -> tuple[Float[Tensor, "row 1 dim"], Float[Tensor, "row_view 1 dim"]]:
        """Returns the tokens of the target and of each reference; of both halves, if there is a null."""
        images = torch.from_numpy(np.stack([one.image for one in references])).movedim(-1, 1).float()
        side = self.image_encoder.config.image_size
        small = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        pixels = torch.cat([clip_normalized(small), torch.zeros(1, 3, side, side)])
        encoder = self.image_encoder
        embeds = encoder(pixels.to(self._execution_device, encoder.dtype)).image_embeds[:, None]
        own, unconditional = embeds[:-1], embeds[-1:]
        distances = [float(np.linalg.norm(one.camera.position - camera.position)) for one in references]
        target = own[int(np.argmin(distances))][None]
        if null is None:
            return target, own
        unconditional = unconditional if null == "learned" else torch.zeros_like(unconditional)
        return torch.cat([unconditional, target]), torch.cat([unconditional.expand_as(own), own])

    def _denoiser(
        self, scene: WarpedScene, camera: Camera, contexts: tuple[Tensor, Tensor], kept_as: torch.dtype | None
    ) -> Any:
        """Reads the references and returns the function of a step."""
        context, own = contexts
        rows, views = len(context), len(scene.references)
        batch = ViewsBatch.of_scenes([scene]).to(self._execution_device)
        images, points, warped = (
            encode_latents(self.vae, one * 2 - 1).to(context)
            for one in (batch.images[0], batch.points[0], batch.warped)
        )
        cameras = [*(one.camera for one in scene.references), camera]
        geometry = [_geometry(scene.span, *each) for each in zip((*scene.known, scene.warped), cameras, strict=True)]
        features = self.correspondence(torch.stack(geometry).to(context))
        known, target = features[:-1].repeat(rows, 1, 1, 1), features[-1:].repeat(rows, 1, 1, 1)
        both, start = torch.cat([images, points], 1), torch.zeros(rows * views, device=context.device)
        seen = References(kept_as=kept_as), References(kept_as=kept_as)
        for name, references in zip(DENOISERS[2:], seen, strict=True):
            channels = getattr(self, name).config["in_channels"]
            self._run(name, both[:, :channels].repeat(rows, 1, 1, 1), start, own, known, references=references.record())
        link, other = Instillation(), warped.repeat(rows, 1, 1, 1)

        def denoise(image: Tensor, points: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
            link.clear()
            given = torch.cat([image, other], 1)[:, : self.image.config["in_channels"]]
            taps: dict[str, Encoded] = {"references": seen[0].extend(views), "link": link.record()}
            first = self._run("image", given, times, context, target, **taps)
            taps = {"references": seen[1].extend(views), "link": link.use()}
            return first, self._run("geometry", torch.cat([other, points], 1), times, context, target, **taps)

        return denoise

    def _run(
        self, name: str, latents: Tensor, timesteps: Tensor, context: Tensor, features: Tensor, **taps: Encoded
    ) -> Tensor:
        network = getattr(self, name)
        conditioning = Conditioning.of(taps, Layout(layer_levels(network), (latents.shape[-2], latents.shape[-1])))
        with added_to_latents(network, features), conditioned(network, conditioning):
            return network(latents, timesteps, context).sample


def _geometry(span: PointRange, view: WarpedView, camera: Camera) -> Float[Tensor, "8 height width"]:
    """Returns the input of `CorrespondenceEncoder`, with the distance from the camera as depth, in the scene's unit."""
    result = span.geometry(view)
    distance = np.linalg.norm(view.points - camera.position, axis=-1)
    result[6] = torch.from_numpy(np.where(view.seen, distance, 0))
    return result
