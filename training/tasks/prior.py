"""Prior preservation: class images, made by the starting adapter of given designs, as a second term of the loss.

As `--with_prior_preservation` of diffusers' DreamBooth scripts, with designs in place of a class prompt: the adapter
keeps what it makes of conditions that the training data do not show.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from weftwork.attention_processors.core.condition import Condition
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.files import stored_in, write_images
from weftwork.pipelines.designs.run import draw, stored


@dataclass(frozen=True)
class Prior:
    """Class images, with the prompts and conditions that they were made of.

    Args:
        batch_size: images per micro-batch.
        weight: factor of their loss.
    """

    latents: Float[Tensor, "image channel height width"]
    prompts: Sequence[str]
    conditions: Sequence[Sequence[Condition]]
    batch_size: int
    weight: float

    def drawn(self, generator: torch.Generator) -> list[int]:
        """Draws the images of a micro-batch."""
        return torch.randint(len(self.prompts), (self.batch_size,), generator=generator).tolist()


def repeated(designs: Sequence[Design], name: str, count: int, model: str | None = None) -> list[Design]:
    """Returns so many designs for the backbone in training, the given ones in turn with other seeds.

    Args:
        name: of the adapter that is trained.
        model: name of the backbone, if it is a shipped one.

    Raises:
        ValueError: a design for another model, without conditions for this adapter, or with others.
    """
    for number, design in enumerate(designs, 1):
        if design.model not in (None, model):
            raise UserError(
                f"class_designs: got design {number} for {design.model}, expected designs for the backbone in training"
                f"{f', {model}' if model else ''}; remove its model, or pass --pretrained_model_name_or_path "
                f"{design.model}"
            )
        if list(design.conditions) != [name] or design.loras or design.controlnets:
            raise UserError(
                f"class_designs: design {number} has conditions for {', '.join(design.conditions) or 'nothing'}, "
                f"expected some for {name} alone, and no LoRA or ControlNet; leave others out"
            )
    seeds = [index if one.seed is None else one.seed for index, one in enumerate(designs)]
    size = len(designs)
    return [replace(designs[i % size], model=model, seed=seeds[i % size] + i // size) for i in range(count)]


@torch.no_grad()
def class_images(
    pipe: ConditionedPipelineMixin, designs: Sequence[Design], folder: Path, *, reuse: bool
) -> list[Image.Image]:
    """Makes an image of each design with the attached adapter, as a PNG in `folder`.

    Args:
        reuse: whether to read images of the same design that are there.
    """
    pipe.set_progress_bar_config(disable=True)
    images = []
    for index, design in enumerate(tqdm(designs, desc="class images", mininterval=1.0)):
        path = folder / f"{index:05d}.png"
        found = stored_in(path) if reuse and path.is_file() else None
        if found != json.loads(stored(design)):
            write_images({path: (draw(pipe, design)[0], stored(design))})
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return images
