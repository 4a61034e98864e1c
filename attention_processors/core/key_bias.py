"""Strengths of keys that a layer has already: a bias log(a) on the keys of parts, for the queries of the image.

    softmax(Q K^T / sqrt(d) + sum_p log(a_p) m_p) V,   m_p = 1 at the keys of part p

At a = 1 a part is as in the stock model, at 0 it is not seen. The bias of P parts travels as P more channels of queries
and keys, not as a mask [query, key]: memory is linear in tokens, and kernels without masks carry it.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor

from weftwork.attention_processors.core.adapter import Adapter, BatchT, Encoders
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Strengths
from weftwork.attention_processors.core.branch import Branch, check_places, conditional_half, text_keys
from weftwork.attention_processors.core.conditioning import Encoded, check_layout
from weftwork.attention_processors.core.strength import ImageTokens, Layout, Schedule, Strength
from weftwork.datasets.readers.errors import UserError

ABSENT = -1000.0
"""Bias of a part at strength 0: its share is exactly 0 in float32, and half precision can hold it."""


def is_plain(given: Strengths) -> bool:
    """Whether all weights are 1, everywhere and at all steps."""
    factors = [given["weight"], *given["layer_weight"].values()]
    timeless = all(one == Schedule() for row in given["schedules"] for one in row)
    return timeless and given["region"] is None and all(bool((one == 1).all()) for one in factors)


class KeyStrength(Strength):
    """Strengths whose gains are the logarithms of what acts, [row, place, part].

    Args:
        free: parts of rows that stay as in the stock model.
    """

    def __init__(
        self,
        free: Bool[Tensor, "row part"],
        weight: Tensor,
        schedules: Sequence[Sequence[Schedule]],
        regions: Mapping[tuple[int, int], Tensor] | None,
        layer_weights: Mapping[str, Tensor],
    ) -> None:
        self.free = free
        none = weight.new_zeros(0, dtype=torch.long)
        super().__init__(weight, schedules, none, free[:, :0], regions, None, layer_weights)

    @classmethod
    def of(
        cls,
        given: Strengths,
        layers: Sequence[str],
        layout: Layout,
        free_null: Bool[Tensor, "design part"] | None = None,
    ) -> Self:
        """Lays out the strengths of designs.

        Args:
            free_null: parts that stay as in the stock model in the unconditional half, where the others have the
                weights of the conditional half; None for `null_weight` of all parts.
        """
        free = torch.zeros_like(given["weight"], dtype=torch.bool)
        region, regions = given["region"], None
        if region is not None:
            region, grids = layout.expand(region.float()), {layout.grid(layer) for layer in layers}
            pooled = {grid: F.adaptive_avg_pool2d(region, grid).flatten(2) for grid in grids}
            regions = {grid: one.repeat(1, 1, layout.frames) for grid, one in pooled.items()}
        return cls(
            layout.expand(free, free_null),
            layout.expand(given["weight"].float(), given["null_weight"] if free_null is None else None),
            [row for row in given["schedules"] for _ in range(layout.repeat)] * len(layout.halves),
            regions,
            {layer: layout.expand(factor.float()) for layer, factor in given["layer_weight"].items()},
        )

    def _gain(self, grid: tuple[int, int] | None, layer: str | None) -> Tensor:
        strength = torch.where(self.free.unsqueeze(-1), 1, self._strength_at(grid, layer))
        return strength.log().clamp(min=ABSENT).transpose(1, 2)


@dataclass(frozen=True)
class KeyBias(Branch):
    """Branch that biases keys that are there: those of the text, or those of references behind the image's.

    Args:
        log_strength: by part, for the image's places.
        members: keys of the parts, from the first key of their kind on.
        image: place of the image's tokens; None if all queries are the image's.
        isolated: of text, 1 where the rest of the prompt does not see a part, nor the part other ones; None for
            references, which the text sees at the strength of the best place.
        conditional: index of the conditional half of the rows, where a batch has both.
    """

    log_strength: Float[Tensor, "row place part"]
    members: Float[Tensor, "row key part"]
    image: ImageTokens | None
    isolated: Float[Tensor, "row part"] | None = None
    conditional: int | None = None

    def key_bias(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        strength, queries, keys = self.log_strength, query.shape[1], key.shape[1]
        begin, end = (0, queries) if self.image is None else self.image.span(queries)
        stream = end - begin if self.image is None or self.image.stream is None else self.image.stream
        check_places(strength.shape[1], end - begin)
        first, last = text_keys(self.image, queries, keys)
        joint = last - first < keys  # text is among the queries
        if self.isolated is not None and self.members.shape[1] > last - first:
            _check_filling(self.members[:, last - first :], last - first)
        rows, _, parts = strength.shape
        places = strength.expand(rows, end - begin, parts)
        behind = places.new_zeros(rows, stream - (end - begin), parts)  # references and padding
        first = end if self.isolated is None else first
        members = F.pad(self.members, (0, 0, first, keys - first - self.members.shape[1]))
        if self.isolated is not None and joint:
            text = ABSENT * self.isolated.unsqueeze(1) * (1 - members[:, first:last])
        else:
            shown = places.new_zeros(1) if self.isolated is not None else strength.amax(1, keepdim=True)
            text = shown.expand(rows, queries - stream, parts)
        return torch.cat([text[:, :begin], places, behind, text[:, begin:]], 1), members

    def rows(self, count: int) -> "KeyBias":
        if self.log_strength.shape[0] == count:
            return self
        half = conditional_half(self.log_strength.shape[0], count, self.conditional)
        isolated = None if self.isolated is None else self.isolated[half]
        strength, members = self.log_strength[half], self.members[half]
        return replace(self, log_strength=strength, members=members, isolated=isolated, conditional=None)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "KeyBias":
        isolated = None if self.isolated is None else self.isolated.to(device)
        strength, members = self.log_strength.to(device), self.members.to(device)
        return replace(self, log_strength=strength, members=members, isolated=isolated)


def _check_filling(beyond: Float[Tensor, "row key part"], tokens: int) -> None:
    """Raises if parts have tokens beyond the prompt's number of tokens.

    Raises:
        ValueError: in code that is not compiled.
        RuntimeError: in compiled code.
    """
    remedy = "give those of the prompt that is being denoised"
    if torch.compiler.is_compiling():
        torch._assert_async(~beyond.any(), f"tokens: got some beyond the prompt; {remedy}")
    elif bool(beyond.any()):
        last = tokens + int(beyond.amax((0, 2)).nonzero().max()) + 1
        raise UserError(f"tokens: got some up to {last}, but the prompt has {tokens}; {remedy}")


@dataclass(frozen=True)
class EncodedKeyBias(Encoded):
    """Encoded strengths of keys that are there.

    Args:
        layers: names of the layers.
        free_null: whether the unconditional half stays as in the stock model; None for the `null_weight` of all parts.
    """

    layers: Sequence[str]
    strengths: Strengths
    free_null: Bool[Tensor, "design part"] | None

    @property
    def isolates(self) -> bool:
        """Whether parts are the text's, which others do not see."""
        return False

    @abstractmethod
    def members(self, layout: Layout) -> Float[Tensor, "design key part"]:
        """Returns which keys belong to which part."""

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        given, region = self.strengths, self.strengths["region"]
        check_layout(self.layers, region, given["region_aspect"], layout)
        members = self.members(layout)
        if not bool(members.any()):
            return {}, ()  # no conditions
        if is_plain(given) and not self.isolates:
            return {}, ()  # the stock model, bit for bit
        strength = KeyStrength.of(given, self.layers, layout, self.free_null)
        keys, isolated = layout.expand(members), (~strength.free).float() if self.isolates else None
        return {
            layer: KeyBias(strength.gain(layout.grid(layer), layer), keys, layout.tokens, isolated, layout.conditional)
            for layer in self.layers
        }, (strength,)


class KeyBiasAdapter(Adapter[BatchT, BatchT]):
    """Base class of adapters that bias keys which are there; there is nothing to train.

    Args:
        layers: key width by layer name; `for_denoiser` fills it in.
        base: description of the base model.
    """

    @register_to_config
    def __init__(
        self, layers: dict[str, int], base: dict[str, object] | None = None, format_version: int = FORMAT_VERSION
    ) -> None:
        super().__init__()

    def features(self, batch: BatchT, encoders: Encoders) -> BatchT:
        return batch
