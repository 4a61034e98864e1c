"""Attention processors that run the code of the processor they replace, with branches in its attention.

`wrap(processor)` returns an object of a subclass of the processor's class whose `__call__` is compiled from the source
of the original, with its calls of attention functions sent to `self`: `core.rewriting` explains how.
"""

import copy
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any, ClassVar, Final, Self

import torch
import torch.nn.functional as F
from diffusers.hooks._helpers import AttentionProcessorRegistry
from diffusers.models.attention_dispatch import dispatch_attention_fn
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.attention_backends import backend_for
from weftwork.attention_processors.core.biases import biased
from weftwork.attention_processors.core.branch import Attend, Biases, LayerBranches, OwnAttention
from weftwork.attention_processors.core.processor_classes import EQUAL, MAIN_CALLS, SUBTRACTED
from weftwork.attention_processors.core.rewriting import METHODS, Rewriter
from weftwork.datasets.readers.errors import UserError

Kept = dict[str, Tensor]
"""Tensors of one call of a processor, by name."""
BUSY: Final = (
    "denoiser: another thread runs it with conditions, which would act here too; use a copy per thread "
    "(copy.deepcopy), or wait"
)


class WrappedProcessor:
    """Base of wrapped processors, see `wrap`. It shares the `__dict__` of the processor that it stands for.

    Made without arguments, a wrapped class is a pass-through, which is what diffusers' loaders do with processors that
    they find. Pickled, it is the processor that it stands for; a deep copy has no branches.
    """

    __slots__ = ()
    stock: ClassVar[type]
    """Class of the processors that it stands for."""
    main_calls: ClassVar[tuple[int, ...]]
    subtracted: ClassVar[tuple[int, ...]]
    found: Any
    current: LayerBranches
    thread: int

    _attention_backend = None
    _parallel_config = None

    def __new__(cls, *_: object, **__: object) -> Self:
        self: Any = object.__new__(cls)
        object.__setattr__(self, "found", None)
        self.set(LayerBranches())
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __deepcopy__(self, memo: dict[int, object]) -> "WrappedProcessor":
        return wrap(copy.deepcopy(self._stock(), memo))

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return copy.copy, (self._stock(),)  # as another class than its own: pickle refuses any shorter way

    def _stock(self) -> Any:
        if self.found is not None:
            return self.found
        plain: Any = object.__new__(self.stock)
        object.__setattr__(plain, "__dict__", self.__dict__)
        return plain

    def set(self, current: LayerBranches) -> None:
        """Sets what acts in calls from this thread."""
        # Some processors are modules, which have a `__setattr__` of their own.
        object.__setattr__(self, "current", current)
        object.__setattr__(self, "thread", threading.get_ident())

    def begin(self, hidden_states: Tensor) -> Kept:
        """Shows the layer's input to the branches; returns what the call keeps, nothing yet.

        Raises:
            RuntimeError: the branches belong to a call in another thread.
        """
        branches = self.current.branches
        if branches and not torch.compiler.is_compiling():
            self.current.reads += 1
            if self.thread != threading.get_ident():
                raise RuntimeError(BUSY)
        for branch in branches:
            branch.read(hidden_states)
        return {}

    def normed(self, kept: Kept, name: str, norm: Callable[..., Tensor], heads: Tensor, *more: object) -> Tensor:
        """Computes the layer's norm of queries or keys, and keeps both sides of it for the branches."""
        out = norm(heads, *more)
        if self.current.branches:
            kept[name], kept[f"raw {name}"] = out, heads
        return out

    def ended(self, kept: Kept, out: Any) -> Any:
        """Returns the output of the processor, with the residual of branches behind it.

        Raises:
            RuntimeError: a residual in a layer whose block expects none.
        """
        if "residual" not in kept:
            return out
        if not (isinstance(out, tuple) and len(out) == 2):
            raise RuntimeError(
                f"{self.stock.__name__}: got a branch with a residual for the block, which layers of one stream cannot "
                "hand on; restrict the adapter to layers of two streams"
            )
        return (*out, kept["residual"])

    def attend_tokens(
        self,
        kept: Kept,
        layer: nn.Module,
        call: int,
        function: Callable[..., Tensor],
        query: Float[Tensor, "row query head dim"],
        key: Float[Tensor, "row token kv_head dim"],
        value: Float[Tensor, "row token kv_head dim"],
        attn_mask: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, "row query head dim"]:
        """Computes attention with branches, in place of `dispatch_attention_fn`."""
        if not self._reads(call):
            return function(query, key, value, attn_mask=attn_mask, **options)

        def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, branch: bool = False, **more: float) -> Tensor:
            backend = {"backend": backend_for(mask, options.get("backend"))} if branch else {}
            return function(q, k, v, attn_mask=mask, **{**options, **backend, **more})

        return self._attention(kept, (layer, call), run, query, key, value, attn_mask, options.get("scale"))

    def attend_heads(
        self,
        kept: Kept,
        layer: nn.Module,
        call: int,
        function: Callable[..., Tensor],
        query: Float[Tensor, "row head query dim"],
        key: Float[Tensor, "row kv_head token dim"],
        value: Float[Tensor, "row kv_head token dim"],
        attn_mask: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, "row head query dim"]:
        """Computes attention with branches, in place of `F.scaled_dot_product_attention`.

        The backend of `set_attention_backend`, which stock processors of U-Nets ignore, is used here.
        """
        backend = self._attention_backend
        if backend is None and not self._reads(call):
            return function(query, key, value, attn_mask=attn_mask, **options)

        def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, branch: bool = False, **more: float) -> Tensor:
            return dispatch_attention_fn(
                q, k, v, attn_mask=mask, backend=backend_for(mask, backend), **{**options, **more}
            )

        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        if not self._reads(call):
            return run(query, key, value, attn_mask).transpose(1, 2)
        out = self._attention(kept, (layer, call), run, query, key, value, attn_mask, options.get("scale"))
        return out.transpose(1, 2)

    def attend_folded(
        self,
        kept: Kept,
        layer: Any,
        call: int,
        function: Callable[..., Tensor],
        query: Float[Tensor, "row_head query dim"],
        key: Float[Tensor, "row_head token dim"],
        value: Float[Tensor, "row_head token dim"],
        attn_bias: Tensor | None = None,
        **options: Any,
    ) -> Float[Tensor, "row_head query dim"]:
        """Computes attention with branches, in place of `xformers.ops.memory_efficient_attention`."""
        if not self._reads(call):
            return function(query, key, value, attn_bias=attn_bias, **options)

        def fold(x: Tensor) -> Tensor:
            return x.transpose(1, 2).flatten(0, 1).contiguous()

        def unfold(x: Tensor) -> Tensor:
            return x.unflatten(0, (-1, layer.heads)).transpose(1, 2)

        def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, branch: bool = False, **more: float) -> Tensor:
            if mask is not None:  # not broadcast by xformers
                mask = mask.expand(q.shape[0], layer.heads, q.shape[1], k.shape[1]).flatten(0, 1)
            return unfold(function(fold(q), fold(k), fold(v), attn_bias=mask, **{**options, **more}))

        mask = None if attn_bias is None else attn_bias.unflatten(0, (-1, layer.heads))
        query, key, value = (unfold(x) for x in (query, key, value))
        return fold(self._attention(kept, (layer, call), run, query, key, value, mask, options.get("scale")))

    def attend_linear(
        self, kept: Kept, layer: nn.Module, call: int, function: Attend, query: Tensor, key: Tensor, value: Tensor
    ) -> Float[Tensor, "row query head dim"]:
        """Computes linear attention with branches that need no softmax, in place of `linear_attention`.

        Raises:
            ValueError: another branch.
        """
        branches = [branch.rows(query.shape[0]) for branch in self.current.branches]
        for branch in branches:
            if not branch.linear:
                raise UserError(
                    f"{self.stock.__name__}: got {type(branch).__name__} in a layer of linear attention, without a "
                    "softmax that it could enter; restrict the adapter to other layers"
                )
            query, key, value = branch.qkv(query, key, value, partial(_projected, layer, key.shape[-1]))
        out = function(query, key, value)
        own = OwnAttention(key, value, None, out)
        for branch in branches:
            out = branch.mix(query, out, function, own)
        return out

    def _reads(self, call: int) -> bool:
        """Whether there are branches, and this call of an attention function is theirs."""
        return bool(self.current.branches) and call in (*self.main_calls, *self.subtracted)

    def _attention(
        self,
        kept: Kept,
        place: tuple[nn.Module, int],
        run: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float | None,
    ) -> Tensor:
        def attend(
            query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, biases: Biases = (), /
        ) -> Tensor:
            groups = query.shape[2] // key.shape[2]
            if groups > 1:
                key, value = key.repeat_interleave(groups, 2), value.repeat_interleave(groups, 2)
            own = partial(run, branch=True)
            return biased(own, query, key, value, mask, biases, scale) if biases else own(query, key, value, mask)

        layer, call = place
        branches, tokens = tuple(branch.rows(query.shape[0]) for branch in self.current.branches), key.shape[1]
        for branch in branches if call in self.main_calls else ():
            query, key, value = branch.qkv(query, key, value, partial(_projected, layer, key.shape[-1]))
        if mask is not None and key.shape[1] > tokens:  # what branches append is visible
            mask = F.pad(mask, (0, key.shape[1] - tokens), value=float(mask.dtype == torch.bool))
        biases = [bias for bias in [branch.key_bias(query, key) for branch in branches] if bias is not None]
        out = text = biased(run, query, key, value, mask, biases, scale) if biases else run(query, key, value, mask)
        if call in self.subtracted:
            return out
        early = {name: _by_token(x, query if "query" in name else key) for name, x in kept.items()}
        own, outs = OwnAttention(key, value, mask, text, early, biases), []
        for branch in branches:
            out = branch.mix(query, out, attend, own)
            outs.append(out)
            residual = branch.residual(query, attend, own)
            if residual is not None:
                kept["residual"] = residual.flatten(2) + kept.get("residual", 0)
        if self.current.record is not None:
            self.current.record(branches, query, own, outs)
        return out


