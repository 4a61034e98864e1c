"""Published IP-Adapters of transformers: XLabs and InstantX for FLUX.1, InstantX for Stable Diffusion 3.5.

With Q the layer's normed queries before rotary embeddings, c the image tokens and a the strength, they add

    XLabs, FLUX.1       a softmax(Q K_c^T / sqrt(d)) V_c                      behind the block, in layers of two streams
    InstantX, FLUX.1    a softmax(Q rms(K_c)^T / sqrt(d)) V_c                 before the output projection
    InstantX, SD3.5     a softmax(Q' [K'; rms(K_c)]^T / sqrt(d)) [V; V_c]     before the output projection

where Q' and K' are the image's queries and keys under norms of the adapter, and c, K_c and V_c depend on the timestep.

Source: XLabs-AI/x-flux and InstantX/SD3.5-Large-IP-Adapter as diffusers 0.42.1 runs them
(models/transformers/transformer_flux.py, models/attention_processor.py); InstantX/FLUX.1-dev-IP-Adapter, which
diffusers does not run, as its authors publish its attention processor.
Differs: weights, regions, schedules and layers are those of each reference. A region acts on the image's tokens alone;
without one, InstantX's adapter for FLUX.1 acts on the text's tokens too in layers of one stream, as the authors' does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers.models.normalization import AdaLayerNorm
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.attention_processors.reference.adapter import ReferenceAdapter, ReferenceFeatures
from weftwork.datasets.readers.errors import UserError

NORMS = ("query", "key", "token")
"""Norms of `InstantXSD3Adapter`: of queries, the image's keys and the tokens' keys."""

KeyValue = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ResidualBranch(DecoupledBranch):
    """Branch whose attention is added behind the block, neither projected nor gated."""

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        return out

    def residual(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        stream = own.early["query"].shape[1]
        return super().mix(query, torch.zeros_like(query), attend, own)[:, -stream:]


@dataclass(frozen=True)
class NormedKeyBranch(DecoupledBranch):
    """Branch with normed keys, which reads the text's queries too in layers of one stream if it has no region."""

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        single = own.early["query"].shape[1] == query.shape[1]
        if single and self.image is not None and self.gain.shape[1] == 1:
            return replace(self, image=None).mix(query, out, attend, own)
        return super().mix(query, out, attend, own)

    def tokens(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        key, value, bias = super().tokens(query)
        return F.rms_norm(key, key.shape[-1:], eps=1e-5), value, bias


@dataclass(frozen=True)
class ImageJointBranch(DecoupledBranch):
    """Branch in which the image's queries attend to the image and to the tokens at once, under norms of its own.

    Args:
        norms: weights of the norms of queries, keys and tokens' keys, [3, dim].
    """

    norms: Float[Tensor, "norm dim"] | None = None

    def _normed(self, heads: Tensor, norm: int) -> Tensor:
        assert self.norms is not None
        return F.rms_norm(heads, heads.shape[-1:], self.norms[norm].to(heads.dtype), eps=1e-6)

    def queries(self, query: Tensor, own: OwnAttention) -> Tensor:
        if "raw query" not in own.early:
            raise UserError("layers: got one without norms of queries, expected those of Stable Diffusion 3.5")
        raw = {"query": own.early["raw query"]}
        return self._normed(super().queries(query, replace(own, early=raw)), 0)

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        key, value, bias = self.tokens(query)
        image = own.early["raw key"]
        keys = torch.cat([self._normed(image, 1), self._normed(key, 2)], 1)
        values = torch.cat([own.value[:, : image.shape[1]], value], 1)
        return attend(query, keys, values, None if bias is None else F.pad(bias, (image.shape[1], 0)))


@dataclass(frozen=True)
class TimedTokens(EncodedTokens):
    """Encoded tokens that depend on the timestep.

    Args:
        made: keys and values at a timestep, [1], and those of the null.
        norms: of `ImageJointBranch`, by layer.
    """

    made: Callable[[Tensor], tuple[KeyValue, KeyValue]] | None = None
    norms: Mapping[str, Tensor] | None = None

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        built, (strength,) = super().build(layout)
        made, norms = self.made, self.norms
        assert made is not None and norms is not None
        branches: dict[str, Any] = {n: replace(branch, norms=norms[n]) for n, branch in built.items()}  # pyright: ignore

        @torch.no_grad()
        def remake(timestep: Tensor) -> None:
            if timestep.ndim and not bool((timestep == timestep[0]).all()):
                raise UserError("timestep: got several in one batch, expected one; denoise rows of one at once")
            key_value, null = made(timestep.reshape(-1)[:1])
            for name, branch in branches.items():
                for kept, new, of_null in zip((branch.key, branch.value), key_value[name], null[name], strict=True):
                    kept[:, : new.shape[1]].copy_(layout.expand(new, of_null))

        strength.on_timestep = remake
        return branches, (strength,)


class XLabsFluxAdapter(ReferenceAdapter):
    """XLabs' IP-Adapter for FLUX.1; its options are those of `ReferenceAdapter`."""

    projection_bias: ClassVar[bool] = True

    @property
    def branch(self) -> type[DecoupledBranch]:
        return ResidualBranch


class InstantXFluxAdapter(ReferenceAdapter):
    """InstantX's IP-Adapter for FLUX.1; its options are those of `ReferenceAdapter`."""

    @property
    def branch(self) -> type[DecoupledBranch]:
        return NormedKeyBranch


class InstantXSD3Adapter(ReferenceAdapter):
    """InstantX's IP-Adapter for Stable Diffusion 3.5; its options are those of `ReferenceAdapter`.

    Tokens, keys and values are computed at every timestep. The null has features of zeros, as in diffusers. It cannot
    be trained here, since keys are overwritten in place.
    """

    @property
    def branch(self) -> type[DecoupledBranch]:
        return ImageJointBranch

    def make_projections(self, layers: Mapping[str, int], token_dim: int, rank: int = 0, *, bias: bool = False) -> None:
        super().make_projections(layers, token_dim, rank, bias=bias)
        slots, embed = [name.replace(".", "-") for name in layers], self.config["hidden_dim"]
        self.norm_tokens = nn.ModuleDict(
            {slot: AdaLayerNorm(embed, output_dim=2 * token_dim, norm_eps=1e-6, chunk_dim=1) for slot in slots}
        )
        dim = self.config["layer_head_dim"]
        norms = {slot: {norm: nn.Parameter(torch.ones(dim)) for norm in NORMS} for slot in slots}
        self.norms = nn.ModuleDict({slot: nn.ParameterDict(own) for slot, own in norms.items()})

    def forward(self, features: ReferenceFeatures) -> TimedTokens:
        some = next(self.parameters())
        designs, parts = features.image.shape[:2]

        def key_value(values: Tensor, timestep: Tensor) -> KeyValue:
            here = next(self.parameters())
            items = values.to(here).flatten(0, 1)
            tokens, embedded = self.image_projection(items, timestep.to(here).expand(len(items)))
            made = {}
            for name in self.config["layers"]:
                slot = name.replace(".", "-")
                normed = self.norm_tokens[slot](tokens, temb=embedded)
                pair = (self.to_key[slot](normed), self.to_value[slot](normed))
                made[name] = tuple(x.unflatten(0, (designs, parts)).flatten(1, 2) for x in pair)
            return made

        def made(timestep: Tensor) -> tuple[KeyValue, KeyValue]:
            return key_value(features.image, timestep), key_value(features.null, timestep)

        first, null = made(torch.zeros(1, device=some.device))
        count = self.config["num_tokens"]
        return TimedTokens(
            first,
            null,
            torch.ones(designs, parts * count, dtype=torch.bool, device=some.device),
            torch.arange(parts, device=some.device).repeat_interleave(count),
            **features.strengths(list(self.config["layers"]), some.device),
            branch=self.branch,
            made=made,
            norms={name: self._norms(name.replace(".", "-")) for name in self.config["layers"]},
        )

    def _norms(self, slot: str) -> Float[Tensor, "norm dim"]:
        own: Any = self.norms[slot]
        return torch.stack([own[norm].detach() for norm in NORMS])
