"""Branches: what one method adds at one attention layer, in optional stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from weftwork.attention_processors.core.strength import ImageTokens
from weftwork.datasets.readers.errors import UserError

Biases = Sequence[tuple[Tensor, Tensor]]
"""Biases on keys, as channels of queries [row, query, part] and keys [row, key, part] each."""


class Attend(Protocol):
    """Attention function on the kernel of the user's choice; heads are the third axis."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, biases: Biases = (), /
    ) -> Tensor: ...


Project = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A layer's projections of tokens [row, token, dim] to keys and values, [row, token, head, dim] each."""


@dataclass(frozen=True)
class OwnAttention:
    """The layer's attention without branches: context, mask, output, and what stood before them."""

    key: Float[Tensor, "row token head dim"]
    value: Float[Tensor, "row token head dim"]
    mask: Tensor | None
    out: Float[Tensor, "row query head dim"]
    early: Mapping[str, Float[Tensor, "row token head dim"]] = field(default_factory=dict)
    """Queries and keys of layers that normalise them: "query" and "key" behind these and before rotary embeddings, and
    "raw query" and "raw key" before both; in layers of two streams, of the image's tokens alone."""
    biases: Biases = ()
    """Biases on its keys."""

    def of_queries(self, begin: int, end: int) -> "OwnAttention":
        """Returns the attention of the queries from `begin` to `end`; `early` is unchanged."""
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[2] == self.out.shape[1]:
            mask = mask[:, :, begin:end]
        biases = [(query[:, begin:end], key) for query, key in self.biases]
        return replace(self, mask=mask, out=self.out[:, begin:end], biases=biases)


class Branch:
    """Attention branch of one method at one layer, in optional stages."""

    replaces: ClassVar[bool] = False
    """True if the branch overwrites queries, keys or values: at most one of these per layer."""
    linear: ClassVar[bool] = False
    """True if it needs no softmax, and may act in layers of linear attention."""

    def read(self, hidden_states: Float[Tensor, "row query dim"]) -> None:
        """Is shown the layer's input."""

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, project: Project) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the queries, keys and values to attend with, [row, token, head, dim] each.

        Args:
            project: the layer's own keys and values of other tokens.
        """
        return query, key, value

    def key_bias(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns a bias on keys that are there, as channels of queries [row, query, part] and keys [row, key, part].

        Their product over parts is added to the layer's scaled logits. None for no bias.
        """
        return None

    def mix(
        self,
        query: Float[Tensor, "row query head dim"],
        out: Float[Tensor, "row query head dim"],
        attend: Attend,
        own: OwnAttention,
    ) -> Float[Tensor, "row query head dim"]:
        """Returns the attention output before its projection; `out` is that of the preceding branches."""
        return out

    def residual(
        self, query: Float[Tensor, "row query head dim"], attend: Attend, own: OwnAttention
    ) -> Float[Tensor, "row token head dim"] | None:
        """Returns what is added to the image's tokens behind the block of a layer of two streams, as it is."""
        return None

    def rows(self, count: int) -> "Branch":
        """Returns the branch for `count` rows: all, or the conditional half when guidance is turned off during a run.

        Raises:
            ValueError: any other count.
        """
        return self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Branch":
        return self


def check_places(places: int, queries: int) -> None:
    """Raises unless strengths of a number of places (1: of all alike) are those of a layer's image queries.

    Raises:
        ValueError: another number of queries.
    """
    if places > 1 and places != queries:
        raise UserError(
            f"region: got a grid of {places} places for a layer with {queries} queries; the conditioning was built for "
            "another latent size: build it for the height and width being denoised"
        )


def text_keys(image: ImageTokens | None, queries: int, keys: int) -> tuple[int, int]:
    """Returns first and end of the text's keys in a layer that reads the text.

    Args:
        image: place of the image's tokens; None if all queries are the image's.
    """
    if keys != queries or image is None or image.stream is None:  # the text is not among the queries
        return 0, keys
    first = image.stream if image.span(queries)[0] == 0 else 0
    return first, first + queries - image.stream


