"""Calls of denoisers in training: latents, timesteps and prompt embeddings in the form that each family reads.

A family's record has what its pipelines do around the denoiser: prompts are encoded by `encode_prompt` of the pipeline
itself, latents are packed and timesteps scaled as in its loop, and timesteps are shifted as for generation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from weftwork.attention_processors.core.processor import unwrapped
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.guidance import is_distilled

Embeds = Mapping[str, Any]
"""Prompt embeddings as arguments of a denoiser, one row per prompt."""
Rows = Mapping[str, Tensor | Sequence[Tensor]]
"""Prompt embeddings by name, one tensor per prompt; those of several prompts may differ in length."""
Noisy = Float[Tensor, "row channel height width"]


# -- prompts -----------------------------------------------------------------------------------------------


def _unet_prompts(pipe: DiffusionPipeline, captions: list[str], length: int | None) -> Rows:
    states, _, *pooled = pipe.encode_prompt(
        captions, device=pipe._execution_device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if not pooled:
        return {"encoder_hidden_states": states}
    rows = {"encoder_hidden_states": states, "text_embeds": pooled[0]}
    if pipe.config["force_zeros_for_empty_prompt"]:  # as the negative prompt of guidance
        rows = {name: [v * bool(c) for v, c in zip(values, captions, strict=True)] for name, values in rows.items()}
    return rows


def _flux_prompts(pipe: DiffusionPipeline, captions: list[str], length: int | None) -> Rows:
    states, pooled, _ = pipe.encode_prompt(captions, None, max_sequence_length=length)
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _sd3_prompts(pipe: DiffusionPipeline, captions: list[str], length: int | None) -> Rows:
    states, _, pooled, _ = pipe.encode_prompt(
        captions, None, None, do_classifier_free_guidance=False, max_sequence_length=length
    )
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _qwen_image_prompts(pipe: DiffusionPipeline, captions: list[str], length: int | None) -> Rows:
    states, mask = pipe.encode_prompt(captions, max_sequence_length=length)
    counts = [states.shape[1]] * len(states) if mask is None else mask.sum(1).tolist()
    return {"encoder_hidden_states": [row[:count] for row, count in zip(states, counts, strict=True)]}


def _z_image_prompts(pipe: DiffusionPipeline, captions: list[str], length: int | None) -> Rows:
    states, _ = pipe.encode_prompt(list(captions), do_classifier_free_guidance=False, max_sequence_length=length)
    return {"cap_feats": states}  # a copy of the captions, since the pipeline writes into the list


def _stacked(rows: Rows) -> Embeds:
    return {name: torch.stack(list(values)) for name, values in rows.items()}


def _padded(rows: Rows) -> Embeds:
    states = list(rows["encoder_hidden_states"])
    counts = torch.tensor([len(row) for row in states], device=states[0].device)
    mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
    return {
        "encoder_hidden_states": pad_sequence(states, batch_first=True),
        "encoder_hidden_states_mask": None if bool(mask.all()) else mask.long(),
    }


def _listed(rows: Rows) -> Embeds:
    return {name: list(values) for name, values in rows.items()}


# -- latents and timesteps ---------------------------------------------------------------------------------


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


def _unet(noisy: Noisy, timesteps: Tensor) -> dict[str, object]:
    return {"sample": noisy, "timestep": timesteps}


def _sd3(noisy: Noisy, timesteps: Tensor) -> dict[str, object]:
    return {"hidden_states": noisy, "timestep": timesteps}


def _flux(noisy: Noisy, timesteps: Tensor) -> dict[str, object]:
    return {"hidden_states": packed(noisy), "timestep": timesteps / 1000, "img_ids": _coordinates(noisy)}


def _qwen_image(noisy: Noisy, timesteps: Tensor) -> dict[str, object]:
    shape = (1, *(side // 2 for side in noisy.shape[-2:]))
    return {"hidden_states": packed(noisy), "timestep": timesteps / 1000, "img_shapes": [[shape]] * len(noisy)}


def _z_image(noisy: Noisy, timesteps: Tensor) -> dict[str, object]:
    return {"x": list(noisy.unsqueeze(2).unbind()), "t": 1 - timesteps / 1000}


# -- records -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DenoiserCall:
    """Conversions between a training step and the denoisers of one family.

    Args:
        encode: function of a pipeline, captions and a number of tokens that returns prompt embeddings.
        latents: function of noisy latents and the scheduler's timesteps that returns arguments of the denoiser.
        prediction: function of the output and the noisy latents that returns the prediction in the shape of latents:
            of flow-matching models the velocity from data to noise.
        batch: function that makes arguments of the denoiser of prompt embeddings.
        length: number of tokens of a prompt that the family's pipelines read; None where it cannot be chosen.
        tokenizers: those that count a prompt's tokens, by name of a component; the first that there is.
        text_ids: whether coordinates of the text's tokens, all zero, are given beside the prompt embeddings.
    """

    encode: Callable[[DiffusionPipeline, list[str], int | None], Rows]
    latents: Callable[[Noisy, Tensor], dict[str, object]]
    prediction: Callable[[Any, Noisy], Tensor] = lambda output, noisy: output
    batch: Callable[[Rows], Embeds] = _stacked
    length: int | None = 512
    tokenizers: tuple[str, ...] = ("tokenizer",)
    text_ids: bool = False

    def arguments(
        self, denoiser: ModelMixin, noisy: Noisy, timesteps: Tensor, embeds: Embeds, guidance_scale: float = 3.5
    ) -> dict[str, object]:
        """Returns the arguments of a call by name; `guidance_scale` is for distilled models, which read it."""
        given = {**self.latents(noisy.to(denoiser.dtype), timesteps), **embeds, "return_dict": False}
        if is_distilled(denoiser):
            given["guidance"] = torch.full((len(noisy),), guidance_scale, device=noisy.device)
        if self.text_ids:
            given["txt_ids"] = noisy.new_zeros(embeds["encoder_hidden_states"].shape[1], 3)
        return given

    def __call__(self, denoiser: ModelMixin, noisy: Noisy, timesteps: Tensor, embeds: Embeds) -> Tensor:
        """Returns the prediction for noisy latents, without conditions."""
        return self.prediction(denoiser(**self.arguments(denoiser, noisy, timesteps, embeds))[0], noisy)


CALLS: Mapping[str, DenoiserCall] = {
    "UNet2DConditionModel": DenoiserCall(_unet_prompts, _unet, length=None),
    "FluxTransformer2DModel": DenoiserCall(_flux_prompts, _flux, unpacked, tokenizers=("tokenizer_2",), text_ids=True),
    "SD3Transformer2DModel": DenoiserCall(_sd3_prompts, _sd3, length=256, tokenizers=("tokenizer_3", "tokenizer")),
    "QwenImageTransformer2DModel": DenoiserCall(_qwen_image_prompts, _qwen_image, unpacked, _padded),
    "ZImageTransformer2DModel": DenoiserCall(
        _z_image_prompts, _z_image, lambda output, noisy: -torch.stack(list(output)).squeeze(2), _listed
    ),
}
"""Calls by the name of a denoiser's class."""


def call_of(denoiser: nn.Module) -> DenoiserCall:
    """Returns the call of a denoiser's class or of its nearest base class; `ValueError` if there is none."""
    kinds: Sequence[type] = type(unwrapped(denoiser)).__mro__
    found = next((CALLS[kind.__name__] for kind in kinds if kind.__name__ in CALLS), None)
    if found is None:
        raise UserError(f"denoiser: got {kinds[0].__name__}, expected one of {', '.join(CALLS)}; train on one of these")
    return found


def denoiser_of(pipe: DiffusionPipeline) -> ModelMixin:
    """Returns the denoiser of a pipeline."""
    return getattr(pipe, "transformer", None) or pipe.unet


def timestep_shift(scheduler: ConfigMixin, latents: Noisy) -> float | None:
    """Returns `mu` of a scheduler with `use_dynamic_shifting` for the size of latents; None for others."""
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return None
    defaults = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
    height, width = latents.shape[-2:]
    return calculate_shift((height // 2) * (width // 2), *(config.get(name, own) for name, own in defaults.items()))
