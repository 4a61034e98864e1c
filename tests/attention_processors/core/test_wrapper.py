"""Wrapped processors: the code of the stock ones, with branches, on every family of diffusers."""

import copy
import pickle
import threading
from typing import Any

import pytest
import torch
from diffusers.hooks import LayerSkipConfig, apply_layer_skip
from diffusers.hooks._helpers import AttentionProcessorRegistry
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from tiny import tiny_unet
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import (
    attention_layers,
    conditioned,
    install,
    restore,
)
from weftwork.attention_processors.core.wrapper import WrappedProcessor, can_wrap, wrap, wrapped_class
from weftwork.scripts.benchmarks.backbones.tiny import BACKBONES, made, mochi, parts, run


class Counted(Branch):
    """Attention to random tokens; counts how often it is read."""

    linear = True

    def __init__(self, gain: float) -> None:
        self.gain, self.calls = gain, 0

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        self.calls += 1
        noise = torch.Generator().manual_seed(0)
        key = torch.randn(query.shape[0], 4, *query.shape[2:], generator=noise).to(query)
        return torch.where(torch.tensor(self.gain == 0), out, out + self.gain * attend(query, key, key.flip(1)))


def everywhere(model: nn.Module, branch: Branch) -> Conditioning:
    layers = attention_layers(model)
    return Conditioning({name: (branch,) for name, layer in layers.items() if can_wrap(layer.processor)})


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one.__name__)
@torch.no_grad()
def test_branches_act_in_every_layer_of_every_family(backbone: Any) -> None:
    """Unused and at gain 0 the stock model's bits, read once by each layer otherwise, and the very objects after it."""
    model, call = made(backbone)
    stock, found = call(model), {name: layer.processor for name, layer in attention_layers(model).items()}
    keys = list(model.state_dict())
    install(model)
    assert torch.equal(call(model), stock) and list(model.state_dict()) == keys
    for gain in (0.0, 0.5):
        branch = Counted(gain)
        conditioning = everywhere(model, branch)
        with conditioned(model, conditioning):
            assert torch.equal(call(model), stock) == (gain == 0)
        assert branch.calls == len(conditioning.branches)
    assert torch.equal(call(model), stock)
    restore(model)
    assert all(layer.processor is found[name] for name, layer in attention_layers(model).items())


@torch.no_grad()
def test_hidden_text_tokens_of_mochi_may_stand_anywhere() -> None:
    model, inputs = parts(mochi)
    inputs["encoder_attention_mask"] = torch.tensor([[0, 1, 1, 0, 1, 1, 0], [0] * 7]).bool()
    stock = run(model, inputs)
    install(model)
    for gain in (0.0, 0.5):
        with conditioned(model, everywhere(model, Counted(gain))):
            assert torch.equal(run(model, inputs), stock) == (gain == 0)


# -- one layer ---------------------------------------------------------------------------------------------


class Scaled(AttnProcessor2_0):
    """Calls its base class, and has state."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def __call__(self, attn: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        return self.scale * super().__call__(attn, hidden_states, *args, **kwargs)


class AsModule(nn.Module):
    """A processor with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, attn: Any, hidden_states: Any, **_: Any) -> Any:
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return self.gain * attn.to_out[0](out.transpose(1, 2).flatten(2))


HIDDEN = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))


def layer(processor: Any = None) -> Any:
    torch.manual_seed(0)
    return Attention(32, heads=4, dim_head=8, processor=processor or AttnProcessor2_0()).requires_grad_(False)


@pytest.mark.parametrize("kind", [AttnProcessor2_0, AttnProcessor, Scaled, AsModule])
def test_processors_of_any_kind(kind: Any) -> None:
    attention = layer(kind())
    expected = attention(HIDDEN)
    with_plain = layer()
    install(with_plain)
    with conditioned(with_plain, Conditioning({"": (Counted(0.5),)})):
        added = with_plain(HIDDEN) - layer()(HIDDEN)
    names = list(attention.state_dict())
    install(attention)
    assert isinstance(attention.processor, kind) and torch.equal(attention(HIDDEN), expected)
    assert list(attention.state_dict()) == names
    factor = {Scaled: 2.0, AsModule: 0.5}.get(kind, 1.0)
    with conditioned(attention, Conditioning({"": (Counted(0.5),)})):
        moved = attention(HIDDEN) - expected
    torch.testing.assert_close(moved, factor * added, atol=1e-6, rtol=1e-5)


def test_state_is_shared_with_the_processor_that_was_found() -> None:
    attention = layer(Scaled())
    found = attention.processor
    install(attention)
    attention.processor.scale = 3.0
    assert found.scale == 3.0
    restore(attention)
    assert attention.processor is found


