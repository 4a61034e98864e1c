"""Projections of IP-Adapters from image features to tokens, by diffusers' modules (models/embeddings.py).

    basic   pooled features [dim]: one linear map to all tokens, LayerNorm
    plus    states [token, dim]: a resampler, learned latents that attend to the states through `depth` blocks
    full    states [token, dim]: two linear maps with GELU and LayerNorm, token by token

Source: diffusers 0.42.1, whose parameters and results are those of tencent-ailab/IP-Adapter@62e4af9
(ip_adapter/{ip_adapter,resampler}.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers.models.embeddings import ImageProjection, IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.reference import PROJECTIONS
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True)
class ProjectionSizes:
    """The sizes of a projection; those after `num_tokens` are the resampler's.

    Raises:
        ValueError: a size below 1, by name.
    """

    image_dim: int
    token_dim: int
    num_tokens: int
    hidden_dim: int
    depth: int
    num_heads: int
    head_dim: int
    feed_forward_ratio: int

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            if size < 1:
                raise UserError(f"{name}: got {size!r}, expected at least 1")


def _basic(sizes: ProjectionSizes) -> nn.Module:
    return ImageProjection(sizes.image_dim, sizes.token_dim, sizes.num_tokens)


def _plus(sizes: ProjectionSizes) -> nn.Module:
    return IPAdapterPlusImageProjection(
        embed_dims=sizes.image_dim,
        output_dims=sizes.token_dim,
        hidden_dims=sizes.hidden_dim,
        depth=sizes.depth,
        dim_head=sizes.head_dim,
        heads=sizes.num_heads,
        num_queries=sizes.num_tokens,
        ffn_ratio=sizes.feed_forward_ratio,
    )


def _full(sizes: ProjectionSizes) -> nn.Module:
    return IPAdapterFullImageProjection(sizes.image_dim, sizes.token_dim)


MAKERS: Mapping[str, Callable[[ProjectionSizes], nn.Module]] = dict(
    zip(PROJECTIONS, (_basic, _plus, _full), strict=True)
)
POOLED = frozenset({"basic"})
"""Projections that read pooled features; the others read states."""


def make_projection(kind: str, sizes: ProjectionSizes) -> nn.Module:
    """Makes a module from features [image, dim] or [image, token, dim] to tokens [image, token, token_dim].

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in PROJECTIONS:
        raise UserError(f"projection: got {kind!r}, expected one of {', '.join(PROJECTIONS)}")
    return MAKERS[kind](sizes)


def check_embeds(name: str, embeds: Any) -> None:
    """Raises unless embeds are one reference's features, of any width; None passes.

    Raises:
        ValueError: not a floating tensor of one or two dimensions, or one with NaN or infinite numbers.
    """
    if embeds is None:
        return
    if not isinstance(embeds, Tensor) or not embeds.is_floating_point() or embeds.ndim not in (1, 2):
        got = f"{embeds.dtype} of shape {tuple(embeds.shape)}" if isinstance(embeds, Tensor) else type(embeds).__name__
        raise UserError(f"{name}: got {got}, expected a floating tensor [dim] or [token, dim]: those of one reference")
    if not bool(embeds.isfinite().all()):
        raise UserError(f"{name}: got NaN or infinite numbers, expected finite ones; encode the image again")


def check_features(name: str, shape: tuple[int, ...], kind: str, image_dim: int, encoder: str) -> None:
    """Raises unless a projection reads one reference's features of this shape.

    Raises:
        ValueError: pooled features for states or the other way round, or another width.
    """
    if shape != (*shape[: 0 if kind in POOLED else 1], image_dim):
        expected = f"({image_dim},): pooled" if kind in POOLED else f"(token, {image_dim}): penultimate states"
        raise UserError(
            f'{name}: got features of shape {shape} for one reference, but the projection "{kind}" expects {expected}, '
            f"as {encoder!r} gives them; encode with that"
        )


def filled_in(
    values: Tensor | None, where: Bool[Tensor, "design part"], found: Float[Tensor, "found *feature"]
) -> Float[Tensor, "design part *feature"]:
    """Returns a copy of `values` (None: zeros) filled with an encoder's outputs, one for each place or one for all.

    Raises:
        ValueError: the two have different numbers of states.
    """
    shape = tuple(found.shape[1:])
    values = found.new_zeros(*where.shape, *shape) if values is None else values.to(found)
    if tuple(values.shape[2:]) != shape:
        raise UserError(
            f"embeds: got shape {tuple(values.shape[2:])} beside {shape} from the image encoder, expected one shape; "
            "encode all references in one way"
        )
    return values.index_put((where.to(found.device),), found)
