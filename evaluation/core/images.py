"""Pictures to measure: generated in batches, reconstructed, and side by side on a sheet."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.attention_processors.encoders.latents import encode_latents

BATCH = 16
SHEET_COLUMNS = 8


def generate(
    pipe: Any,
    prompts: Sequence[str],
    conditions: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    *,
    name: str = "",
    images: Sequence[Image.Image] | None = None,
    **settings: Any,
) -> Float[Tensor, "picture 3 height width"]:
    """One picture per prompt, in [0, 1], on the CPU.

    Args:
        conditions: by adapter what each picture gets; None or nothing for a picture without.
        seeds: of the noise, one per picture.
        name: what the progress bar says.
        images: what each picture's control shows, for pipelines that take `image`.
        settings: of the pipeline's call.
    """
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for start in tqdm(range(0, len(prompts), BATCH), desc=name):
        chosen = range(start, min(start + BATCH, len(prompts)))
        given = {adapter: [rows[i] for i in chosen] for adapter, rows in conditions.items()}
        given = {adapter: rows for adapter, rows in given.items() if any(rows)}
        generator = [torch.Generator().manual_seed(seeds[i]) for i in chosen]
        shown: dict[str, Any] = {} if images is None else {"image": [images[i] for i in chosen]}
        made = pipe(
            [prompts[i] for i in chosen],
            conditions=given or None,
            generator=generator,
            output_type="pt",
            **shown,
            **settings,
        )
        pictures.append(made.images.cpu())
    return torch.cat(pictures).float()


@torch.no_grad()
def reconstructed(
    pipe: Any, pictures: Float[Tensor, "picture 3 height width"]
) -> Float[Tensor, "picture 3 height width"]:
    """Pictures through the pipeline's autoencoder and back: the ceiling of what it can draw."""
    vae, restored = pipe.vae, []
    for part in pictures.split(BATCH):
        latents = encode_latents(vae, part * 2 - 1, scaled=False)
        restored.append(vae.decode(latents).sample.to(pictures))
    return (torch.cat(restored) / 2 + 0.5).clamp(0, 1)


def as_tensor(images: Sequence[np.ndarray[Any, Any]]) -> Float[Tensor, "picture 3 height width"]:
    """Pictures of bytes to [0, 1], channels first."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def contact_sheet(rows: Sequence[tuple[str, torch.Tensor]]) -> Image.Image:
    """One row of pictures per name, the name at its left."""
    height, width = rows[0][1].shape[-2:]
    left = 150
    canvas = Image.new("RGB", (left + SHEET_COLUMNS * width, len(rows) * height), "white")
    for i, (name, pictures) in enumerate(rows):
        ImageDraw.Draw(canvas).text((6, i * height + height // 2), name, fill="black")
        for j, picture in enumerate(pictures):
            values = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            canvas.paste(Image.fromarray(values), (left + j * width, i * height))
    return canvas
