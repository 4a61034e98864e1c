"""Stages of branches around the attention of a layer: queries and keys before it, and a residual behind the block."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from weftwork.attention_processors.core.biases import biased
from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install
from weftwork.scripts.benchmarks.backbones.tiny import BACKBONES, flux, made, sd3, wan


class Looking(Branch):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        self.seen = dict(own.early)
        return out


class Residual(Branch):
    """A residual of ones on the image's tokens."""

    def residual(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        return torch.ones_like(own.early["query"])


def by_token(heads: Tensor, like: Tensor) -> Tensor:
    """[row, token, head, dim] of a norm's input or output, whose axes differ among families."""
    heads = heads.unflatten(-1, (-1, like.shape[-1])) if heads.ndim == 3 else heads
    return heads if heads.shape == like.shape else heads.transpose(1, 2)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one.__name__)
@torch.no_grad()
def test_queries_and_keys_on_both_sides_of_norms(backbone: Any) -> None:
    model, call = made(backbone)
    install(model)
    family = family_of(model)
    layers: dict[str, Any] = {n: one for n, one in attention_layers(model).items() if family.role(n) != "linear"}
    branches, wanted = {name: Looking() for name in layers}, {name: {} for name in layers}
    for name, layer in layers.items():
        for side in ("query", "key"):
            norm = getattr(layer, f"norm_{side[0]}", None)

            def keep(_: Any, given: Any, out: Tensor, name: str = name, side: str = side) -> None:
                wanted[name][side], wanted[name][f"raw {side}"] = out, given[0]

            if norm is not None:
                norm.register_forward_hook(keep)
    with conditioned(model, Conditioning({name: (branch,) for name, branch in branches.items()})):
        call(model)
    for name, branch in branches.items():
        assert set(branch.seen) == set(wanted[name])
        for side, seen in branch.seen.items():
            assert torch.equal(seen, by_token(wanted[name][side], seen)), (name, side)


@torch.no_grad()
def test_a_residual_is_added_behind_the_block() -> None:
    model, call = made(flux)
    outs: list[tuple[Tensor, Tensor]] = []
    model.transformer_blocks[0].register_forward_hook(lambda *given: outs.append(given[-1]))
    install(model)
    call(model)
    with conditioned(model, Conditioning({"transformer_blocks.0.attn": (Residual(),)})):
        call(model)
    (text, image), (text_with, image_with) = outs
    assert torch.equal(text, text_with) and torch.equal(image + 1, image_with)
    with conditioned(model, Conditioning({"transformer_blocks.0.attn": (Residual(), Residual())})):
        call(model)
    assert torch.equal(image + 2, outs[-1][1])


@pytest.mark.parametrize(("backbone", "layer"), [(flux, "single_transformer_blocks.0.attn"), (wan, "blocks.0.attn2")])
@torch.no_grad()
def test_a_residual_without_a_second_stream_is_refused(backbone: Any, layer: str) -> None:
    model, call = made(backbone)
    install(model)
    with (
        conditioned(model, Conditioning({layer: (Residual(),)})),
        pytest.raises(RuntimeError, match="got a branch with a residual for the block"),
    ):
        call(model)


def test_what_a_call_keeps_has_gradients() -> None:
    """Queries before rotary embeddings are part of the graph."""
    model, call = made(sd3)
    install(model)
    branch = Looking()
    with conditioned(model, Conditioning({"transformer_blocks.1.attn": (branch,)})):
        call(model)
    branch.seen["raw query"].sum().backward()
    assert model.transformer_blocks[0].attn.to_q.weight.grad.any()


@pytest.mark.parametrize("scale", [None, 0.7])
def test_biases_travel_as_channels_at_the_scale_of_the_layer(scale: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, 3, 8, generator=generator) for n in (5, 7, 7))
    bias = torch.randn(2, 5, 2, generator=generator), torch.randn(2, 7, 2, generator=generator)

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **more: float) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, mask, **{"scale": scale, **more}).transpose(1, 2)  # pyright: ignore

    mask = (bias[0] @ bias[1].transpose(1, 2)).unsqueeze(1)
    torch.testing.assert_close(biased(run, query, key, value, None, [bias], scale), run(query, key, value, mask))
