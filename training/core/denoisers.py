"""Calls of denoisers in training: latents, timesteps and prompt embeddings in the form that each family reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.processor import unwrapped
from weftwork.datasets.readers.errors import UserError

Embeds = Mapping[str, Any]
"""Prompt embeddings as arguments of a denoiser, one row per prompt."""
Noisy = Float[Tensor, "row channel height width"]


@dataclass(frozen=True)
class DenoiserCall:
    """How the denoisers of one family are called.

    Args:
        arguments: function of a denoiser, noisy latents and the scheduler's timesteps that returns arguments by name.
        prediction: function of the output and the noisy latents that returns the prediction in the shape of latents;
            of flow-matching models the velocity from data to noise.
        text_ids: whether coordinates of the text's tokens, all zero, are given beside the prompt embeddings.
        patch: side of the patches that latents are cut to.
    """

    arguments: Callable[[Any, Noisy, Tensor], dict[str, Any]]
    prediction: Callable[[Any, Noisy], Tensor] = lambda output, noisy: output
    text_ids: bool = False
    patch: int = 2

    def __call__(self, denoiser: Any, noisy: Noisy, timesteps: Tensor, embeds: Embeds, guidance: float = 3.5) -> Tensor:
        """Returns the prediction for noisy latents.

        Args:
            guidance: guidance scale for distilled models, which read it.
        """
        given = {**self.arguments(denoiser, noisy.to(denoiser.dtype), timesteps), **embeds}
        if getattr(denoiser.config, "guidance_embeds", False):
            given["guidance"] = torch.full((len(noisy),), guidance, device=noisy.device)
        if self.text_ids:
            given["txt_ids"] = noisy.new_zeros(embeds["encoder_hidden_states"].shape[1], 3)
        return self.prediction(denoiser(**given, return_dict=False)[0], noisy)


def packed(latents: Noisy) -> Float[Tensor, "row token dim"]:
    """Packs 2x2 patches of latents to tokens, as the pipelines of Flux and Qwen-Image do."""
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: Float[Tensor, "row token dim"], like: Noisy) -> Noisy:
    """Reverses `packed` for latents of the size of `like`."""
    height, width = like.shape[-2:]
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2)), 2)


def _coordinates(latents: Noisy) -> Float[Tensor, "token 3"]:
    """Coordinates (image, y, x) of packed latents."""
    height, width = (side // 2 for side in latents.shape[-2:])
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(height).float(), torch.arange(width).float())
    return places.to(latents)


def _unet(denoiser: Any, noisy: Noisy, timesteps: Tensor) -> dict[str, Any]:
    return {"sample": noisy, "timestep": timesteps}


def _sd3(denoiser: Any, noisy: Noisy, timesteps: Tensor) -> dict[str, Any]:
    return {"hidden_states": noisy, "timestep": timesteps}


def _flux(denoiser: Any, noisy: Noisy, timesteps: Tensor) -> dict[str, Any]:
    return {"hidden_states": packed(noisy), "timestep": timesteps / 1000, "img_ids": _coordinates(noisy)}


def _qwen_image(denoiser: Any, noisy: Noisy, timesteps: Tensor) -> dict[str, Any]:
    shape = (1, *(side // 2 for side in noisy.shape[-2:]))
    return {"hidden_states": packed(noisy), "timestep": timesteps / 1000, "img_shapes": [[shape]] * len(noisy)}


def _z_image(denoiser: Any, noisy: Noisy, timesteps: Tensor) -> dict[str, Any]:
    return {"x": list(noisy.unsqueeze(2).unbind()), "t": 1 - timesteps / 1000}


CALLS: Mapping[str, DenoiserCall] = {
    "UNet2DConditionModel": DenoiserCall(_unet, patch=1),
    "FluxTransformer2DModel": DenoiserCall(_flux, unpacked, text_ids=True),
    "SD3Transformer2DModel": DenoiserCall(_sd3),
    "QwenImageTransformer2DModel": DenoiserCall(_qwen_image, unpacked),
    "ZImageTransformer2DModel": DenoiserCall(_z_image, lambda output, noisy: -torch.stack(list(output)).squeeze(2)),
}
"""Calls by the name of a denoiser's class."""


def call_of(denoiser: nn.Module) -> DenoiserCall:
    """Returns the call of a denoiser's class or of its nearest base class.

    Raises:
        ValueError: a family that adapters cannot be trained on yet.
    """
    kinds: Sequence[type] = type(unwrapped(denoiser)).__mro__
    found = next((CALLS[kind.__name__] for kind in kinds if kind.__name__ in CALLS), None)
    if found is None:
        raise UserError(f"denoiser: got {kinds[0].__name__}, expected one of {', '.join(CALLS)}; train on one of these")
    return found
