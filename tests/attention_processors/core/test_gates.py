"""Gates of branches: equal to the attention matrix written out, and no change at the start."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import attend, style_adapter, tiny_unet
from torch import Tensor

from weftwork.attention_processors.core.branch import DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.gates import AFFINE, AffineBranch, ExclusiveBranch
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.style.adapter import Style

ROWS, PLACES, HEADS, DIM, TOKENS = 2, 6, 4, 8, 5
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


QUERY, OUT = draw(ROWS, PLACES, HEADS, DIM), draw(ROWS, PLACES, HEADS, DIM)
OWN = OwnAttention(QUERY, QUERY, None, OUT)
GAIN = torch.rand(ROWS, PLACES, 1, 1, generator=GENERATOR, dtype=torch.float64)
BIAS = torch.where(torch.arange(TOKENS) < 3, draw(ROWS, 1, PLACES, TOKENS), -torch.inf)


def made(kind: type[DecoupledBranch], gate: Tensor, bias: Tensor | None, kv_heads: int = HEADS) -> Any:
    key, value = draw(ROWS, TOKENS, kv_heads * DIM), draw(ROWS, TOKENS, kv_heads * DIM)
    return kind(key, value, GAIN, bias, gate=gate)  # pyright: ignore[reportCallIssue]


def probabilities(branch: DecoupledBranch) -> tuple[Tensor, Tensor]:
    """The softmax [row, head, place, token], and the values [row, head, token, dim]."""
    key, value = (x.unflatten(-1, (-1, DIM)).transpose(1, 2) for x in (branch.key, branch.value))
    key, value = (x.repeat_interleave(HEADS // x.shape[1], 1) for x in (key, value))
    logits = QUERY.transpose(1, 2) @ key.transpose(-1, -2) * DIM**-0.5
    return (logits if branch.bias is None else logits + branch.bias).softmax(-1), value


@pytest.mark.parametrize("bias", [None, BIAS], ids=["all tokens", "masked tokens"])
@pytest.mark.parametrize("kv_heads", [HEADS, 2])
def test_affine_attention_equals_the_scaled_matrix(bias: Tensor | None, kv_heads: int) -> None:
    gate = draw(kv_heads * DIM + AFFINE)
    branch = made(AffineBranch, gate, bias, kv_heads)
    softmax, value = probabilities(branch)
    factors = gate[:-AFFINE].view(kv_heads, DIM).repeat_interleave(HEADS // kv_heads, 0)
    alpha = torch.tanh(torch.einsum("rphd,hd->rhp", QUERY, factors) * DIM**-0.5 + gate[-2]).unsqueeze(-1)
    read = torch.ones_like(softmax) if bias is None else (softmax > 0).double()
    weights = alpha * softmax + (gate[-1] - alpha) / read.sum(-1, keepdim=True) * read
    torch.testing.assert_close(weights.sum(-1), gate[-1].expand(ROWS, HEADS, PLACES))
    expected = OUT + GAIN * (weights @ value).transpose(1, 2)
    torch.testing.assert_close(branch.mix(QUERY, OUT, attend, OWN), expected)


@pytest.mark.parametrize("gate", [0.3, 1.0])
def test_exclusive_gates_hand_over_from_the_text(gate: float) -> None:
    branch = made(ExclusiveBranch, torch.tensor(gate, dtype=torch.float64), BIAS)
    softmax, value = probabilities(branch)
    share = gate * GAIN
    expected = (1 - share) * OUT + share * (softmax @ value).transpose(1, 2)
    torch.testing.assert_close(branch.mix(QUERY, OUT, attend, OWN), expected)


@pytest.mark.parametrize(("kind", "gate"), [(ExclusiveBranch, torch.zeros(())), (AffineBranch, torch.zeros(34))])
def test_a_gate_of_zero_changes_no_bit(kind: Any, gate: Tensor) -> None:
    assert torch.equal(made(kind, gate, BIAS).mix(QUERY, OUT, attend, OWN), OUT)


@pytest.mark.parametrize("fusion", ["gated", "exclusive", "affine"])
def test_new_adapters_start_closed_and_their_gates_learn(fusion: str) -> None:
    unet = tiny_unet()
    adapter = style_adapter(unet, fusion=fusion)
    gates = [one for name, one in adapter.named_parameters() if name.startswith(("gates", "affine"))]
    assert gates and all(bool((one == 0).all()) for one in gates)
    branches = adapter(adapter.collate([[Style("ink")]])).build(Layout(layer_levels(unet), (8, 8)))[0]
    for branch in branches.values():
        query = torch.randn(1, 1, branch.key.shape[-1] // DIM, DIM)
        own = OwnAttention(query, query, None, torch.randn_like(query))
        out = branch.mix(query, own.out, attend, own)
        np.testing.assert_array_equal(out.detach(), own.out)
        (out * torch.randn_like(out)).sum().backward(retain_graph=True)
    assert all(one.grad is not None and bool(one.grad.any()) for one in gates)
