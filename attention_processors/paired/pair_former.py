"""The modules of LOTS (arXiv 2507.22627) and of its multi-level extension (arXiv 2602.18309).

A pair is a sketch and a description of one object. Projectors map both to tokens of one width; the pair-former applies
self-attention to the tokens of a pair and returns a few read-out tokens; a global sketch may refine those.

Shapes: `design` is one image, `pair` one of its pairs, `item` a row of the attention's batch: a pair, or a design where
pairs attend to each other.

Source: intelligolabs/lots@5913624, src/lots/{projectors,pair_former}.py;
intelligolabs/lots-extension@43c4f4f, src/lots/global_attn_reverse.py.
Differs: pairs are rows of a batch instead of blocks of a mask (cost N instead of N^2, the same sums); a pair may lack
its sketch or its text; no dropout; parameters have other names, which `weftwork convert` maps.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from weftwork.attention_processors.core.batch_invariant import BatchInvariantLinear, MultiHeadAttention, gelu, is_exact
from weftwork.datasets.readers.errors import UserError, check_choice, check_counts

MASKINGS = ("compression", "pair", "modality", "all")
FUSIONS = ("deferred", "mean")
ISOLATIONS = ("shared_norm", "per_pair")
PADDING = 64
"""Lengths of padded sequences are multiples of it: few shapes."""


class ImageProjector(nn.Module):
    """Projector of a vision (or text) encoder's states to tokens: LayerNorm(W x + b) for each state."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.projection = BatchInvariantLinear(image_dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, states: Float[Tensor, "design pair token state_dim"]) -> Float[Tensor, "design pair token dim"]:
        return self.norm(self.projection(states.flatten(0, 1))).unflatten(0, states.shape[:2])


