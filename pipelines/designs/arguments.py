"""Arguments of a pipeline's call from a design: those that all pipelines share, and those that some lack."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers import DiffusionPipeline
from PIL import Image
from transformers import PreTrainedTokenizerBase

from weftwork.attention_processors.core.regions import check_aspect, common_aspect
from weftwork.attention_processors.encoders.vocabulary import warn_of_unknown_words
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.guidance import guidance_arguments
from weftwork.pipelines.core.text_length import text_length
from weftwork.pipelines.designs.design import Control, Design
from weftwork.pipelines.designs.initial_image import binary_mask

logger = logging.getLogger(__name__)


def call_arguments(pipe: DiffusionPipeline, design: Design, count: int = 1) -> dict[str, Any]:
    """Returns prompts, size, guidance, images and ControlNets as the pipeline's call takes them for so many images.

    Raises:
        ValueError: a prompt that is too long, regions of other aspects than the image or each other, or something that
            this pipeline does not take.
    """
    taken = inspect.signature(pipe.__call__).parameters
    if getattr(pipe, "unet", None) is not None:
        _check_prompts(pipe, design)
    given = {
        "prompt": design.prompt,
        "num_inference_steps": design.num_inference_steps,
        **_size(pipe, design, taken),
        **_guidance(pipe, design, taken),
        **text_length(pipe),
        **_images(pipe, design, taken),
        **_control_arguments(design.controlnets),
        **_initial(design, count),
    }
    _check_conditions(pipe, design, given["height"], given["width"])
    if design.begins_with_image and "height" not in taken:  # its size is that of the image
        given["height"] = given["width"] = None
    for name, value in given.items():
        if name not in taken and value is not None:
            raise UserError(f"{name}: got one, but {type(pipe).__name__} takes none; leave it out")
    return {name: value for name, value in given.items() if name in taken}


def _size(pipe: Any, design: Design, taken: Mapping[str, object]) -> dict[str, Any]:
    """Returns height and width; those that are left out are the U-Net's own, or the pipeline's default."""
    height, width = design.height, design.width
    if getattr(pipe, "unet", None) is None:
        areas = {"max_area": height * width} if height and width and "max_area" in taken else {}
        return {"height": height, "width": width, **areas}
    height, width = size_of(pipe, design)
    return {"height": height, "width": width}


def size_of(pipe: Any, design: Design) -> tuple[int, int]:
    """Returns height and width in pixels of a design's images on a pipeline with a U-Net."""
    height, width = unet_size(pipe)
    return design.height or height, design.width or width


def unet_size(pipe: Any) -> tuple[int, int]:
    """Returns height and width in pixels of the images that a pipeline's U-Net was trained on."""
    size = pipe.unet.config["sample_size"]
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows * pipe.vae_scale_factor, columns * pipe.vae_scale_factor


def _check_prompts(pipe: Any, design: Design) -> None:
    for name, text in (("prompt", design.prompt), ("negative_prompt", design.negative_prompt or "")):
        tokens, most = len(pipe.tokenizer(text).input_ids) - 2, pipe.tokenizer.model_max_length - 2
        if tokens > most:
            raise UserError(f"{name}: got {tokens} tokens, expected at most {most}; shorten it")


def _check_conditions(pipe: Any, design: Design, height: int | None, width: int | None) -> None:
    """Warns of words of prompts that the model does not know, and checks aspects of regions, by their place."""
    tokenizer = getattr(pipe, "tokenizer", None)
    known = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None
    warn_of_unknown_words(known, design.prompt, "prompt")
    warn_of_unknown_words(known, design.negative_prompt or "", "negative_prompt")
    for name, some in design.conditions.items():
        aspect = None
        for index, one in enumerate(some):
            place = f"conditions.{name}[{index}]"
            try:
                aspect = common_aspect((aspect, one.aspect))
                if height and width:
                    check_aspect(aspect, height / width)
            except UserError as error:
                raise UserError(f"{place}: {error}") from error


def _guidance(pipe: DiffusionPipeline, design: Design, taken: Mapping[str, object]) -> dict[str, object]:
    """Returns scale and rescale of guidance, and the negative prompt."""
    rescale = {"guidance_rescale": design.guidance_rescale} if design.guidance_rescale else {}
    if rescale and design.begins_with_image and "guidance_rescale" not in taken:
        logger.warning("guidance_rescale: %s takes none beside an image; it is left out", type(pipe).__name__)
        rescale = {}
    return {**guidance_arguments(pipe, design.guidance_scale, design.negative_prompt), **rescale}


def _images(pipe: Any, design: Design, taken: Mapping[str, object]) -> dict[str, Any]:
    if not design.images:
        return {}
    if "image" not in taken or design.controlnets:
        raise UserError(
            f"images: got {len(design.images)}, but {type(pipe).__name__} reads no reference images; use a model of "
            "FLUX.1 Kontext, FLUX.2 or Qwen-Image Edit, or a condition with an image"
        )
    images: list[Image.Image] = list(design.images)
    return {"image": images if len(images) > 1 else images[0]}


def _initial(design: Design, count: int) -> dict[str, Any]:
    """Returns the initial image and its mask once for each image, since each is encoded with that one's generator."""
    if not design.begins_with_image:
        return {}
    mask = {} if design.mask_image is None else {"mask_image": [binary_mask(design.mask_image)] * count}
    return {"image": [design.image] * count, "strength": design.strength, **mask}


def _control_arguments(controls: Sequence[Control]) -> dict[str, Any]:
    if not controls:
        return {}
    return {
        "image": [control.image for control in controls],
        "controlnet_conditioning_scale": [control.weight for control in controls],
        "control_guidance_start": [control.start for control in controls],
        "control_guidance_end": [control.end for control in controls],
    }
