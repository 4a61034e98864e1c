"""Training on captioned images: user images or drawings with latents, and dropout of captions and conditions."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from weftwork.attention_processors.encoders import TextEncoders
from weftwork.datasets.drawings.captions import full_caption
from weftwork.datasets.readers.captioned_images import CaptionedImages
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.data.drawings import SceneImages, StyledScenes, held_out_scenes
from weftwork.training.data.image_cache import cached_latents
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.prompts import PromptTokens, check_lengths
from weftwork.training.data.styles import StyledImages
from weftwork.training.trainers.captioned import CaptionedTrainer, StyleConfig


def captioned(
    trainer: CaptionedTrainer, pipe: ConditionedPipelineMixin, *, style: str | None = None, styled: bool = True
) -> StyledImages:
    """Returns user images with captions and latents; `style` and `styled` as in `CaptionedImages`."""
    arguments, options = trainer.arguments, {**trainer.column_options(), "style": style, "styled": styled}
    if arguments.train_data_dir is not None:
        samples = CaptionedImages.from_folder(arguments.train_data_dir, **options)
    else:
        samples = CaptionedImages.from_name(arguments.dataset_name, **options)
    prompt = PromptTokens.of(pipe, arguments.max_sequence_length)
    check_lengths((f"row {i + 1}", one, prompt, prompt.longest) for i, one in enumerate(samples.captions))
    sizes = Sizes.of(pipe, arguments.resolution, aspects=arguments.aspect_buckets)
    return StyledImages(samples, pipe.vae, arguments.cache_dir / "latents", sizes, dry=arguments.dry_run)


def drawn_scenes(
    trainer: CaptionedTrainer, pipe: ConditionedPipelineMixin, shown: int
) -> tuple[StyledScenes, list[str]]:
    """Returns scenes of drawings with captions and latents, and validation prompts: captions of held-out scenes.

    Args:
        shown: number of prompts per held-out split.
    """
    cache, drawings = trainer.arguments.cache_dir, trainer.rendered()
    images = SceneImages(cache, drawings, "train", trainer.arguments.samples)
    scenes = StyledScenes(images, cached_latents(cache, pipe.vae, images), TextEncoders.of(pipe).shortened)
    return scenes, [full_caption(one, styled=False) for one, _ in held_out_scenes(drawings, shown)]


def dropped(
    config: StyleConfig, captions: Sequence[tuple[str, ...]], generator: torch.Generator
) -> tuple[list[tuple[str, ...]], Bool[Tensor, " design"]]:
    """Drops captions and conditions; returns the captions, and a mask of the images with the null condition."""
    draws = torch.rand(2, len(captions), generator=generator)
    both = draws[1] < config.joint_dropout
    kept = [("",) if none else row for none, row in zip(both.tolist(), captions, strict=True)]
    return kept, both | (draws[0] < config.style_dropout)
