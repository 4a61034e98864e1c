"""Rows of the table about offloaded weights and weights in another precision.

Offloading moves weights between the CPU and itself, which runs all of its hooks; where there is an accelerator, weights
would be copied to it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from accelerate import cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading
from diffusers.hooks.layerwise_casting import LayerwiseCastingHook
from torch import Tensor, nn

from weftwork.attention_processors.core.attached import AttachedAdapters
from weftwork.attention_processors.core.frozen_weights import plain_weight
from weftwork.attention_processors.core.processor import attention_layers, install
from weftwork.scripts.benchmarks.backbones.cells import Cell, Parts, Row, close, equal, moved

CPU: Final = torch.device("cpu")
GGUF_BLOCK: Final = 32
"""Widths that GGUF's 8-bit format stores are multiples of it; files have other layers in bfloat16."""


def encoded_output(parts: Parts, attached: AttachedAdapters) -> Tensor:
    """Returns the output with conditions that are encoded as pipelines do it."""
    example = parts.example
    features = example.adapter.features(example.adapter.collate(parts.conditions()), example.encoders)
    return parts.output(parts.laid_out({"it": attached("it", features)}))


def _offloaded(offload: Callable[[nn.Module], object]) -> Callable[[Cell], None]:
    @torch.no_grad()
    def check(cell: Cell) -> None:
        """Weights of denoiser and adapter that come and go do not change a bit, before attaching or after."""
        parts, before = cell.parts(), cell.parts(offload)
        install(parts.denoiser)
        install(before.denoiser)
        wanted = parts.output()
        offload(parts.denoiser)
        for one, when in ((parts, "after"), (before, "before")):
            attached = AttachedAdapters({"it": one.example.adapter})
            offload(attached)
            equal(encoded_output(one, attached), wanted, f"offloaded {when} attaching")

    return check


def _by_blocks(module: nn.Module) -> None:
    apply_group_offloading(module, CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


def _by_layers(module: nn.Module) -> None:
    apply_group_offloading(module, CPU, CPU, offload_type="leaf_level")


def _whole(module: nn.Module) -> None:
    cpu_offload_with_hook(module, CPU)


@torch.no_grad()
def in_fp8(cell: Cell) -> None:
    """Layers that diffusers stores in 8 bits give what the same layers with rounded weights give, bit for bit."""
    parts = cell.parts(_cast)
    rounded = cell.parts(lambda denoiser: _round(denoiser, parts.denoiser))
    parts.example.adapter.load_state_dict(rounded.example.adapter.state_dict())
    stock = parts.run()
    equal(rounded.run(), stock, "rounded weights")
    for one in (parts, rounded):
        install(one.denoiser)
    equal(parts.run(), stock, "wrapped without conditions")
    attached, plain = (AttachedAdapters({"it": one.example.adapter}) for one in (parts, rounded))
    _cast(attached)
    _round(plain, attached)
    out = encoded_output(parts, attached)
    moved(out, stock, least=1e-6)
    equal(out, encoded_output(rounded, plain), "conditions on rounded weights")


def _cast(module: Any) -> None:
    module.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def _round(module: nn.Module, cast: nn.Module) -> None:
    """Rounds the weights that are cast in another module."""
    for name, one in cast.named_modules():
        registry = getattr(one, "_diffusers_hook", None)
        if registry is not None and any(isinstance(hook, LayerwiseCastingHook) for hook in registry.hooks.values()):
            module.get_submodule(name).to(torch.float8_e4m3fn).to(torch.float32)


def _quantized(quantize: Callable[[nn.Module], None]) -> Callable[[Cell], None]:
    @torch.no_grad()
    def check(cell: Cell) -> None:
        """An adapter made for quantised layers acts on them as one made for the same weights as plain numbers."""
        parts = cell.parts(quantize)
        plain = cell.parts(lambda denoiser: (quantize(denoiser), _dequantize(denoiser)))
        stock = parts.run()
        for one in (parts, plain):
            install(one.denoiser)
        equal(parts.run(), stock, "wrapped without conditions")
        out = parts.output()
        moved(out, stock)
        close(out, plain.output(), 1e-4, "conditions on dequantised weights")

    return check


def _linear_layers(denoiser: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yields the linear layers within attention layers: the module that has each, its name there, and itself."""
    for layer in attention_layers(denoiser).values():
        for owner in list(layer.modules()):
            for name, one in list(owner.named_children()):
                if hasattr(one, "in_features"):
                    yield owner, name, one


def _dequantize(denoiser: nn.Module) -> None:
    for owner, name, one in _linear_layers(denoiser):
        plain = nn.Linear(one.in_features, one.out_features, one.bias is not None)
        plain.weight = nn.Parameter(plain_weight(one, name).float())
        plain.register_parameter("bias", None if one.bias is None else nn.Parameter(one.bias))
        setattr(owner, name, plain.requires_grad_(False))


def _to_int8(denoiser: nn.Module) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # pyright: ignore[reportMissingImports]

    for _, _, one in _linear_layers(denoiser):
        quantize_(one, Int8WeightOnlyConfig())


def _to_nf4(denoiser: nn.Module) -> None:
    from bitsandbytes.nn import Linear4bit  # pyright: ignore[reportMissingImports]

    for owner, name, one in _linear_layers(denoiser):
        made = Linear4bit(
            one.in_features, one.out_features, one.bias is not None, compute_dtype=torch.float32, quant_type="nf4"
        )
        made.load_state_dict(one.state_dict())
        setattr(owner, name, made.to("cpu"))


def _to_gguf(denoiser: nn.Module) -> None:
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
    from gguf import GGMLQuantizationType, quants  # pyright: ignore[reportMissingImports]

    for owner, name, one in _linear_layers(denoiser):
        kind = GGMLQuantizationType.BF16 if one.in_features % GGUF_BLOCK else GGMLQuantizationType.Q8_0
        made = GGUFLinear(one.in_features, one.out_features, one.bias is not None, compute_dtype=torch.float32)
        packed = torch.from_numpy(quants.quantize(one.weight.numpy(), kind))
        made.weight = GGUFParameter(packed, quant_type=kind)  # pyright: ignore
        made.bias = one.bias
        setattr(owner, name, made)


ROWS = (
    Row("group offload by blocks", _offloaded(_by_blocks)),
    Row("group offload by layers", _offloaded(_by_layers)),
    Row("model offload", _offloaded(_whole)),
    Row("fp8", in_fp8),
    Row("torchao int8", _quantized(_to_int8), package="torchao"),
    Row("bitsandbytes nf4", _quantized(_to_nf4), package="bitsandbytes"),
    Row("GGUF", _quantized(_to_gguf), package="gguf"),
)