def conditional_half(have: int, count: int, conditional: int | None) -> slice:
    """Returns the conditional half of `have` rows, for a batch of `count`; see `Branch.rows`.

    Raises:
        ValueError: not twice as many rows, or no half of the given index.
    """
    if conditional is None or have != 2 * count:
        raise UserError(
            f"conditioning: got keys of {have} rows for a batch of {count}; pass one condition list per prompt and "
            "build the conditioning for this num_images_per_prompt and guidance (a batch "
            "with a third part, as of perturbed-attention guidance, is not supported)"
        )
    return slice(count * conditional, count * (conditional + 1))


@dataclass(frozen=True)
class DecoupledBranch(Branch):
    """Attention to condition tokens, added to the frozen attention (as in IP-Adapter, arXiv 2308.06721, and LOTS).

        out + gain * softmax(Q K^T / sqrt(d) + bias) V,   exactly `out` wherever gain is 0

    `gain` is [row, 1 or place, 1, 1]; `bias`, of several parts, [row, 1, 1 or place, token]; places are the queries of
    image tokens.
    """

    key: Float[Tensor, "row token inner"]
    value: Float[Tensor, "row token inner"]
    gain: Float[Tensor, "row place 1 1"]
    bias: Float[Tensor, "row 1 place token"] | None = None
    conditional: int | None = None
    """Index of the conditional half of the rows, where a batch has both."""
    token_part: Int[Tensor, " token"] | None = None
    """Index of each token's part, for attention maps only."""
    image: ImageTokens | None = None
    """Place of the queries that may attend to the tokens; None for all."""

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        begin, end = self.span(query)
        queries = query.shape[1]
        if (begin, end) == (0, queries):
            return self._mixed(self.queries(query, own), out, attend, own)
        mixed = self._mixed(self.queries(query, own), out[:, begin:end], attend, own.of_queries(begin, end))
        return torch.cat([out[:, :begin], mixed, out[:, end:]], 1)

    def span(self, query: Tensor) -> tuple[int, int]:
        """Returns begin and end of the queries that may attend to the tokens."""
        return (0, query.shape[1]) if self.image is None else self.image.span(query.shape[1])

    def queries(self, query: Tensor, own: OwnAttention) -> Float[Tensor, "row place head dim"]:
        """Returns the queries that attend to the tokens: before rotary embeddings, since tokens have no position."""
        begin, end = self.span(query)
        early = own.early.get("query")
        if early is None or (self.image is None and early.shape[1] != query.shape[1]):
            return query[:, begin:end]
        before = query.shape[1] - early.shape[1]  # text tokens of a layer of two streams
        if self.image is not None and self.image.offset is not None:
            before = min(before, self.image.offset)
        return early[:, begin - before : end - before]

    def _mixed(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        check_places(self.gain.shape[1], query.shape[1])
        gain = self.gain.to(out.dtype)
        return torch.where(gain == 0, out, torch.addcmul(out, gain, self.added(query, attend, own)))

    def tokens(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns keys and values, [row, token, head, dim] each, and the bias, for this query."""
        key, value = (x.to(query.dtype).unflatten(-1, (-1, query.shape[-1])) for x in (self.key, self.value))
        return key, value, None if self.bias is None else self.bias.to(query.dtype)

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Float[Tensor, "row query head dim"]:
        """Returns the tensor that is added to `out` at a gain of 1."""
        return attend(query, *self.tokens(query))

    def rows(self, count: int) -> "DecoupledBranch":
        if self.key.shape[0] == count:
            return self
        half = conditional_half(self.key.shape[0], count, self.conditional)
        bias = None if self.bias is None else self.bias[half]
        key, value, gain = self.key[half], self.value[half], self.gain[half]
        return replace(self, key=key, value=value, gain=gain, bias=bias, conditional=None)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "DecoupledBranch":
        bias = None if self.bias is None else self.bias.to(device)
        key, value = self.key.to(device, dtype), self.value.to(device, dtype)
        return replace(self, key=key, value=value, gain=self.gain.to(device), bias=bias)


@dataclass(eq=False)
class LayerBranches:
    """Branches of one attention layer, and inputs of blocks, in the running call of a denoiser."""

    branches: tuple[Branch, ...] = ()
    record: Callable[[tuple[Branch, ...], Tensor, OwnAttention, Sequence[Tensor]], None] | None = None
    """Is shown the branches, the queries, the attention without branches, and the outputs behind each branch."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that are added to the inputs of blocks, by the block's path."""
    reads: int = 0
    """Number of times that the branches were read in this call; not counted in compiled code."""
