"""Training of parts: one ControlNet for the whole image and for a crop to its part.

    loss = (1 - w) |target - U(z, t, text, C(z, t, text, control))|^2
         + w |target - U(z', t, text, C(z', t, text, control'))|^2,   w = 1/2

where U is the frozen U-Net and C the ControlNet; z and z' are the noisy latents of the image and of its crop, made with
the same noise and timestep.

Source: AttentionHand (arXiv 2407.18034, redorangeyellowy/AttentionHand@13e7b03).
Differs: z' is made of the latents of the crop; the released code encodes the crop and then uses z. The noise is shared,
as the released code's one target implies, and is not cropped: enlarged noise would not be white, and the frozen U-Net
has seen white noise alone. Crops keep their aspect. Latents are not changed by text attention in training; the method
`attention-control` does that in generation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.parts.cross_gates import CrossGatedControlNetModel
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.pipelines.core.opening import open_controlnet
from weftwork.training.core.trainer import Prepared
from weftwork.training.data.image_cache import cached_latents
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.parts import HandViews, PartRecord, PartRecords
from weftwork.training.tasks.adapter import ImageBatch
from weftwork.training.tasks.controlnet import ControlNetTask, check_unet, new_controlnet
from weftwork.training.trainers.parts import PartConfig, PartTrainer

SHOWN = 4


def prepare(trainer: PartTrainer, pipe: ConditionedPipelineMixin) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    arguments, config = trainer.arguments, trainer.read(PartConfig)
    check_unet(pipe)
    module = open_controlnet(arguments.init_from, pipe) if arguments.init_from else new_controlnet(pipe, 0.0)
    if config.cross_gates and not isinstance(module, CrossGatedControlNetModel):
        module = CrossGatedControlNetModel.of(module)
    size = Sizes.of(pipe, arguments.resolution).resolution
    images = HandViews(arguments.cache_dir, "train", arguments.samples, size)
    data = PartRecords(images, cached_latents(arguments.cache_dir, pipe.vae, images))
    shown = HandViews(arguments.cache_dir, "validation", SHOWN, size)
    task = PartTask(module, pipe, config, shown)
    return Prepared(
        task, data, {"data": trainer.data_name, "local_weight": config.local_weight, "cross_gates": config.cross_gates}
    )


@dataclass(frozen=True, eq=False)
class PartBatch(ImageBatch):
    """Latents and captions of images, with those of their parts, and the control images of both."""

    local_latents: Float[Tensor, "design channel height width"]
    control: Float[Tensor, "design 3 size size"]
    local_control: Float[Tensor, "design 3 size size"]


class PartTask(ControlNetTask[PartRecord, PartBatch]):
    """Trains a ControlNet on both views.

    Args:
        validation: hands that are drawn from their control images.
    """

    def __init__(
        self,
        module: ControlNetModel,
        pipe: ConditionedPipelineMixin,
        config: PartConfig,
        validation: HandViews | None = None,
    ) -> None:
        super().__init__(module, pipe, "parts", config)
        self.config, self.validation = config, validation

    def collate(self, samples: list[PartRecord]) -> PartBatch:
        names = ("local_latents", "control", "local_control")
        own = {name: torch.stack([getattr(one, name) for one in samples]) for name in names}
        return PartBatch.of(samples, **own)

    def loss(self, batch: PartBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        share, drawn = self.config.local_weight, generator.get_state()
        views = ((1 - share, batch.latents, batch.control), (share, batch.local_latents, batch.local_control))
        losses: list[Tensor] = []
        for weight, latents, control in views:
            if weight:
                generator.set_state(drawn)  # the same captions, timesteps and noise
                loss = self.denoising_loss(self.controlled(control), latents, batch.captions, generator)
                losses.append(weight * loss)
        return torch.stack(losses).sum()

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes hands of the validation split below their control images and the truth."""
        if self.validation is not None:
            truth, _, control, _ = (
                [Image.fromarray(one) for one in views] for views in self.validation.images.swapaxes(0, 1)
            )
            prompts = self.validation.truth
            self.sheet(folder / f"{step:06d}.png", prompts, above=control, targets=truth, control=control)
        return {}
