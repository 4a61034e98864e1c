"""Images of evaluations: batched generation, autoencoder reconstructions and contact sheets."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.pipelines.core.guidance import guidance_arguments
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.core.text_length import text_length

BATCH = 16
SHEET_COLUMNS = 8

Images = Float[Tensor, "image 3 height width"]

ConditionRows = Mapping[str, Sequence[Sequence[Condition] | None]]
"""By adapter the conditions of each image; None or an empty list for an image without any."""


def generate(
    pipe: ConditionedPipelineMixin,
    prompts: Sequence[str],
    conditions: ConditionRows,
    seeds: Sequence[int],
    *,
    guidance_scale: float,
    name: str = "",
    images: Sequence[Image.Image] | None = None,
    **settings: object,
) -> Images:
    """Generates one image per prompt, in [0, 1], on the CPU.

    Args:
        seeds: seeds of the noise, one per image.
        name: description of the progress bar.
        images: control image of each prompt, for pipelines that take `image`.
        guidance_scale: also the true scale of transformers.
        settings: further arguments of the pipeline.
    """
    pipe.set_progress_bar_config(disable=True)
    outputs = []
    for start in tqdm(range(0, len(prompts), BATCH), desc=name):
        chosen = range(start, min(start + BATCH, len(prompts)))
        given = {adapter: [rows[i] for i in chosen] for adapter, rows in conditions.items()}
        given = {adapter: rows for adapter, rows in given.items() if any(rows)}
        generator = [torch.Generator().manual_seed(seeds[i]) for i in chosen]
        more: dict[str, object] = {} if images is None else {"image": [images[i] for i in chosen]}
        out = pipe(
            [prompts[i] for i in chosen],
            conditions=given or None,
            generator=generator,
            output_type="pt",
            **more,
            **guidance_arguments(pipe, guidance_scale, batch=len(chosen)),
            **text_length(pipe),
            **settings,
        )
        outputs.append(out.images.cpu())
    return torch.cat(outputs).float()


@torch.no_grad()
def reconstructed(pipe: DiffusionPipeline, images: Images) -> Images:
    """Encodes and decodes images with the pipeline's autoencoder: the upper bound for generated images."""
    vae, restored = pipe.vae, []
    for part in images.split(BATCH):
        latents = encode_latents(vae, part * 2 - 1, scaled=False)
        restored.append(vae.decode(latents).sample.to(images))
    return (torch.cat(restored) / 2 + 0.5).clamp(0, 1)


def as_tensor(images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Images:
    """Converts uint8 images to [0, 1], channels first."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def as_bytes(images: Images) -> UInt8[np.ndarray, "image height width 3"]:
    """Converts images in [0, 1] to uint8, channels last; the inverse of `as_tensor`."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def contact_sheet(rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Draws one row of images per name, with the name on the left."""
    height, width = rows[0][1].shape[-2:]
    left = 150
    canvas = Image.new("RGB", (left + SHEET_COLUMNS * width, len(rows) * height), "white")
    for i, (name, images) in enumerate(rows):
        ImageDraw.Draw(canvas).text((6, i * height + height // 2), name, fill="black")
        for j, image in enumerate(as_bytes(images)):
            canvas.paste(Image.fromarray(image), (left + j * width, i * height))
    return canvas
