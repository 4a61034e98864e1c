"""Adapters for quantised denoisers, and adapters that are stored in another precision.

bitsandbytes, GGUF and torchao are not among the dependencies: stand-ins have their classes' names and interfaces.
"""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import Method, RawTokensAdapter, raw_adapter, raw_conditions, tiny_pipe, tiny_unet
from torch import Tensor, nn
from variants import add_lora

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.core.processor import attention_layers
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

SCALE = 127.0


class Params4bit(nn.Parameter):
    """Codes of bitsandbytes: two weights a byte, with the original shape in `quant_state`."""

    quant_state: Any


class Int8Params(nn.Parameter):
    """Codes of bitsandbytes: one weight a byte, with a scale."""


class GGUFParameter(nn.Parameter):
    """Codes of GGUF: blocks of bytes."""


class Int8Tensor(Tensor):
    """As torchao's: looks like a matrix of floats."""

    def dequantize(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.as_subclass(Tensor) * 2

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_:
            raise NotImplementedError("Int8Tensor dispatch")
        return super().__torch_function__(func, types, args, kwargs)


def packed(weight: Tensor) -> Params4bit:
    made = Params4bit(torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
    made.quant_state = weight
    return made


def in_bytes(kind: Any, weight: Tensor) -> Any:
    return kind((weight * SCALE).round().to(torch.int8), requires_grad=False)


FORMATS: dict[str, Any] = {
    "4 bits": packed,
    "8 bits": lambda weight: in_bytes(Int8Params, weight),
    "GGUF": lambda weight: in_bytes(GGUFParameter, weight),
    "torchao": lambda weight: (weight / 2).as_subclass(Int8Tensor),
}


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' helpers import the libraries, so they are replaced together."""
    bnb: Any = ModuleType("diffusers.quantizers.bitsandbytes.utils")
    gguf: Any = ModuleType("diffusers.quantizers.gguf.utils")
    bnb.dequantize_bnb_weight = lambda weight, state=None: getattr(weight, "quant_state", weight.data.float() / SCALE)
    gguf.dequantize_gguf_tensor = lambda weight: weight.data.float() / SCALE
    for module in (bnb, gguf):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def quantised(make: Any) -> Any:
    unet = tiny_unet()
    for layer in attention_layers(unet).values():
        for one in (layer.to_k, layer.to_v):
            weight = one.weight.detach().clone()
            del one._parameters["weight"]
            one.weight = make(weight)
    return unet


@pytest.mark.usefixtures("helpers")
@pytest.mark.parametrize("kind", FORMATS)
def test_projections_start_as_those_of_a_quantised_layer(kind: str) -> None:
    made = RawTokensAdapter.for_denoiser(quantised(FORMATS[kind]), token_dim=32)
    for name, layer in attention_layers(tiny_unet()).items():
        if name in made.config["layers"]:
            torch.testing.assert_close(
                made.to_key[name.replace(".", "-")].weight, layer.to_k.weight, atol=0.005, rtol=0
            )
            torch.testing.assert_close(
                made.to_value[name.replace(".", "-")].weight, layer.to_v.weight, atol=0.005, rtol=0
            )


class Flattened(Tensor):
    """As torchao's: its codes are other tensors."""

    codes: Tensor

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes"], None


def test_hashes_of_quantised_weights_are_those_of_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, hashes = nn.Linear(2, 2), []
    for code in (1, 1, 2):
        weight = torch.zeros(2, 2).as_subclass(Flattened)
        weight.codes = torch.full((2, 2), code, dtype=torch.int8)
        monkeypatch.setattr(layer, "state_dict", lambda own=weight: {"weight": own})
        hashes.append(state_sha256(layer))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda weight: in_bytes(nn.Parameter, weight), "Parameter of torch.int8"),
        (lambda weight: nn.Parameter(weight.flatten()), "and shape \\(1024,\\)|and shape \\(2048,\\)"),
        (lambda weight: None, "\\(none\\)"),
    ],
)
def test_weights_that_cannot_be_read_are_refused_by_name(make: Any, words: str) -> None:
    expected = rf"attn2, keys: got the weights of Linear .*({words}).*, which cannot be dequantised; make the adapter"
    with pytest.raises(UserError, match=expected):
        RawTokensAdapter.for_denoiser(quantised(make), token_dim=32)


def test_the_remedy_for_them_works() -> None:
    """An adapter that was made for the denoiser in full precision attaches to the other one."""
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    made = raw_adapter(pipe.unet)
    pipe.unet.to(torch.bfloat16)
    pipe.attach(raw=made)
    assert pipe.adapters["raw"].dtype == torch.bfloat16


def test_loras_do_not_count() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    before = RawTokensAdapter.for_denoiser(pipe.unet, token_dim=32).state_dict()
    add_lora(pipe)
    after = RawTokensAdapter.for_denoiser(pipe.unet, token_dim=32).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


# Layerwise casting of adapters


def drawn(pipe: Any, method: Method) -> Any:
    generator = torch.Generator().manual_seed(0)
    given = {"one": method.conditions()}
    return pipe("a", conditions=given, num_inference_steps=1, generator=generator, output_type="np").images


def test_layerwise_casting_computes_with_the_rounded_weights(trained: Method) -> None:
    method = trained
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(one=method.adapter(pipe.unet))
    exact = drawn(pipe, method)
    pipe.adapters.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = {name: p.dtype for name, p in pipe.adapters.named_parameters()}
    assert torch.float8_e4m3fn in stored.values() and pipe.adapters.dtype == torch.float32
    cast = drawn(pipe, method)
    assert {name: p.dtype for name, p in pipe.adapters.named_parameters()} == stored
    again = tiny_pipe(ConditionedStableDiffusionPipeline)
    again.attach(one=method.adapter(again.unet))
    for name, parameter in again.adapters.named_parameters():
        parameter.data = parameter.to(stored[name]).float()
    assert (cast == drawn(again, method)).all() and (cast != exact).any()


def test_weights_are_stored_again_after_an_error() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(raw=raw_adapter(pipe.unet))
    pipe.adapters.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = [p.dtype for p in pipe.adapters.parameters()]
    features = pipe.adapters["raw"].collate([raw_conditions()])
    with pytest.raises(AttributeError):
        pipe.adapters("raw", None)
    assert [p.dtype for p in pipe.adapters.parameters()] == stored
    assert pipe.adapters("raw", features).key_value
