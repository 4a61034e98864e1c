"""Pipelines that begin with an image, made of the components of one that begins with noise."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    _get_task_class,
)

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin, stock_class
from weftwork.pipelines.core.opening import conditioned_class

UNMASKED_CHANNELS: Final = 4
"""Input channels by which diffusers' inpainting knows a U-Net that does not read the mask."""


@contextmanager
def image_pipeline(pipe: ConditionedPipelineMixin, masked: bool) -> Iterator[ConditionedPipelineMixin]:
    """Yields diffusers' image-to-image or inpainting pipeline with the components of another, for one call.

    `from_pipe` would also cast all components to one dtype.

    Raises:
        ValueError: diffusers has none for this model.
    """
    stock = stock_class(type(pipe))
    mapping = AUTO_INPAINT_PIPELINES_MAPPING if masked else AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    found = _get_task_class(mapping, stock.__name__, throw_error_if_not_exist=False)
    if found is None or found is stock:
        name, task = ("mask_image", "inpainting") if masked else ("image", "image-to-image")
        raise UserError(f"{name}: got one, but diffusers has no {task} for {stock.__name__}; leave it out")
    kind: Any = conditioned_class(found)
    known, options = kind._get_signature_keys(kind)
    parts = pipe.components
    made = kind(
        **{name: parts[name] for name in parts if name in known},
        **{name: pipe.config[name] for name in options if name in pipe.config},
    )
    made.register_modules(adapters=pipe.adapters, encoders=pipe.encoders)
    made.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    with _as_unmasked(pipe) if masked else nullcontext():
        yield made


@contextmanager
def _as_unmasked(pipe: Any) -> Iterator[None]:
    """Lets diffusers inpaint with a U-Net of as many channels as its latents, be they other than four."""
    unet: Any = getattr(pipe, "unet", None)
    channels = getattr(unet, "config", {}).get("in_channels")
    if channels is None or channels != pipe.vae.config.latent_channels:
        yield
        return
    unet.register_to_config(in_channels=UNMASKED_CHANNELS)
    try:
        yield
    finally:
        unet.register_to_config(in_channels=channels)
