"""Base of adapter training: a frozen pipeline, prompts with dropout, and the denoising loss with conditions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import torch
from accelerate.utils import send_to_device
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Adapter, BatchT
from weftwork.attention_processors.core.batch import TensorFields
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.pipelines.core.guidance import guidance_arguments, is_distilled
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.core.config import ObjectiveConfig
from weftwork.training.core.denoisers import (
    Embeds,
    call_of,
    denoiser_of,
    timestep_shift,
)
from weftwork.training.core.objectives import diffusion_loss, flow_matching_loss, is_flow, training_scheduler
from weftwork.training.core.task import BatchT as TaskBatchT
from weftwork.training.core.task import ModuleT, SampleT, Task
from weftwork.training.data.feature_cache import FeatureCache, cached, encoder_key
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.prompts import Prompts
from weftwork.training.tasks.prior import Prior

AdapterT = TypeVar("AdapterT", bound=Adapter[Any, Any])
Denoiser = Callable[[Tensor, Tensor, Embeds], Tensor]
"""(noisy latents, timesteps, prompt embeddings) to the prediction."""
SHEET_STEPS: Final = 20
"""Denoising steps of validation images."""


class ImageRecord(Protocol):
    """A training sample: the latents of an image and prompts to draw from."""

    @property
    def latents(self) -> Float[Tensor, "channel height width"]: ...
    @property
    def captions(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class ImageBatch(TensorFields):
    """Latents and captions of images."""

    latents: Float[Tensor, "design channel height width"]
    captions: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, samples: Sequence[ImageRecord], **own: Any) -> Self:
        """Stacks samples; `own` are the fields of a subclass."""
        return cls(torch.stack([one.latents for one in samples]), tuple(one.captions for one in samples), **own)


@dataclass(frozen=True, eq=False)
class TrainingBatch(ImageBatch, Generic[BatchT]):
    """Latents and captions of images, with the batch of their conditions."""

    conditions: BatchT


class DenoisingTask(Task[ModuleT, SampleT, TaskBatchT]):
    """Base of tasks that train a module for a frozen pipeline.

    Args:
        pipe: a conditioned pipeline with no adapter attached; it also generates the validation images.
        name: name under which the trained module's conditions are passed.
    """

    def __init__(self, pipe: ConditionedPipelineMixin, name: str, objective: ObjectiveConfig) -> None:
        self.pipe, self.name, self.objective = pipe, name, objective
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self.frozen = denoiser_of(pipe)
        self.call = call_of(self.frozen)
        self.scheduler = training_scheduler(pipe.scheduler)
        objective.check_effects(
            type(self.frozen).__name__,
            flow=is_flow(self.scheduler),
            distilled=is_distilled(self.frozen),
            transformer=self.call.length is not None,
        )
        self.encoders: Mapping[str, object] = {"text": TextEncoders.of(pipe), **pipe.frozen_encoders}
        """The frozen encoders of the pipeline."""
        self.prompts = Prompts(pipe, self.call, objective.max_sequence_length)
        self.size = (Sizes.of(pipe).resolution,) * 2
        """Height and width of the images trained on last, and of validation images of transformers."""

    def cache_features(self, folder: Path) -> None:
        """Caches frozen-encoder outputs of texts and images in a folder."""
        every = [part for name, part in self.pipe.components.items() if name.startswith("text_encoder") and part]
        self.encoders = cached(self.encoders, folder)
        cache = FeatureCache(folder, encoder_key("prompt", *every))
        self.prompts = Prompts(self.pipe, self.call, self.objective.max_sequence_length, cache)

    def denoiser(self, encoded: Encoded | None = None) -> Denoiser:
        """Returns the frozen denoiser, with conditions if given."""

        def denoise(noisy: Tensor, timesteps: Tensor, embeds: Embeds) -> Tensor:
            arguments = self.call.arguments(self.frozen, noisy, timesteps, embeds, self.objective.guidance_scale)
            layout = call_layout(self.frozen, arguments)
            with conditioned(self.frozen, Conditioning.of({} if encoded is None else {self.name: encoded}, layout)):
                return self.call.prediction(self.frozen(**arguments)[0], noisy)

        return denoise

    def denoising_loss(
        self,
        denoise: Denoiser,
        latents: Float[Tensor, "design channel height width"],
        captions: Sequence[Sequence[str]],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Computes the objective on latents at random timesteps, with one of the captions of each image."""
        with torch.no_grad():
            self.size = latents.shape[-2] * self.pipe.vae_scale_factor, latents.shape[-1] * self.pipe.vae_scale_factor
            embeds = self.prompts(self._chosen(captions, generator), self.size)
            embeds = send_to_device(embeds, latents.device)
        objective = self.objective
        logit_normal = None if objective.logit_mean is None else (objective.logit_mean, objective.logit_std)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return denoise(noisy, timesteps, embeds)

        if is_flow(self.scheduler):
            return flow_matching_loss(
                predict,
                self.scheduler,
                latents,
                generator,
                mu=timestep_shift(self.scheduler, latents),
                weighting_scheme=objective.weighting_scheme,
                logit_normal=logit_normal or (0.0, 1.0),
                noise_offset=objective.noise_offset,
            )
        return diffusion_loss(
            predict,
            self.scheduler,
            latents,
            generator,
            snr_gamma=objective.snr_gamma,
            logit_normal=logit_normal,
            noise_offset=objective.noise_offset,
        )

    def _chosen(self, captions: Sequence[Sequence[str]], generator: torch.Generator) -> list[str]:
        """Draws one of the captions of each image, or the empty prompt."""
        picks = torch.rand(len(captions), 2, generator=generator).tolist()
        return [
            "" if empty < self.objective.caption_dropout else options[int(which * len(options))]
            for options, (empty, which) in zip(captions, picks, strict=True)
        ]

    @torch.no_grad()
    def sheet(
        self,
        path: Path,
        prompts: Sequence[str],
        conditions: Sequence[Sequence[Condition]] = (),
        above: Sequence[Image.Image] = (),
        targets: Sequence[Image.Image | None] = (),
        control: Sequence[Image.Image] = (),
    ) -> None:
        """Generates one image per prompt with its conditions and writes them as one PNG.

        Its rows, from the top: the images `above`; the targets, white where there is none; the images of step 0 under
        the same name; the new ones.

        Args:
            path: its name begins with the step in six digits.
            control: control images, of a pipeline with a ControlNet.
        """
        self.pipe.set_progress_bar_config(disable=True)
        options = guidance_arguments(self.pipe, 3.0, batch=len(prompts))
        if self.call.length is not None:
            height, width = self.size
            options |= {"height": height, "width": width, "max_sequence_length": self.prompts.length}
        if control:
            options["image"] = list(control)
        images = self.pipe(
            list(prompts),
            conditions={self.name: list(conditions)} if conditions else None,
            num_inference_steps=SHEET_STEPS,
            generator=[torch.Generator().manual_seed(i) for i in range(len(prompts))],
            **options,
        ).images
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row_of(row, images[0].size) for row in (above, targets, images) if any(row)]
        baseline = path.with_name(f"{0:06d}{path.name[6:]}")
        if baseline != path and baseline.is_file():
            with Image.open(baseline) as before:
                last = before.height - before.height // len(rows)
                rows.insert(-1, row_of([before.crop((0, last, before.width, before.height))], rows[-1].size))
        sheet = Image.new("RGB", (rows[-1].width, rows[0].height * len(rows)), "white")
        for place, row in enumerate(rows):
            sheet.paste(row, (0, place * row.height))
        sheet.save(path)


