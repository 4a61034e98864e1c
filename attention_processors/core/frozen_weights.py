"""Weights of frozen layers as plain numbers, and of layers that diffusers stores in another precision."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.hooks.layerwise_casting import LayerwiseCastingHook, apply_layerwise_casting_hook
from torch import Tensor, nn

from weftwork.datasets.readers.errors import UserError


def plain_weight(projection: Any, name: str) -> Tensor:
    """Returns the matrix [out, in] of a frozen linear layer: dequantised, and without LoRAs.

    Weights of bitsandbytes, GGUF, torchao and quanto are read.

    Args:
        name: of the layer, for errors.

    Raises:
        ValueError: weights in a format that cannot be read, by layer and class.
    """
    layer = projection.get_base_layer() if hasattr(projection, "get_base_layer") else projection
    weight = getattr(layer, "weight", None)
    plain = _dequantized(weight, layer) if isinstance(weight, Tensor) else None
    if plain is None or not plain.is_floating_point() or plain.shape != (layer.out_features, layer.in_features):
        kind = "none" if plain is None else f"{type(weight).__name__} of {plain.dtype} and shape {tuple(plain.shape)}"
        raise UserError(
            f"{name}: got the weights of {type(layer).__name__} ({kind}), which cannot be dequantised; make the "
            "adapter for the denoiser in full precision, then attach it to this one"
        )
    return plain


def _dequantized(weight: Any, layer: nn.Module) -> Tensor:
    kind = type(weight)
    if kind.__name__ in ("Params4bit", "Int8Params"):
        from diffusers.quantizers.bitsandbytes.utils import dequantize_bnb_weight

        return dequantize_bnb_weight(weight, getattr(layer, "state", None))
    if kind.__name__ == "GGUFParameter":
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(weight)
    return weight if kind in (nn.Parameter, Tensor) else weight.dequantize()


@contextmanager
def computing(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Keeps weights of modules in the precision of computation within the block, after `enable_layerwise_casting`.

    Modules read the precision of weights before and after the call of the layer that they belong to, where they would
    find that of storage.
    """
    hooks = [(one, hook) for one in modules if (hook := _casting(one)) is not None]
    stored = [hook.storage_dtype for _, hook in hooks]
    for one, hook in hooks:
        one.to(hook.compute_dtype)
        hook.storage_dtype = hook.compute_dtype
    try:
        yield
    finally:
        for (one, hook), dtype in zip(hooks, stored, strict=True):
            hook.storage_dtype = dtype
            one.to(dtype)


def cast_alike(network: nn.Module, denoiser: nn.Module) -> None:
    """Lets a network with a denoiser's weights, LoRAs beside them, cast these as the denoiser does."""
    casting = {name: hook for name, one in denoiser.named_modules() if (hook := _casting(one)) is not None}
    parts = dict(network.named_modules()) if casting else {}
    for name, hook in casting.items():
        own = parts.get(f"{name}.base_layer", parts[name])
        if _casting(own) is None:
            apply_layerwise_casting_hook(own, hook.storage_dtype, hook.compute_dtype, hook.non_blocking)


def _casting(module: nn.Module) -> LayerwiseCastingHook | None:
    hooks = getattr(module, "_diffusers_hook", None)
    found = () if hooks is None else hooks.hooks.values()
    return next((hook for hook in found if isinstance(hook, LayerwiseCastingHook)), None)
