"""The training task of aligned views: image and point map of a target, from the same noise and the references."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.pipelines.views.point_maps import depth_image
from weftwork.pipelines.views.warping import ReferenceView
from weftwork.training.core.objectives import joint_diffusion_loss, training_scheduler
from weftwork.training.data.views import ViewsBatch, ViewsRecord
from weftwork.training.tasks.attention_distillation import attention_distillation_loss
from weftwork.training.tasks.options import ViewsConfig


class AlignedViewsTask:
    """Trains the LoRAs and the correspondence encoder of `AlignedViews`; the backbone stays frozen.

    Args:
        pipe: pipeline of the backbone; it also generates the validation views.
        validation: references and target views.
    """

    def __init__(
        self,
        module: AlignedViews,
        pipe: Any,
        config: ViewsConfig,
        validation: Sequence[tuple[Sequence[ReferenceView], ReferenceView]] = (),
    ) -> None:
        self.module, self.pipe, self.config, self.validation = module, pipe, config, validation
        self.scheduler = training_scheduler(pipe.scheduler)
        with torch.no_grad():
            self.context: Float[Tensor, "1 token dim"] = pipe.encode_prompt("", pipe._execution_device, 1, False)[0]

    def collate(self, samples: Sequence[ViewsRecord]) -> ViewsBatch:
        return ViewsBatch.of(samples)

    def loss(self, module: Any, batch: ViewsBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        image, points, geometry = batch.image, batch.points, batch.geometry
        rows = len(image)
        context = self.context.to(image).expand(rows, -1, -1)
        images, maps, seen = (part[:, :-1].flatten(0, 1) for part in (image, points, geometry))
        references = self.module.see(images, maps, seen, context)
        features = self.module.correspondence(geometry[:, -1], batch.warped)

        def denoise(noisy: Sequence[Tensor], timesteps: Tensor) -> Sequence[Tensor]:
            return module(*noisy, timesteps, features, context, references)

        loss = joint_diffusion_loss(
            denoise,
            self.scheduler,
            ((image[:, -1], 1.0), (points[:, -1], self.config.geometry_weight)),
            generator,
            snr_gamma=self.config.snr_gamma,
            snr_offset=1.0,
        )
        if self.module.sharing == "distilled":
            maps = self.module.link.store, self.module.own.store
            distance = attention_distillation_loss(*maps, self.config.distillation_kind)  # pyright: ignore
            loss = loss + self.config.distillation_weight * distance
        return loss

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        """Writes rows of references, target, generated view, and the depth of both, as one PNG."""
        if not self.validation:
            return {}
        self.pipe.load_views(self.module)
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
