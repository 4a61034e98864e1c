"""Caches of diffusers (`enable_cache`) on a denoiser: their state, and calls without them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from torch import nn

CACHES: Final = ("_cache", ".pyramid_attention_broadcast")
"""Ends of the names of diffusers' modules with hooks that return what an earlier call computed."""


def _registries(denoiser: nn.Module) -> list[Any]:
    found = (vars(module).get("_diffusers_hook") for module in denoiser.modules())
    return [registry for registry in found if registry is not None]


def reset_caches(denoiser: nn.Module) -> None:
    """Forgets what earlier calls of the denoiser computed."""
    for registry in _registries(denoiser):
        registry.reset_stateful_hooks(recurse=False)
        for hook in registry.hooks.values():  # FasterCache would read what was just cleared
            if getattr(hook, "is_guidance_distilled", False) and hasattr(hook, "block_skip_range"):
                hook.state.iteration = hook.block_skip_range


@contextmanager
def without_caches(denoiser: nn.Module) -> Iterator[None]:
    """Lets calls within the block compute all layers, unseen by the caches."""
    hooks = [hook for registry in _registries(denoiser) for hook in registry.hooks.values()]
    links = [hook.fn_ref for hook in hooks if type(hook).__module__.endswith(CACHES)]
    before = [dict(vars(link)) for link in links]
    try:
        for link in links:
            link.pre_forward, link.post_forward = _same_inputs, _same_output
            link.forward = link.original_forward or link.forward
        yield
    finally:
        for link, functions in zip(links, before, strict=True):
            vars(link).update(functions)


def _same_inputs(_: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def _same_output(_: nn.Module, output: Any) -> Any:
    return output