class TextProjector(nn.Module):
    """Projector of one pooled vector per description to `num_tokens` tokens: LayerNorm of each slice of W x + b."""

    def __init__(self, text_dim: int, dim: int, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.projection = BatchInvariantLinear(text_dim, num_tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors: Float[Tensor, "design pair text_dim"]) -> Float[Tensor, "design pair token dim"]:
        tokens = self.projection(vectors.flatten(0, 1).unsqueeze(1)).squeeze(1).unflatten(-1, (self.num_tokens, -1))
        return self.norm(tokens).unflatten(0, vectors.shape[:2])


class GatedFeedForward(nn.Module):
    """Feed-forward layer W2 (a * GELU(g)) with [a | g] = W1 x (GEGLU, arXiv 2002.05202)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = BatchInvariantLinear(dim, 8 * dim)
        self.contract = BatchInvariantLinear(4 * dim, dim)

    def forward(self, tokens: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token dim"]:
        value, gate = self.expand(tokens).chunk(2, -1)
        return self.contract(value * gelu(gate))


class Block(nn.Module):
    """Transformer block: two self-attentions and a feed-forward, pre-norm with residuals.

    Source: diffusers@v0.33.1, models/attention.py, `BasicTransformerBlock` with `double_self_attention`.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm, self.third_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.first_attention = MultiHeadAttention(dim, num_heads, bias=False)
        self.second_attention = MultiHeadAttention(dim, num_heads, bias=False)
        self.feed_forward = GatedFeedForward(dim)

    def forward(
        self,
        tokens: Float[Tensor, "item token dim"],
        mask: Bool[Tensor, "item 1 place token"] | None = None,
    ) -> Float[Tensor, "item token dim"]:
        for norm, attention in (
            (self.first_norm, self.first_attention),
            (self.second_norm, self.second_attention),
        ):
            normal = norm(tokens)
            tokens = tokens + attention(normal, normal, mask)
        return tokens + self.feed_forward(self.third_norm(tokens))


class PairFormer(nn.Module):
    """Transformer that fuses the sketch and text tokens of each pair.

    Per pair the sequence is [read-out | image | text]; a GroupNorm, then blocks. With `masking`
      "compression" (published) pairs attend to themselves, read-out tokens are the result;
      "pair"        pairs attend to themselves, there are no read-outs, all tokens are the result;
      "modality"    image tokens attend to those of all pairs, text tokens likewise, all tokens are the result;
      "all"         all tokens attend to all tokens, read-out tokens are the result.

    Args:
        dim: width of the tokens, in and out.
        num_readout_tokens: read-out tokens per pair; unused where the masking has none.
        norm_groups: groups of the GroupNorm over channels.
        fusion: "deferred" keeps the pairs apart (the denoiser's attention merges them), "mean" averages the real ones.
        isolation: "shared_norm", as published, takes the statistics of the GroupNorm over all pairs of a design,
            padding included, so that other pairs and padding change a pair's tokens by some per cent. "per_pair"
            normalises every pair separately. With a masking of pairs, its tokens are then batch-invariant: no other
            pair and no padding changes a bit in float32 on the CPU without gradients; see `BatchInvariantLinear` for
            the limits.

    Raises:
        ValueError: an unknown option, or a width that heads or groups do not divide.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_readout_tokens: int = 32,
        num_layers: int = 2,
        num_heads: int = 8,
        norm_groups: int = 32,
        masking: str = "compression",
        fusion: str = "deferred",
        isolation: str = "per_pair",
    ) -> None:
        super().__init__()
        check_choice("masking", masking, MASKINGS)
        check_choice("fusion", fusion, FUSIONS)
        check_choice("isolation", isolation, ISOLATIONS)
        check_counts(num_readout_tokens=num_readout_tokens)
        _check_divides("num_heads", num_heads, dim)
        _check_divides("norm_groups", norm_groups, dim)
        self.masking, self.fusion, self.isolation = masking, fusion, isolation
        self.num_readout_tokens = num_readout_tokens if masking in ("compression", "all") else 0
        self.readouts = nn.Parameter(torch.randn(num_readout_tokens, dim)) if self.num_readout_tokens else None
        self.norm = nn.GroupNorm(norm_groups, dim, eps=1e-6)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(num_layers))

    def forward(
        self,
        image_tokens: Float[Tensor, "design pair image_token dim"],
        text_tokens: Float[Tensor, "design pair text_token dim"],
        pair_mask: Bool[Tensor, "design pair"],
        drawn: Bool[Tensor, "design pair image_token"] | None = None,
    ) -> Float[Tensor, "design out_pair out_token dim"]:
        """Returns tokens of every pair; with `fusion` "mean" of one, their mean; of none where there is no pair.

        Args:
            pair_mask: True = real. Padding comes out as zeros with `isolation` "per_pair", as arbitrary numbers
                otherwise; `token_mask` says which tokens to read.
            drawn: image tokens that the blocks transform, with `masking` "compression" or "pair"; others skip them and
                are only normalised. None means all.

        Raises:
            ValueError: shapes that do not match.
        """
        self._check_shapes(image_tokens, text_tokens, pair_mask)
        real = self._real(image_tokens, text_tokens, pair_mask)
        if pair_mask.shape[1] == 0:
            return image_tokens.new_zeros(*self._of_result(real).shape, image_tokens.shape[-1])
        sequence = self._sequence(image_tokens, text_tokens)
        keep = torch.ones_like(real) if self.isolation == "shared_norm" else real
        normal = self._normalize(sequence, keep)
        if self.masking in ("compression", "pair"):
            if drawn is not None:  # read-outs and texts pass in any case
                keep = keep & F.pad(drawn, (self.num_readout_tokens, text_tokens.shape[2]), value=True)
            apply = _per_pair if drawn is None or is_exact(normal) else _padded  # padding changes the rounding
            tokens = apply(self._transform, normal, keep)
            tokens = tokens if drawn is None else torch.where(keep[..., None], tokens, normal)
        else:
            joint = self._transform(normal.flatten(1, 2), self._joint_mask(real, image_tokens.shape[2]))
            tokens = joint.unflatten(1, normal.shape[1:3])
        tokens, real = self._of_result(tokens), self._of_result(real)
        return _mean_of_pairs(tokens, real) if self.fusion == "mean" else tokens

    def token_mask(
        self,
        image_tokens: Float[Tensor, "design pair image_token dim"],
        text_tokens: Float[Tensor, "design pair text_token dim"],
        pair_mask: Bool[Tensor, "design pair"],
    ) -> Bool[Tensor, "design out_pair out_token"]:
        """Mask of the tokens that `forward` returns for the same arguments."""
        real = self._of_result(self._real(image_tokens, text_tokens, pair_mask))
        return real.any(1, keepdim=True)[:, : real.shape[1]] if self.fusion == "mean" else real

    def _sequence(self, image_tokens: Tensor, text_tokens: Tensor) -> Float[Tensor, "design pair token dim"]:
        parts = [image_tokens, text_tokens]
        if self.readouts is not None:
            parts.insert(0, self.readouts.to(image_tokens.dtype).expand(*image_tokens.shape[:2], -1, -1))
        return torch.cat(parts, 2)

    def _real(self, image_tokens: Tensor, text_tokens: Tensor, pair_mask: Tensor) -> Bool[Tensor, "design pair token"]:
        """Mask of the tokens that are not padding."""
        count = self.num_readout_tokens + image_tokens.shape[2] + text_tokens.shape[2]
        return pair_mask[..., None].expand(-1, -1, count)

    def _of_result(self, values: Tensor) -> Tensor:
        """Returns read-outs where there are any, else all tokens, of [design, pair, token, …]."""
        return values[:, :, : self.num_readout_tokens or None]

    def _normalize(
        self, sequence: Float[Tensor, "design pair token dim"], keep: Bool[Tensor, "design pair token"]
    ) -> Float[Tensor, "design pair token dim"]:
        def group_norm(items: Float[Tensor, "item token dim"]) -> Float[Tensor, "item token dim"]:
            return self.norm(items.transpose(1, 2)).transpose(1, 2)

        if self.isolation == "shared_norm" and self.masking != "pair":
            return group_norm(sequence.flatten(1, 2)).unflatten(1, sequence.shape[1:3])
        return _per_pair(group_norm, sequence, keep)

    def _transform(
        self, items: Float[Tensor, "item token dim"], mask: Bool[Tensor, "item 1 place token"] | None = None
    ) -> Float[Tensor, "item token dim"]:
        for block in self.blocks:
            items = block(items, mask)
        return items

    def _joint_mask(
        self, real: Bool[Tensor, "design pair token"], num_image_tokens: int
    ) -> Bool[Tensor, "design 1 place all_token"]:
        """Attention mask over all pairs of a design; fully masked queries, which are not read, attend to everything."""
        mask = real.flatten(1)[:, None, None]
        if self.masking == "modality":
            is_image = torch.arange(real.shape[2], device=real.device).lt(num_image_tokens).repeat(real.shape[1])
            mask = mask & (is_image[:, None] == is_image)
        return mask | ~mask.any(-1, keepdim=True)

    def _check_shapes(self, image_tokens: Tensor, text_tokens: Tensor, pair_mask: Tensor) -> None:
        if not image_tokens.shape[:2] == text_tokens.shape[:2] == pair_mask.shape:
            raise UserError(
                f"pairs: got image_tokens for {tuple(image_tokens.shape[:2])} (design, pair), text_tokens for "
                f"{tuple(text_tokens.shape[:2])} and a pair_mask of {tuple(pair_mask.shape)}; pass one of each per "
                "pair, padded to the largest number of pairs"
            )
        dim = self.norm.num_channels
        if (image_tokens.shape[-1], text_tokens.shape[-1]) != (dim, dim):
            raise UserError(
                f"tokens: got widths {image_tokens.shape[-1]} (image) and {text_tokens.shape[-1]} (text), "
                f"expected {dim}; pass them through ImageProjector and TextProjector first"
            )


class GlobalSketchAttention(nn.Module):
    """Attention of the pairs' tokens p to a global sketch s, whose tokens are put in front of them.

        g = W s + b;   p' = p + attention(LN(p), g);   p'' = p' + W2 GELU(W1 LN(p'));   [g | p'']

    Source: arXiv 2602.18309; intelligolabs/lots-extension@43c4f4f, src/lots/global_attn_reverse.py.
    Differs: the sketch is always projected (theirs only where widths differ); masks are the caller's.
    """

    def __init__(self, image_dim: int, dim: int, num_heads: int) -> None:
        super().__init__()
        _check_divides("num_heads", num_heads, dim)
        self.projection = BatchInvariantLinear(image_dim, dim)
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, num_heads, bias=True)
        self.expand = BatchInvariantLinear(dim, 4 * dim)
        self.contract = BatchInvariantLinear(4 * dim, dim)

    def forward(
        self,
        sketch_tokens: Float[Tensor, "design image_token image_dim"],
        pair_tokens: Float[Tensor, "design token dim"],
    ) -> Float[Tensor, "design image_token+token dim"]:
        whole = self.projection(sketch_tokens)
        tokens = pair_tokens + self.attention(self.attention_norm(pair_tokens), whole)
        tokens = tokens + self.contract(gelu(self.expand(self.feed_forward_norm(tokens))))
        return torch.cat([whole, tokens], 1)


def null_tokens(
    pair_former: PairFormer,
    image_projector: nn.Module,
    text_projector: nn.Module,
    image: Float[Tensor, "design pair image_token image_dim"],
    text: Float[Tensor, "design pair *text_state text_dim"],
    drawn: Bool[Tensor, "design pair image_token"] | None = None,
) -> Float[Tensor, "1 1 out_token dim"]:
    """Returns tokens of the null condition (zeros, shaped like `image`, `text` and `drawn`), equal for every pair.

    Differs: computed for one pair. With equal pairs neither the statistics of the shared norm nor attention over them
    depends on their number, so the authors' tokens for N null pairs are these N times, up to rounding.
    """
    image, text = image.new_zeros(1, 1, *image.shape[2:]), text.new_zeros(1, 1, *text.shape[2:])
    one = torch.ones(1, 1, dtype=torch.bool, device=image.device)
    blank = None if drawn is None else drawn.new_zeros(1, 1, drawn.shape[2])
    return pair_former(image_projector(image), text_projector(text), one, blank)


def _per_pair(
    function: Callable[[Tensor], Tensor],
    sequence: Float[Tensor, "design pair token dim"],
    keep: Bool[Tensor, "design pair token"],
) -> Float[Tensor, "design pair token dim"]:
    """Applies `function` to every pair's kept tokens as rows of one batch; zeros elsewhere.

    Pairs that keep the same tokens share a batch, so no mask is needed.
    """
    if keep.all():
        return function(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])
    items, keep = sequence.flatten(0, 1), keep.flatten(0, 1)
    places, parts = [keep.new_zeros(0, dtype=torch.long)], [items.new_zeros(0, items.shape[-1])]
    for kept in keep.unique(dim=0):
        rows = (keep == kept).all(1)
        if kept.any():
            places.append((rows[:, None] & kept).flatten().nonzero()[:, 0])
            parts.append(function(items[rows][:, kept]).flatten(0, 1).to(items))
    result = torch.zeros_like(items).flatten(0, 1).index_copy(0, torch.cat(places), torch.cat(parts))
    return result.view_as(sequence)


def _padded(
    function: Callable[[Tensor, Tensor], Tensor],
    sequence: Float[Tensor, "design pair token dim"],
    keep: Bool[Tensor, "design pair token"],
) -> Float[Tensor, "design pair token dim"]:
    """Computes `_per_pair` in one call, with the kept tokens of each pair in front and a mask of the padding.

    `_per_pair` calls the function once per set of kept tokens; on a CPU, each new length needs kernels to be compiled.
    """
    keep, counts = keep.flatten(0, 1), keep.sum(2).flatten()
    length = min(keep.shape[1], -(-int(counts.max()) // PADDING) * PADDING)
    mask = torch.arange(length, device=keep.device) < counts.clamp(min=1)[:, None]  # no row without keys
    items, order = sequence.flatten(0, 1), keep.byte().argsort(dim=1, descending=True, stable=True)
    places = order[:, :length, None].expand(-1, -1, items.shape[-1])
    front = function(items.gather(1, places), mask[:, None, None]).to(items)
    return torch.zeros_like(items).scatter(1, places, front).where(keep[..., None], 0.0).view_as(sequence)


def _mean_of_pairs(
    tokens: Float[Tensor, "design pair token dim"], real: Bool[Tensor, "design pair token"]
) -> Float[Tensor, "design 1 token dim"]:
    weight = real.unsqueeze(-1).to(tokens)
    return (tokens * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)


def _check_divides(name: str, parts: int, width: int) -> None:
    if parts < 1 or width % parts:
        raise UserError(f"{name}: got {parts} for a width of {width}, expected a divisor of it")
