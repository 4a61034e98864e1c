"""Attention of rows with different numbers of tokens, and Mochi's processor with one call of it."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import dispatch_attention_fn
from jaxtyping import Bool, Float
from torch import Tensor


def row_attention(
    query: Float[Tensor, "row query head dim"],
    key: Float[Tensor, "row key head dim"],
    value: Float[Tensor, "row key head dim"],
    attn_mask: Tensor | None = None,
    **options: Any,
) -> Float[Tensor, "row query head dim"]:
    """Computes attention row by row, without the tokens that a mask [row, 1, 1, key] of truth values hides.

    Queries are the first keys, and those that are hidden are left out too: the others come first in the output, behind
    them it is 0. Other masks are those of `dispatch_attention_fn`.
    """
    if attn_mask is None or attn_mask.dtype != torch.bool:
        return dispatch_attention_fn(query, key, value, attn_mask=attn_mask, **options)
    outs = []
    for row, shown in enumerate(attn_mask[:, 0, 0]):
        kept = shown.nonzero().flatten()
        alike = query.shape[1] == key.shape[1]  # compilers want the same places to be found once
        asked = kept if alike else shown[: query.shape[1]].nonzero().flatten()
        for places in (kept, asked):
            torch._check(places.shape[0] > 0)  # which they cannot know
        q, k, v = query[row][asked][None], key[row][kept][None], value[row][kept][None]
        out = dispatch_attention_fn(q, k, v, **options)
        outs.append(F.pad(out, (0, 0, 0, 0, 0, query.shape[1] - out.shape[1])))
    return torch.cat(outs)


class RowAttnProcessor:
    """`MochiAttnProcessor2_0` of diffusers, with one call of attention for all rows."""

    _attention_backend = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "row token dim"],
        encoder_hidden_states: Float[Tensor, "row text_token text_dim"],
        attention_mask: Bool[Tensor, "row text_token"],
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (attn.heads, -1))

        query, key, value = (heads(project(hidden_states)) for project in (attn.to_q, attn.to_k, attn.to_v))
        projections = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
        text_query, text_key, text_value = (heads(project(encoder_hidden_states)) for project in projections)
        query = attn.norm_q(query)
        key = attn.norm_k(key)
        text_query, text_key = attn.norm_added_q(text_query), attn.norm_added_k(text_key)
        if image_rotary_emb is not None:
            query, key = (_rotated(x, *image_rotary_emb) for x in (query, key))
        tokens = hidden_states.shape[1]
        out = row_attention(
            torch.cat([query, text_query], 1),
            torch.cat([key, text_key], 1),
            torch.cat([value, text_value], 1),
            attn_mask=F.pad(attention_mask.bool(), (tokens, 0), value=True)[:, None, None],
            backend=self._attention_backend,
        )
        image, text = out.flatten(2).split_with_sizes((tokens, encoder_hidden_states.shape[1]), 1)
        image = attn.to_out[1](attn.to_out[0](image))
        return image, attn.to_add_out(text) if hasattr(attn, "to_add_out") else text


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack([(even * cos - odd * sin).to(x.dtype), (even * sin + odd * cos).to(x.dtype)], -1).flatten(-2)