def row_of(images: Sequence[Image.Image | None], size: tuple[int, int]) -> Image.Image:
    """Returns images side by side, each resized to a size; white for None."""
    row = Image.new("RGB", (size[0] * len(images), size[1]), "white")
    for place, image in enumerate(images):
        if image is not None:
            row.paste(image.convert("RGB").resize(size), (size[0] * place, 0))
    return row


class AdapterTask(DenoisingTask[AdapterT, SampleT, TaskBatchT]):
    """Base of tasks that train an adapter, which is attached under a name."""

    prior: Prior | None = None
    """Class images of prior preservation."""

    def __init__(self, module: AdapterT, pipe: ConditionedPipelineMixin, name: str, objective: ObjectiveConfig) -> None:
        super().__init__(pipe, name, objective)
        self.module = module
        module.check_base(self.frozen)
        pipe.attach(**{name: module})
        module.float().train()  # float32 for any precision of the backbone

    def training_loss(self, batch: TaskBatchT, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        """Returns the loss of a batch and that of class images, if there are some."""
        loss = super().training_loss(batch, generator, micro)
        if self.prior is None:
            return loss
        prior, chosen = self.prior, self.prior.drawn(generator)
        latents = prior.latents[chosen].to(loss.device)
        conditions = send_to_device(self.module.collate([prior.conditions[i] for i in chosen]), loss.device)
        denoise = self.denoiser(self.module(self.module.features(conditions, self.encoders)))
        captions = [(prior.prompts[i],) for i in chosen]
        return loss + prior.weight * self.denoising_loss(denoise, latents, captions, generator)
