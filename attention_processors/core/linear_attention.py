"""Linear attention as a function, and Sana's processor with a call of it, so that branches can enter."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.branch import Biases


def linear_attention(
    query: Float[Tensor, "row query head dim"],
    key: Float[Tensor, "row key head dim"],
    value: Float[Tensor, "row key head dim"],
    mask: Tensor | None = None,
    biases: Biases = (),
    /,
) -> Float[Tensor, "row query head dim"]:
    """Computes sum_k w(x, k) (q(x) k) v_k / sum_k w(x, k) (q(x) k) of queries and keys that are not negative.

    Biases are logarithms of the weights w; channels of keys are 1 for the keys of a part, else 0, and a key is of one
    part at most. Memory is linear in tokens. Masks have no effect.
    """
    queries, keys, values = query.permute(0, 2, 3, 1), key.transpose(1, 2), value.permute(0, 2, 3, 1)
    values = F.pad(values, (0, 0, 0, 1), value=1.0)
    out = torch.matmul(torch.matmul(values, keys), queries)
    for strengths, members in biases:
        for strength, member in zip(strengths.unbind(-1), members.unbind(-1), strict=True):
            more = torch.matmul(torch.matmul(values * member[:, None, None], keys), queries)
            out = out + (strength.exp() - 1)[:, None, None] * more
    return (out[:, :, :-1] / (out[:, :, -1:] + 1e-15)).permute(0, 3, 1, 2)


class LinearAttnProcessor:
    """`SanaLinearAttnProcessor2_0` of diffusers, with its attention as a call."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        dtype = hidden_states.dtype
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        query, key, value = (one.transpose(1, 2).unflatten(1, (attn.heads, -1)) for one in (query, key, value))
        query, key, value = F.relu(query).float(), F.relu(key).float(), value.float()
        out = linear_attention(query.permute(0, 3, 1, 2), key.permute(0, 3, 1, 2), value.permute(0, 3, 1, 2))
        out = attn.to_out[1](attn.to_out[0](out.flatten(2).to(dtype)))
        return out.clip(-65504, 65504) if dtype == torch.float16 else out
