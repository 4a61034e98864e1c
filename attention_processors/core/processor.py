"""Wrapped processors on a denoiser, and the conditioning that acts while it runs."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from diffusers import ModelMixin
from diffusers.models.attention_processor import Attention, MochiAttention
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import LayerBranches
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.versions import warn_of_untested_diffusers
from weftwork.attention_processors.core.wrapper import BUSY, WrappedProcessor, can_wrap, wrap, wrapped_class
from weftwork.datasets.readers.errors import UserError

REPLACED_BY: Mapping[str, str] = {
    "AttnProcessor2_0": "disable_xformers_memory_efficient_attention(), disable_attention_slicing(), "
    "unload_ip_adapter() or set_default_attn_processor()",
    "AttnProcessor": "set_default_attn_processor()",
    "SlicedAttnProcessor": "enable_attention_slicing()",
    "FusedAttnProcessor2_0": "fuse_qkv_projections()",
    "XFormersAttnProcessor": "enable_xformers_memory_efficient_attention()",
    "IPAdapterAttnProcessor2_0": "load_ip_adapter()",
    "IPAdapterAttnProcessor": "load_ip_adapter()",
}


def unwrapped(denoiser: nn.Module) -> ModelMixin:
    """Returns the module behind `torch.compile`, whose parameter and layer names have no prefix."""
    return cast(ModelMixin, getattr(denoiser, "_orig_mod", denoiser))


def is_compiled(denoiser: nn.Module, modules: Iterable[nn.Module] | None = None) -> bool:
    """Whether the module, or any of its modules (default: found anew), is compiled by `torch.compile`."""
    inner = unwrapped(denoiser)
    modules = inner.modules() if modules is None else modules
    return inner is not denoiser or any(getattr(m, "_compiled_call_impl", None) is not None for m in modules)


def attention_layers(denoiser: nn.Module) -> dict[str, Attention]:
    """Returns all attention layers of a denoiser by dotted path, in the order of `attn_processors`."""
    return _attention_layers(unwrapped(denoiser).named_modules())


def _attention_layers(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Attention]:
    # Of the class: modules raise an error for each attribute that they lack, which takes most of the time.
    return {
        name: cast(Attention, module)
        for name, module in modules
        if hasattr(type(module), "set_processor") or isinstance(module, MochiAttention)  # which lacks this method
    }


BLOCK_INPUT = "_weftwork_input"
"""Attribute of blocks that holds their `BlockInput`."""


class BlockInput:
    """Forward pre-hook of a block that adds a tensor to its first input."""

    def __init__(self, block: str) -> None:
        self.block, self.current = block, LayerBranches()

    def set(self, current: LayerBranches) -> None:
        self.current = current

    def __call__(
        self, _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]] | None:
        added = self.current.inputs.get(self.block)
        if added is None:
            return None
        if args:
            return (args[0] + added, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + added}


Slot = WrappedProcessor | BlockInput
Slots = Mapping[str, Slot]
"""Holds what acts at one place."""
Layers = Mapping[str, Attention]


@dataclass
class _Use:
    """Users of the wrapped processors of one denoiser."""

    pipelines: int = 0
    """Calls of `install` without their `restore`."""
    thread: int | None = None
    """The thread whose conditioning acts."""


_USES: WeakKeyDictionary[nn.Module, _Use] = WeakKeyDictionary()


def install(denoiser: nn.Module) -> None:
    """Wraps the processors of attention layers, where they can be; each call wants its own `restore`."""
    warn_of_untested_diffusers()
    inner = unwrapped(denoiser)
    for layer in attention_layers(inner).values():
        if not isinstance(layer.processor, WrappedProcessor) and can_wrap(layer.processor):
            processor: Any = wrap(layer.processor)
            layer.processor = processor
    _USES.setdefault(inner, _Use()).pipelines += 1


def install_inputs(denoiser: nn.Module, blocks: Sequence[str]) -> None:
    """Lets `Conditioning.inputs` be added to these blocks; to be called before the denoiser is compiled."""
    inner = unwrapped(denoiser)
    if is_compiled(denoiser):
        raise UserError(
            f"{type(inner).__name__}: got a compiled denoiser, which ignores new inputs of its blocks; load what needs "
            "them first, then compile"
        )
    for name in blocks:
        block = inner.get_submodule(name)
        if BLOCK_INPUT not in vars(block):
            slot = BlockInput(name)
            vars(block)[BLOCK_INPUT] = slot
            block.register_forward_pre_hook(slot, with_kwargs=True)


def restore(denoiser: nn.Module) -> None:
    """Restores the processors that `install` wrapped, unless another pipeline of this denoiser uses them."""
    inner = unwrapped(denoiser)
    use = _USES.setdefault(inner, _Use())
    use.pipelines -= 1
    if use.pipelines <= 0:
        for layer in attention_layers(inner).values():
            processor: Any = layer.processor
            if isinstance(processor, WrappedProcessor):
                layer.processor = processor.found
        for block in inner.modules():
            slot = vars(block).pop(BLOCK_INPUT, None)
            for key in [key for key, hook in block._forward_pre_hooks.items() if hook is slot and slot is not None]:
                del block._forward_pre_hooks[key], block._forward_pre_hooks_with_kwargs[key]


def check_wrappable(denoiser: nn.Module, layers: Collection[str]) -> None:
    """Raises unless the processors of these layers can be wrapped.

    Raises:
        ValueError: names the first layer, and why.
    """
    for name, layer in attention_layers(denoiser).items():
        if name in layers and not isinstance(layer.processor, WrappedProcessor):
            try:
                wrapped_class(type(layer.processor))
            except UserError as error:
                raise UserError(f"{name}: {error}") from error


def _check_installed(denoiser: nn.Module, known: Layers, layers: Collection[str]) -> None:
    """Raises if the processor of one of these layers was replaced since `install`.

    Raises:
        RuntimeError: names the first layer, its processor, the call that sets it and how to restore.
    """
    processors: dict[str, Any] = {name: layer.processor for name, layer in known.items()}
    wrapped = {name for name, processor in processors.items() if isinstance(processor, WrappedProcessor)}
    if layers and not _USES.get(denoiser, _Use()).pipelines and not wrapped:
        raise RuntimeError(
            f"{type(denoiser).__name__}: conditions were passed, but adapters were attached to another "
            "denoiser (pipe.unet was replaced since); detach() and attach() the adapters again"
        )
    for name in layers:
        if name in processors and name not in wrapped:
            kind = type(processors[name]).__name__
            culprit = REPLACED_BY.get(kind, "set_attn_processor()")
            raise RuntimeError(
                f"{name}: conditions were passed, but {kind} stands where weftwork's processor was (this is what "
                f"{culprit} does); undo that call, then detach() and attach() the adapters again"
            )


@contextmanager
def conditioned(
    denoiser: nn.Module, conditioning: Conditioning | None = None
) -> Iterator[Callable[[Conditioning], None]]:
    """Lets a conditioning act in the calls of a denoiser within the block, in this thread.

    Yields a function that lets another one act from then on. Gradient checkpointing recomputes each call with the
    conditioning of its own call, also after the block has ended and in other threads.

    Raises:
        RuntimeError: a processor was replaced since `install`, another thread runs the denoiser with conditions, or a
            call of the denoiser did not read each branch once.
        ValueError: a denoiser under context parallelism.
    """
    inner = unwrapped(denoiser)
    use, thread = _USES.setdefault(inner, _Use()), threading.get_ident()
    if use.thread not in (None, thread):
        raise RuntimeError(BUSY)
    modules = dict(inner.named_modules())
    layers, parts = _attention_layers(modules.items()), modules.values()
    slots = _slots(layers, modules)
    before, current, shown = {name: slot.current for name, slot in slots.items()}, {}, ExitStack()

    def let(conditioning: Conditioning) -> None:
        _check_installed(inner, layers, conditioning.branches)
        if conditioning.branches or conditioning.reads_calls:
            _check_whole(inner)
        absent = sorted(set(conditioning.inputs) - set(slots))
        if absent:
            raise RuntimeError(f"inputs: got some for {absent[0]}, which takes none; call install_inputs() first")
        shown.close()
        shown.enter_context(_timestep_shown(inner, conditioning))
        current.update({name: conditioning.at(name) for name in slots})
        _set(slots, current)

    outer, use.thread = use.thread, thread
    try:
        let(conditioning or Conditioning({}))
        checked = nullcontext() if is_compiled(denoiser, parts) else _all_read(denoiser, slots, current)
        with ExitStack() as hooks, checked, _recomputed_alike(parts, slots, current), shown:
            for hook in () if conditioning is None else conditioning.hooks(denoiser):
                hooks.callback(hook.remove)
            yield let
    finally:
        _set(slots, before)
        use.thread = outer


def _check_whole(denoiser: nn.Module) -> None:
    """Raises if processes share the tokens of a call (context parallelism), since branches are laid out for all."""
    parallel: Any = getattr(denoiser, "_parallel_config", None)
    if getattr(parallel, "context_parallel_config", None) is not None:
        raise UserError(
            f"{type(denoiser).__name__}: got conditions under context parallelism, where each process has a share of "
            "the tokens; leave enable_parallelism() out, or pass it a TensorParallelConfig"
        )


def _slots(layers: Layers, modules: Mapping[str, nn.Module]) -> dict[str, Slot]:
    """Returns all that hold what acts: wrapped processors by layer, and inputs of blocks by block."""
    found: dict[str, Any] = {name: layer.processor for name, layer in layers.items()}
    found |= {name: vars(module)[BLOCK_INPUT] for name, module in modules.items() if BLOCK_INPUT in vars(module)}
    return {name: one for name, one in found.items() if isinstance(one, Slot)}


def _set(slots: Slots, current: Mapping[str, LayerBranches]) -> dict[str, LayerBranches]:
    """Sets what acts at each layer and block, in calls from this thread; returns what did."""
    before = {name: slot.current for name, slot in slots.items()}
    for name, slot in slots.items():
        slot.set(current[name])
    return before


@contextmanager
def _all_read(denoiser: nn.Module, slots: Slots, current: Mapping[str, LayerBranches]) -> Iterator[None]:
    """Checks after each call of a denoiser that is not compiled that every layer has read its branches once."""

    def reset(*_: object) -> None:
        for one in current.values():
            one.reads = 0

    def check(*_: object) -> None:
        for name, one in current.items():
            # Another block may run inside of this one; caches and layer skipping of diffusers leave out layers.
            if one.branches and one.reads != 1 and slots[name].current is one and not _has_hooks(denoiser):
                raise RuntimeError(
                    f"{name}: the conditions of this layer were read {one.reads} times in one call of the denoiser, "
                    "expected once; undo what skips or repeats the layer, then detach() and attach() the adapters again"
                )

    hooks = [denoiser.register_forward_pre_hook(reset), denoiser.register_forward_hook(check)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _timestep_shown(denoiser: nn.Module, conditioning: Conditioning) -> Iterator[None]:
    """Shows a conditioning the timestep of each call, where its branches depend on it.

    The hook is that of a module within the denoiser: the denoiser's own hooks have begun when pipelines enter here.

    Raises:
        ValueError: a denoiser without an embedding of the timestep under a known name.
    """
    if not conditioning.reads_timestep:
        yield
        return
    embed = getattr(denoiser, "time_text_embed", None)
    if not isinstance(embed, nn.Module):
        raise UserError(
            f"{type(denoiser).__name__}: got an adapter that depends on the timestep, expected time_text_embed in the "
            "denoiser; use the denoiser that the adapter was trained for"
        )

    def show(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        conditioning.set_timestep(args[0] if args else kwargs["timestep"])

    hook = embed.register_forward_pre_hook(show, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _has_hooks(denoiser: nn.Module) -> bool:
    return any(hasattr(module, "_diffusers_hook") for module in denoiser.modules())


@contextmanager
def _recomputed_alike(
    modules: Iterable[nn.Module], slots: Slots, current: Mapping[str, LayerBranches]
) -> Iterator[None]:
    """Lets gradient checkpointing recompute the calls within the block with what acts in them.

    A checkpoint is recomputed in the backward pass, when the block has ended or another one runs: the checkpointed
    function itself therefore sets what acts, and restores what it finds.
    """
    recomputed: list[Any] = []
    if torch.is_grad_enabled():
        recomputed += [module for module in modules if vars(module).get("gradient_checkpointing")]
    functions = [module._gradient_checkpointing_func for module in recomputed]

    def checkpointed(checkpoint: Callable[..., Any], function: Callable[..., Any], *args: Any) -> Any:
        now = dict(current)

        def run(*args: Any) -> Any:
            before = _set(slots, now)
            try:
                return function(*args)
            finally:
                _set(slots, before)

        return checkpoint(run, *args)

    for module, function in zip(recomputed, functions, strict=True):
        module._gradient_checkpointing_func = partial(checkpointed, function)
    try:
        yield
    finally:
        for module, function in zip(recomputed, functions, strict=True):
            module._gradient_checkpointing_func = function
