"""Branch that reads condition tokens in one softmax with the text."""

import torch
from torch import Tensor

from weftwork.attention_processors.core.biases import additive
from weftwork.attention_processors.core.branch import Attend, DecoupledBranch, OwnAttention


class JointBranch(DecoupledBranch):
    """Branch with one softmax over the text tokens and the condition's tokens."""

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        key, value, bias = self.tokens(query)
        tokens = own.key.shape[1]
        if bias is not None or own.mask is not None:
            rows, places = query.shape[0], 1 if bias is None else bias.shape[2]
            left = query.new_zeros(rows, 1, places, tokens) if own.mask is None else additive(own.mask, query.dtype)
            right = query.new_zeros(rows, 1, 1, key.shape[1]) if bias is None else bias
            shape = torch.broadcast_shapes(left.shape[:-1], right.shape[:-1])
            bias = torch.cat([left.expand(*shape, -1), right.expand(*shape, -1)], -1)
        groups = own.key.shape[2] // key.shape[2]
        key, value = (x.repeat_interleave(groups, 2) for x in (key, value))
        return attend(query, torch.cat([own.key, key], 1), torch.cat([own.value, value], 1), bias) - own.out