def test_xformers_attention() -> None:
    """Heads are folded into rows there, and masks are not broadcast."""

    def memory_efficient_attention(query: Tensor, key: Tensor, value: Tensor, attn_bias: Any = None) -> Tensor:
        if attn_bias is not None:
            assert attn_bias.shape == (query.shape[0], query.shape[1], key.shape[1])
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_bias)

    processor: Any = wrap(AttnProcessor2_0())
    attention, plain = layer(), {}
    query = torch.randn(2, 6, 4, 8)
    folded = query.transpose(1, 2).flatten(0, 1)
    for gain in (0.0, 0.5):
        processor.set(Conditioning({"x": (Counted(gain),)}).at("x"))
        for mask in (None, torch.zeros(8, 6, 6)):
            out = processor.attend_folded({}, attention, 0, memory_efficient_attention, folded, folded, folded, mask)
            plain[gain] = out.unflatten(0, (2, 4))
        heads = query.transpose(1, 2)
        other = processor.attend_heads(
            {}, attention, 0, torch.nn.functional.scaled_dot_product_attention, heads, heads, heads
        )
        torch.testing.assert_close(plain[gain], other)
    assert not torch.equal(plain[0.0], plain[0.5])


# -- copies ------------------------------------------------------------------------------------------------


def test_copies_and_pickles() -> None:
    unet = tiny_unet()
    install(unet)
    with conditioned(unet, everywhere(unet, Counted(0.5))):
        twin = copy.deepcopy(unet)
    stock = pickle.loads(pickle.dumps(unet))
    assert all(type(layer.processor) is AttnProcessor2_0 for layer in attention_layers(stock).values())
    for layer_ in attention_layers(twin).values():
        assert isinstance(layer_.processor, WrappedProcessor) and not layer_.processor.current.branches
    assert type(pickle.loads(pickle.dumps(wrapped_class(AttnProcessor2_0)()))) is AttnProcessor2_0


# -- calls -------------------------------------------------------------------------------------------------


def call(unet: Any) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return unet(torch.randn(2, 4, 8, 8, generator=noise), 3, torch.randn(2, 5, 32, generator=noise)).sample


@pytest.mark.parametrize("also", [True, False], ids=["conditioned", "unconditioned"])
def test_another_thread_is_refused_while_conditions_act(also: bool) -> None:
    unet = tiny_unet()
    install(unet)
    conditioning, errors = everywhere(unet, Counted(0.5)), []

    def elsewhere() -> None:
        try:
            if also:
                with conditioned(unet, conditioning):
                    call(unet)
            else:
                call(unet)
        except RuntimeError as error:
            errors.append(str(error))

    with conditioned(unet, conditioning):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        call(unet)
    assert len(errors) == 1 and "another thread runs it with conditions" in errors[0]
    call(unet)


def test_wrapped_classes_are_registered_where_they_are_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers fills its registry at the first question."""
    monkeypatch.setattr(AttentionProcessorRegistry, "_registry", {})
    monkeypatch.setattr(AttentionProcessorRegistry, "_is_registered", False)
    kind = wrapped_class.__wrapped__(AttnProcessor2_0)
    assert AttentionProcessorRegistry.get(kind) is AttentionProcessorRegistry.get(AttnProcessor2_0)


def test_layer_skipping_of_diffusers_knows_wrapped_processors() -> None:
    """Guiders use it; a layer that is skipped reads no conditions, which is no error."""
    unet = tiny_unet()
    install(unet)
    with conditioned(unet, everywhere(unet, Counted(0.5))):
        whole = call(unet)
    skip = LayerSkipConfig(indices=[0], fqn="mid_block.attentions.0.transformer_blocks", skip_attention=True)
    apply_layer_skip(unet, skip)
    with conditioned(unet, everywhere(unet, Counted(0.5))):
        assert not torch.equal(call(unet), whole)


def test_nothing_is_left_after_an_error() -> None:
    unet = tiny_unet()
    install(unet)
    expected = call(unet)
    with pytest.raises(RuntimeError, match="stop here"), conditioned(unet, everywhere(unet, Counted(0.5))):
        raise RuntimeError("stop here")
    assert torch.equal(call(unet), expected)


def test_blocks_of_one_denoiser_can_be_nested() -> None:
    unet = tiny_unet()
    install(unet)
    with conditioned(unet, everywhere(unet, Counted(0.5))):
        outer = call(unet)
        with conditioned(unet, Conditioning({})):
            inner = call(unet)
        assert torch.equal(call(unet), outer)
    assert torch.equal(call(unet), inner)


def test_a_layer_that_is_not_read_is_an_error() -> None:
    unet: Any = tiny_unet()
    install(unet)
    name, skipped = next(iter(attention_layers(unet).items()))
    skipped.forward = lambda hidden_states, *_, **__: hidden_states  # pyright: ignore[reportAttributeAccessIssue]
    message = rf"{name}: the conditions of this layer were read 0 times in one call"
    with conditioned(unet, everywhere(unet, Counted(0.5))), pytest.raises(RuntimeError, match=message):
        call(unet)