def _by_token(heads: Tensor, like: Float[Tensor, "row token head dim"]) -> Float[Tensor, "row token head dim"]:
    """Returns a norm's input or output in the order of axes of `like`: processors differ in theirs."""
    if heads.ndim == 3:
        return heads.unflatten(-1, (-1, like.shape[-1]))
    return heads if heads.shape[2] == like.shape[2] else heads.transpose(1, 2)


def _projected(layer: Any, head_dim: int, tokens: Float[Tensor, "row token dim"]) -> tuple[Tensor, Tensor]:
    """Returns a layer's own keys and values of other tokens, [row, token, head, dim] each."""
    key, value = (project(tokens).unflatten(-1, (-1, head_dim)) for project in (layer.to_k, layer.to_v))
    norm = getattr(layer, "norm_k", None)
    return key if norm is None else norm(key), value


def wrap(processor: object) -> WrappedProcessor:
    """Returns a wrapped processor in place of a stock one, which it keeps as `found`.

    Raises:
        ValueError: a processor that calls no attention function, or several without a known main one, by class name.
    """
    if isinstance(processor, WrappedProcessor):
        return processor
    kind = wrapped_class(type(processor))
    made = kind.__new__(kind)
    object.__setattr__(made, "__dict__", processor.__dict__)
    object.__setattr__(made, "found", processor)
    return made


