"""Rotary embeddings as Stable Audio has them."""

from typing import Any

import torch
from diffusers import StableAudioDiTModel
from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
from jaxtyping import Float
from torch import Tensor

Rotary = tuple[Float[Tensor, "query dim"], Float[Tensor, "query dim"]]
"""Cosines and sines."""


def rotary_embedding_for(transformer: StableAudioDiTModel, latents: int) -> Rotary:
    """Returns the rotary embedding that the stock pipeline passes to the transformer for this number of latents."""
    dim = transformer.config["attention_head_dim"] // 2
    return rotary_embedding(dim, torch.arange(latents + 1))


def rotary_embedding(dim: int, positions: Float[Tensor, " place"]) -> Rotary:
    """Returns the rotary embedding of these positions."""
    given: Any = positions  # typed as an array in diffusers
    cosines, sines = get_1d_rotary_pos_embed(dim, given, use_real=True, repeat_interleave_real=False)
    return cosines, sines


def turned(heads: Float[Tensor, "row token head dim"], rotary: Rotary) -> Float[Tensor, "row token head dim"]:
    """Applies rotary embeddings to the first channels, in float32."""
    count = rotary[0].shape[-1]
    given: Any = rotary  # typed as one tensor in diffusers, as is the result
    first: Any = apply_rotary_emb(heads[..., :count].float(), given, use_real_unbind_dim=-2, sequence_dim=1)
    return torch.cat([first, heads[..., count:].float()], -1).to(heads.dtype)
