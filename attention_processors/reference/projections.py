"""Projections of IP-Adapters from image features to tokens, by diffusers' modules (models/embeddings.py).

    basic   pooled features [dim]: one linear map to all tokens, LayerNorm
    plus    states [token, dim]: a resampler, learned latents that attend to the states through `depth` blocks
    full    states [token, dim]: two linear maps with GELU and LayerNorm, token by token
    mlp     pooled features [dim]: two linear maps with GELU to all tokens, LayerNorm
    timed   states [token, dim] and a timestep: a resampler with adaptive norms
    faceid         face embedding [dim]: two linear maps with GELU to all tokens, LayerNorm
    faceid_plus    the same, whose tokens attend to states [token, dim] through `depth` blocks; with `shortcut`
                   (version 2), the result is added to the tokens

Source: diffusers 0.42.1, whose parameters and results are those of tencent-ailab/IP-Adapter@62e4af9
(ip_adapter/{ip_adapter,ip_adapter_faceid,resampler}.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterFaceIDImageProjection,
    IPAdapterFaceIDPlusImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
    IPAdapterTimeImageProjection,
)
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.reference import FACE_PROJECTIONS
from weftwork.datasets.readers.errors import UserError, check_choice, check_counts


@dataclass(frozen=True)
class ProjectionSizes:
    """The sizes of a projection; those after `num_tokens` are the resampler's; `ValueError` for one below 1."""

    image_dim: int
    token_dim: int
    num_tokens: int
    hidden_dim: int
    depth: int
    num_heads: int
    head_dim: int
    feed_forward_ratio: int
    face_dim: int

    def __post_init__(self) -> None:
        check_counts(**vars(self))


def _blocks(sizes: ProjectionSizes) -> dict[str, Any]:
    """Returns the sizes of a resampler's blocks, as diffusers' modules name them."""
    return {
        "depth": sizes.depth,
        "dim_head": sizes.head_dim,
        "heads": sizes.num_heads,
        "ffn_ratio": sizes.feed_forward_ratio,
    }


def _resampler(kind: Callable[..., nn.Module], sizes: ProjectionSizes) -> nn.Module:
    widths = sizes.image_dim, sizes.token_dim, sizes.hidden_dim
    return kind(*widths, num_queries=sizes.num_tokens, **_blocks(sizes))


class FacePlusProjection(IPAdapterFaceIDPlusImageProjection):
    """diffusers' module, which keeps image states as an attribute, as a function of states and face embeddings."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, states: Float[Tensor, "image token dim"], faces: Float[Tensor, "image dim"]
    ) -> Float[Tensor, "image token token_dim"]:
        self.clip_embeds = states[None]
        try:
            return super().forward(faces)
        finally:
            self.clip_embeds = None


def _face_plus(sizes: ProjectionSizes) -> nn.Module:
    return FacePlusProjection(
        embed_dims=sizes.hidden_dim,
        output_dims=sizes.token_dim,
        hidden_dims=sizes.image_dim,
        id_embeddings_dim=sizes.face_dim,
        num_tokens=sizes.num_tokens,
        **_blocks(sizes),
    )


MAKERS: Mapping[str, Callable[[ProjectionSizes], nn.Module]] = {
    "basic": lambda s: ImageProjection(s.image_dim, s.token_dim, s.num_tokens),
    "plus": partial(_resampler, IPAdapterPlusImageProjection),
    "full": lambda s: IPAdapterFullImageProjection(s.image_dim, s.token_dim),
    "faceid": lambda s: IPAdapterFaceIDImageProjection(s.face_dim, s.token_dim, s.feed_forward_ratio, s.num_tokens),
    "faceid_plus": _face_plus,
    "mlp": lambda s: IPAdapterFaceIDImageProjection(s.image_dim, s.token_dim, 2, s.num_tokens),
    "timed": partial(_resampler, IPAdapterTimeImageProjection),
}
"""By name: those of `PROJECTIONS` and `FACE_PROJECTIONS`, then those of published adapters alone."""
POOLED = frozenset({"basic", "faceid", "mlp"})
"""Projections that read one vector per image; the others read states."""
ZERO_NULL = POOLED | {"timed"}
"""Projections whose null is features of zeros; that of the others is the features of zero pixels."""


def make_projection(kind: str, sizes: ProjectionSizes) -> nn.Module:
    """Makes a module from features [image, dim] or [image, token, dim] to tokens; `ValueError` for an unknown kind."""
    check_choice("projection", kind, MAKERS)
    return MAKERS[kind](sizes)


def check_embeds(name: str, embeds: Any) -> None:
    """Raises `ValueError` unless embeds, or None, are finite floating features of one reference: 1 or 2 axes."""
    if embeds is None:
        return
    if not isinstance(embeds, Tensor) or not embeds.is_floating_point() or embeds.ndim not in (1, 2):
        got = f"{embeds.dtype} of shape {tuple(embeds.shape)}" if isinstance(embeds, Tensor) else type(embeds).__name__
        raise UserError(f"{name}: got {got}, expected a floating tensor [dim] or [token, dim]: those of one reference")
    if not bool(embeds.isfinite().all()):
        raise UserError(f"{name}: got NaN or infinite numbers, expected finite ones; encode the image again")


def check_face(reference: Any, kind: str, face_dim: int) -> None:
    """Raises unless a projection reads a reference's face embedding, or none where it has none.

    Raises:
        ValueError: no embedding for a projection of faces at a weight above 0, one for another projection, one of
            another shape, or image features beside it that have no effect.
    """
    face = reference.face
    if face is None and kind in FACE_PROJECTIONS and reference.weight > 0:
        raise UserError(
            f'face: got none, but the projection "{kind}" reads one; give the embedding of a face recogniser, or a '
            "function of the image that makes it"
        )
    if face is not None and kind not in FACE_PROJECTIONS:
        raise UserError(f'face: got one, which has no effect with the projection "{kind}"; leave it out')
    if face is not None and tuple(face.shape) != (face_dim,):
        raise UserError(
            f"face: got shape {tuple(face.shape)}, expected ({face_dim},): the embedding of one face; use the face "
            "recogniser that the adapter was trained with"
        )
    if reference.embeds is not None and kind == "faceid":
        raise UserError('embeds: got some, which have no effect with the projection "faceid"; leave them out')


def check_features(name: str, shape: tuple[int, ...], kind: str, image_dim: int, encoder: str) -> None:
    """Raises `ValueError` unless a projection reads features of this shape: pooled or states, and of its width."""
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
