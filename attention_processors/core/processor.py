"""Attention processors that run the stock attention and the branches of any method."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.conditioning import Branch, Conditioning, OwnAttention
from weftwork.datasets.readers.errors import UserError

Rotary = tuple[Float[Tensor, "query dim"], Float[Tensor, "query dim"]]


class ConditionedAttnProcessor:
    """`AttnProcessor2_0`, or `StableAudioAttnProcessor2_0`, with the branches of `conditioning` for this layer.

    Without branches the output is the stock processor's, bit for bit. It has no parameters, so the denoiser's
    `state_dict`, PEFT, offloading and `torch.compile` see a stock model. Called without arguments it is a pass-through,
    which is what diffusers' own loaders do with processors they find.

    Args:
        layer: the dotted module path of the attention layer.
        found: the processor that it replaces.
    """

    _attention_backend = None  # attributes that `set_attention_backend` reads and sets
    _parallel_config = None

    def __init__(self, layer: str | None = None, found: Any = None) -> None:
        self.layer, self.found = layer, found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layer!r})"

    def __call__(
        self,
        attn: Any,  # diffusers' Attention, whose optional parts are typed as None
        hidden_states: Tensor,
        encoder_hidden_states: Float[Tensor, "row token dim"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        rotary_emb: Rotary | None = None,
        conditioning: Conditioning | None = None,
    ) -> Tensor:
        """Runs the layer on `hidden_states`, [row, query, dim] or [row, dim, height, width]; the result has its shape.

        `rotary_emb` (cosines and sines, [query, rotated dim]) rotates queries and, in self-attention, keys.
        """
        residual, shape = hidden_states, hidden_states.shape
        branches = () if conditioning is None else conditioning.at(self.layer)
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        rows = hidden_states.shape[0]
        branches = tuple(branch.rows(rows) for branch in branches)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = self._context(attn, hidden_states, encoder_hidden_states, branches)
        tokens = (hidden_states if encoder_hidden_states is None else encoder_hidden_states).shape[1]
        mask = _mask(attn, attention_mask, tokens, context)
        heads = self._heads(attn, hidden_states, context)
        if rotary_emb is not None:
            heads = _rotated(heads, rotary_emb, attn.is_cross_attention)
        out = self._attention(heads, mask, branches, conditioning)
        out = attn.to_out[1](attn.to_out[0](out))
        if len(shape) == 4:
            out = out.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def _context(self, attn: Any, hidden_states: Tensor, given: Tensor | None, branches: tuple[Branch, ...]) -> Tensor:
        context = hidden_states if given is None else given
        if given is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        for branch in branches:
            context = branch.context(context)
        return context

    def _heads(self, attn: Any, hidden_states: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, [row, token, head, dim] each."""
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        head_dim = query.shape[-1]
        key = attn.to_k(context).unflatten(-1, (-1, head_dim))
        value = attn.to_v(context).unflatten(-1, (-1, head_dim))
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        return query, key, value

    def _attention(
        self,
        heads: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        branches: tuple[Branch, ...],
        conditioning: Conditioning | None,
    ) -> Float[Tensor, "row query inner"]:
        query, key, value = heads
        for branch in branches:
            query, key, value = branch.qkv(query, key, value)
        out = text = self.attend(query, key, value, mask)
        own = OwnAttention(key, value, mask, text)
        for branch in branches:
            out = branch.mix(query, out, self.attend, own)
        if branches and conditioning is not None and conditioning.recorder is not None:
            conditioning.recorder.record(self.layer, branches, query, text, conditioning)
        return out.flatten(2).to(query.dtype)

    def attend(
        self,
        query: Float[Tensor, "row query head dim"],
        key: Float[Tensor, "row token kv_head dim"],
        value: Float[Tensor, "row token kv_head dim"],
        mask: Tensor | None = None,
    ) -> Float[Tensor, "row query head dim"]:
        """Computes attention on the user's kernel; fewer key than query heads are shared in groups."""
        groups = query.shape[2] // key.shape[2]
        if groups > 1:
            key, value = key.repeat_interleave(groups, 2), value.repeat_interleave(groups, 2)
        return dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )


def _mask(attn: Any, mask: Tensor | None, tokens: int, context: Tensor) -> Tensor | None:
    """Returns the layer's mask per head; tokens that a branch appended to its own `tokens` are visible."""
    if mask is None:
        return None
    rows, extended = context.shape[:2]
    prepared = attn.prepare_attention_mask(mask, tokens, rows).view(rows, attn.heads, -1, tokens)
    return F.pad(prepared, (0, extended - tokens), value=float(prepared.dtype == torch.bool))