def can_wrap(processor: object) -> bool:
    """Whether `wrap` accepts a processor."""
    try:
        return bool(wrapped_class(type(processor)))
    except UserError:
        return False


@cache
def wrapped_class(kind: type) -> type[WrappedProcessor]:
    """Returns the wrapped class of a class of processors; a wrapped class is its own."""
    if issubclass(kind, WrappedProcessor):
        return kind
    # Modules are called through `forward`.
    name = "forward" if issubclass(kind, nn.Module) and kind.__call__ is nn.Module.__call__ else "__call__"
    functions = Rewriter()
    conditioned = functions.rewritten(EQUAL.get(kind, kind).__mro__, name)
    main = MAIN_CALLS.get(kind.__name__, (0,) if functions.calls == 1 else None)
    if main is None:
        found = "none" if functions.calls == 0 else f"{functions.calls}, of which the main one is not known"
        raise UserError(
            f"{kind.__name__}: got {found} in its code, expected one call of {', '.join(METHODS)}; remove what "
            "installed it (disable_attention_slicing(), unload_ip_adapter(), set_attn_processor(…)) and attach again"
        )
    if kind in EQUAL:
        conditioned = _while_branches(conditioned, getattr(kind, name))
    members: dict[str, Any] = {"__slots__": ("found", "current", "thread"), name: conditioned}
    members |= {"stock": kind, "main_calls": main, "subtracted": SUBTRACTED.get(kind.__name__, ())}
    members |= {"__module__": __name__, **functions.inherited}
    made = type(f"Conditioned{kind.__name__}", (WrappedProcessor, kind), members)
    with suppress(ValueError):  # a class that diffusers cannot skip; of others, for layer skipping and its guiders
        AttentionProcessorRegistry.register(made, AttentionProcessorRegistry.get(kind))
    return made


def _while_branches(conditioned: Callable[..., Tensor], stock: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def __call__(self: WrappedProcessor, *args: object, **kwargs: object) -> Tensor:
        chosen = self.current.branches or self._attention_backend  # which the stock code ignores
        return (conditioned if chosen else stock)(self, *args, **kwargs)

    __call__.__signature__ = inspect.signature(stock)  # `Attention.forward` filters arguments by it
    return __call__
