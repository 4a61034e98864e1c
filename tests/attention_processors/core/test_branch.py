"""Exactness of branches where they do not act."""

import torch
import torch.nn.functional as F
from torch import Tensor

from weftwork.attention_processors.core.branch import DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.joint_branch import JointBranch


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    heads = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def test_output_is_exact_where_the_gain_is_0_also_beside_infinite_values() -> None:
    noise = torch.Generator().manual_seed(0)
    query, out = (torch.randn(1, 4, 2, 8, generator=noise) for _ in range(2))
    out[0, 0, 0, 0] = -0.0
    gain = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 4, 1, 1)
    for value in (1.0, float("inf"), float("nan")):
        key, values = torch.randn(1, 3, 16, generator=noise), torch.full((1, 3, 16), value)
        mixed = DecoupledBranch(key, values, gain).mix(query, out, attend, OwnAttention(query, query, None, out))
        assert torch.equal(mixed[:, :2].view(torch.int32), out[:, :2].view(torch.int32))  # the sign of 0 too
        assert not torch.equal(mixed[:, 2:], out[:, 2:])


def test_masks_of_truths_and_of_numbers_hide_the_same_text_from_a_joint_softmax() -> None:
    noise = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 5, 2, 8, generator=noise) for _ in range(3))
    branch = JointBranch(*torch.randn(2, 1, 3, 16, generator=noise), torch.ones(1, 1, 1, 1))

    def mixed(mask: Tensor | None, count: int = 5) -> Tensor:
        text = key[:, :count], value[:, :count]
        out = attend(query, *text, mask)
        return branch.mix(query, out, attend, OwnAttention(*text, mask, out))

    keep = torch.tensor([True, True, True, False, False]).view(1, 1, 1, 5)
    numbers = torch.zeros(1, 1, 1, 5).masked_fill(~keep, -torch.inf)
    for mask in (keep, numbers):
        torch.testing.assert_close(mixed(mask), mixed(None, 3), atol=1e-6, rtol=0)