def _rotated(heads: tuple[Tensor, Tensor, Tensor], rotary: Rotary, queries_only: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns queries and, in self-attention, keys with rotary embeddings."""
    query, key, value = heads
    return turned(query, rotary), key if queries_only else turned(key, rotary), value


def turned(heads: Float[Tensor, "row token head dim"], rotary: Rotary) -> Float[Tensor, "row token head dim"]:
    """Applies rotary embeddings to the first channels, in float32."""
    count = rotary[0].shape[-1]
    given: Any = rotary  # typed as one tensor in diffusers
    first: Any = apply_rotary_emb(
        heads[..., :count].float(), given, use_real=True, use_real_unbind_dim=-2, sequence_dim=1
    )
    return torch.cat([first, heads[..., count:].float()], -1).to(heads.dtype)


def unwrapped(denoiser: nn.Module) -> nn.Module:
    """Returns the module behind `torch.compile`, whose parameter and layer names have no prefix."""
    return getattr(denoiser, "_orig_mod", denoiser)


def is_compiled(denoiser: nn.Module) -> bool:
    """Whether the module, or any part of it, is compiled by `torch.compile`."""
    inner = unwrapped(denoiser)
    return inner is not denoiser or any(getattr(m, "_compiled_call_impl", None) is not None for m in inner.modules())


def attention_layers(denoiser: nn.Module) -> dict[str, Attention]:
    """Returns all attention layers of a denoiser by dotted path, in the order of `attn_processors`."""
    inner = unwrapped(denoiser)
    names = [name.removesuffix(".processor") for name in inner.attn_processors]  # pyright: ignore
    return {name: inner.get_submodule(name) for name in names}  # pyright: ignore[reportReturnType]


def layer_levels(denoiser: nn.Module) -> dict[str, int]:
    """Returns halvings of the grid by layer: i in down block i, the most in the middle, mirrored in up blocks.

    Raises:
        ValueError: the denoiser is not a U-Net of down, mid and up blocks.
    """
    inner = unwrapped(denoiser)
    if not hasattr(inner, "down_blocks") or not hasattr(inner, "up_blocks"):
        raise UserError(
            f"denoiser: got {type(inner).__name__}, expected a U-Net with down_blocks and up_blocks; weftwork has no "
            "processor for this family yet"
        )
    last = len(inner.down_blocks) - 1  # pyright: ignore[reportArgumentType]

    def level(name: str) -> int:
        block, index = [*name.split("."), "0"][:2]
        return {"down_blocks": int(index), "up_blocks": last - int(index)}.get(block, last) if index.isdigit() else last

    return {name: level(name) for name in attention_layers(denoiser)}


def base_description(denoiser: nn.Module) -> dict[str, Any]:
    """Returns a base model's description for an adapter's config: its class and the width of its text context."""
    inner = unwrapped(denoiser)
    family = getattr(type(inner), "family", type(inner).__name__)
    return {"family": family, "context_dim": inner.config.get("cross_attention_dim")}  # pyright: ignore


def install(denoiser: nn.Module) -> dict[str, Any]:
    """Sets a `ConditionedAttnProcessor` on every attention layer; returns the replaced processors, by layer.

    Where another pipeline of the same denoiser has installed ours already, returns those that it replaced.

    Raises:
        ValueError: a layer has a processor that is neither stock nor ours, by name; nothing is changed.
    """
    inner = unwrapped(denoiser)
    found: dict[str, Any] = dict(inner.attn_processors)  # pyright: ignore
    found = {n: p.found if isinstance(p, ConditionedAttnProcessor) and p.found else p for n, p in found.items()}
    for name, processor in found.items():
        if type(processor).__name__ not in STOCK_PROCESSORS:
            raise UserError(
                f"{name}: got {type(processor).__name__}, expected a stock attention processor; remove what installed "
                "it (unload_ip_adapter(), disable_attention_slicing(), unfuse_qkv_projections()) and attach again"
            )
    here: list[Any] = list(inner.attn_processors.values())  # pyright: ignore
    backends = {p._attention_backend for p in here if getattr(p, "_attention_backend", None) is not None}
    ours = {name: ConditionedAttnProcessor(name.removesuffix(".processor"), there) for name, there in found.items()}
    for processor in ours.values():
        processor._attention_backend = next(iter(backends), None)
    inner.set_attn_processor(ours)  # pyright: ignore
    return found


def restore(denoiser: nn.Module, found: Mapping[str, Any]) -> None:
    """Restores the processors that `install` replaced."""
    unwrapped(denoiser).set_attn_processor(dict(found))  # pyright: ignore


def check_installed(denoiser: nn.Module) -> None:
    """Raises if a processor was replaced since `install`.

    Raises:
        RuntimeError: names the first layer, its processor, the call that sets it and how to restore.
    """
    for name, processor in unwrapped(denoiser).attn_processors.items():  # pyright: ignore
        if not isinstance(processor, ConditionedAttnProcessor):
            kind = type(processor).__name__
            culprit = REPLACED_BY.get(kind, "set_attn_processor()")
            raise RuntimeError(
                f"{name}: conditions were passed, but {kind} stands where weftwork's processor was (this is what "
                f"{culprit} does); undo that call, then detach() and attach() the adapters again"
            )


STOCK_PROCESSORS = frozenset(
    {"AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "StableAudioAttnProcessor2_0"}
)
REPLACED_BY: Mapping[str, str] = {
    "AttnProcessor2_0": "disable_xformers_memory_efficient_attention(), disable_attention_slicing() or "
    "set_default_attn_processor()",
    "AttnProcessor": "set_default_attn_processor()",
    "SlicedAttnProcessor": "enable_attention_slicing()",
    "FusedAttnProcessor2_0": "fuse_qkv_projections()",
    "XFormersAttnProcessor": "enable_xformers_memory_efficient_attention()",
    "IPAdapterAttnProcessor2_0": "load_ip_adapter()",
    "IPAdapterAttnProcessor": "load_ip_adapter()",
}
