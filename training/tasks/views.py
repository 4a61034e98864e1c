"""Training of aligned views: image and point map of a target, from the same noise and the references."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.batch import ViewsFeatures
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.instillation import Instillation
from weftwork.attention_processors.views.point_maps import depth_image
from weftwork.datasets.readers.posed_views import PosedViews
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline
from weftwork.training.core.objectives import joint_diffusion_loss, training_scheduler
from weftwork.training.core.task import Task
from weftwork.training.core.trainer import Prepared
from weftwork.training.data.views import (
    ClipImages,
    PreparedViews,
    RoomImages,
    ViewsRecord,
    cached_room_latents,
    room_views,
    view_latents,
)
from weftwork.training.tasks.attention_distillation import attention_distillation_loss
from weftwork.training.trainers.views import ViewsConfig, ViewsModel, ViewsTrainer

SHOWN = 2
"""Validation views."""
Validation = Sequence[tuple[Sequence[ReferenceView], ReferenceView]]
"""References and target views."""


def prepare(trainer: ViewsTrainer, pipe: AlignedViewsPipeline) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    if trainer.arguments.init_from:
        module = AlignedViews.from_pretrained(trainer.arguments.init_from)
        module.bind(pipe.unet)
    else:
        module = AlignedViews.for_denoiser(pipe.unet, **asdict(trainer.read(ViewsModel)))
    data, validation = _data(trainer, pipe)
    task = AlignedViewsTask(module, pipe, trainer.read(ViewsConfig), validation)
    return Prepared(task, data, {"data": trainer.data_name, "parameters": module.counts()})


def _data(trainer: ViewsTrainer, pipe: AlignedViewsPipeline) -> tuple[PreparedViews, Validation]:
    """Returns the training data and the validation views: unseen rooms, or the first samples of user clips."""
    arguments = trainer.arguments
    shown = SHOWN if arguments.validation_steps else 0
    resolution = arguments.resolution or pipe.unet.config["sample_size"] * pipe.vae_scale_factor
    if trainer.synthetic:
        images = RoomImages(arguments.cache_dir, "train", arguments.samples, resolution)
        latents = cached_room_latents(arguments.cache_dir, pipe.vae, images)
        return PreparedViews(images, latents), [room_views("validation", i, resolution) for i in range(shown)]
    clips = ClipImages(PosedViews(arguments.train_data_dir, margin=arguments.margin), resolution)
    data = PreparedViews(clips, view_latents(clips, pipe.vae))
    return data, [clips.views(i) for i in trainer.shown(data, shown)]


class AlignedViewsTask(Task[AlignedViews, ViewsRecord, ViewsRecord]):
    """Trains the LoRAs and the correspondence encoder of `AlignedViews`; the backbone stays frozen.

    Args:
        pipe: pipeline of the backbone; it also generates the validation views.
        validation: references and target views.
    """

    def __init__(
        self, module: AlignedViews, pipe: AlignedViewsPipeline, config: ViewsConfig, validation: Validation = ()
    ) -> None:
        self.module, self.pipe, self.config, self.validation = module, pipe, config, validation
        self.scheduler = training_scheduler(pipe.scheduler)
        with torch.no_grad():
            self.context: Float[Tensor, "1 token dim"] = pipe.encode_prompt("", pipe._execution_device, 1, False)[0]

    def collate(self, samples: list[ViewsRecord]) -> ViewsRecord:
        return default_collate(samples)

    def loss(self, batch: ViewsRecord, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        image, points, dtype = batch.image, batch.points, self.pipe.unet.dtype
        features = ViewsFeatures(
            images=image[:, :-1],
            points=points[:, :-1],
            geometry=batch.geometry,
            warped=batch.warped,
            given={
                "sample": image[:, -1].to(dtype),
                "timestep": torch.zeros(len(image), dtype=torch.long, device=image.device),
                "encoder_hidden_states": self.context.to(image.device, dtype).expand(len(image), -1, -1),
            },
        )
        encoded = self.module(features)

        def denoise(noisy: Sequence[Tensor], timesteps: Tensor) -> Sequence[Tensor]:
            image, geometry = noisy
            return self.module.denoise(image, geometry, timesteps, encoded)

        loss = joint_diffusion_loss(
            denoise,
            self.scheduler,
            ((image[:, -1], 1.0), (points[:, -1], self.config.geometry_weight)),
            generator,
            snr_gamma=self.config.snr_gamma,
            snr_offset=1.0,
        )
        if self.module.sharing == "distilled":
            assert isinstance(self.module.link, Instillation)
            teacher, student = self.module.link.store, self.module.own.store
            distance = attention_distillation_loss(teacher, student, self.config.distillation_kind)
            loss = loss + self.config.distillation_weight * distance
        return loss

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes rows of references, target, generated view, and the depth of both, as one PNG."""
        if not self.validation:
            return {}
        self.pipe.detach()
        self.pipe.attach(views=self.module)
        self.pipe.set_progress_bar_config(disable=True)
        rows = []
        for references, target in self.validation:
            out = self.pipe(references, target.camera, generator=torch.Generator().manual_seed(0))
            images = [(one.image * 255).round().astype(np.uint8) for one in (*references, target)]
            depth = target.camera.project(target.points)[1]
            grey = [depth_image(one, like=depth).convert("RGB") for one in (depth, out.depth)]
            rows.append(np.concatenate([*images, out.pixels, *map(np.asarray, grey)], 1))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(folder / f"{step:06d}.png")
        return {}
