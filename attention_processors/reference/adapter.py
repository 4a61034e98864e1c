"""Reference images as conditions: IP-Adapter, IP-Adapter-Plus and FaceID (arXiv 2308.06721).

A frozen vision encoder encodes a reference image, a projection makes tokens c of it, and cross-attention reads these
beside the text, with K_c = c W_k and V_c = c W_v trained:

    y = softmax(Q K_t^T / sqrt(d)) V_t + A softmax(Q K_c^T / sqrt(d) + log(a_p / A)) V_c        merging "joint"
    y = softmax(Q K_t^T / sqrt(d)) V_t + sum_p a_p softmax(Q K_p^T / sqrt(d)) V_p               merging "sum"

where a_p(x) = weight * layer factor * schedule * region of reference p, and A = max_p a_p.

Source: tencent-ailab/IP-Adapter@62e4af9 (ip_adapter), diffusers 0.42.1 (models/attention_processor.py).
Differs: tokens, keys and values are computed once per generation; weights, regions, schedules and layers are those of
each reference, and references those of each prompt. Several references of one adapter are one softmax there without
masks and a sum with them, so that masks of ones change the image; here `merging` sets which, with masks and without,
and the two are equal where at most one reference acts. Masks are means over a layer's true grid, not bicubic samples of
a guessed one.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Encoders, KeyValueAdapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.branch import Attend, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.encoders.image import unit_tensor
from weftwork.attention_processors.reference import FACE_PROJECTIONS
from weftwork.attention_processors.reference.conditions import Reference
from weftwork.attention_processors.reference.projections import (
    POOLED,
    ZERO_NULL,
    FacePlusProjection,
    ProjectionSizes,
    check_face,
    check_features,
    filled_in,
    make_projection,
)
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.images import center_crop

__all__ = ["MERGINGS", "Reference", "ReferenceAdapter"]

logger = logging.getLogger(__name__)

VIT_H = "h94/IP-Adapter/models/image_encoder"


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceBatch(Batch):
    """References before the image encoder.

    Args:
        pixels, embeds, null_embeds, face: None if no reference has any; embeds of "faceid" are faces.
        has_image, has_null: which references have an image, and null embeds of their own.
    """

    pixels: Float[Tensor, "design part 3 size size"] | None
    embeds: Float[Tensor, "design part *token dim"] | None
    null_embeds: Float[Tensor, "design part *token dim"] | None
    face: Float[Tensor, "design part dim"] | None
    has_image: Bool[Tensor, "design part"]
    has_null: Bool[Tensor, "design part"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceFeatures(Batch):
    """References as the image encoder's features, pooled or states, with those of the null beside them.

    Args:
        face: of "faceid_plus" only; those of "faceid" are `image`. The null has zeros.
    """

    image: Float[Tensor, "design part *token dim"]
    null: Float[Tensor, "design part *token dim"]
    face: Float[Tensor, "design part dim"] | None = None

    def without(self, dropped: Bool[Tensor, " design"]) -> "ReferenceFeatures":
        """Returns a copy for training in which some designs have the null instead of their references."""
        where = dropped.to(self.image.device).view(-1, *[1] * (self.image.ndim - 1))
        face = None if self.face is None else self.face.masked_fill(dropped.to(self.face.device)[:, None, None], 0)
        return replace(self, image=torch.where(where, self.null.to(self.image), self.image), face=face)


@dataclass(frozen=True)
class SummedBranch(DecoupledBranch):
    """Branch of merging "sum": one softmax per reference. No attention maps, which are shares of one softmax."""

    spans: tuple[tuple[int, int], ...] = ()
    """First token and end of every part, as constants for a compiled denoiser."""

    def __post_init__(self) -> None:
        if self.spans or self.token_part is None:
            return
        parts, counts = torch.unique_consecutive(self.token_part, return_counts=True)
        ends = counts.cumsum(0)
        runs = zip(parts.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
        spans = tuple((first, end) for place, (part, first, end) in enumerate(runs) if part == place)
        object.__setattr__(self, "spans", spans)  # tokens after the last part are padding

    def added(self, query: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        key, value, bias = self.tokens(query)
        if bias is None or len(self.spans) < 2:
            return attend(query, key, value, bias)
        shares = [bias[:, 0, :, first].exp()[:, :, None, None] for first, _ in self.spans]
        outs = [attend(query, key[:, first:end], value[:, first:end], None) for first, end in self.spans]
        return torch.stack([share * out for share, out in zip(shares, outs, strict=True)]).sum(0)


MERGINGS: Mapping[str, type[DecoupledBranch]] = {"joint": DecoupledBranch, "sum": SummedBranch}
"""Branch by merging, the rule for several references of one design."""
ABSENT = Reference(weight=0.0)


class ReferenceAdapter(KeyValueAdapter[ReferenceBatch, ReferenceFeatures]):
    """The trained part of an IP-Adapter.

    Args:
        layers: inner width by layer name; `ReferenceAdapter.for_denoiser` fills it in.
        base: description of the base model.
        projection: one of `PROJECTIONS` or `FACE_PROJECTIONS`.
        image_dim: width of the image encoder's features.
        token_dim: width of image tokens: the text width of the backbone, so that K and V can start as copies.
        num_tokens: tokens per reference; "full" has as many as the encoder yields.
        hidden_dim, depth, num_heads, head_dim, feed_forward_ratio: of the resampler of "plus" and "faceid_plus"; the
            last also of "faceid".
        face_dim: width of face embeddings.
        shortcut: "faceid_plus" of version 2; not a matter of weights, so `from_pretrained` may change it.
        layer_head_dim: width of the heads of layers, where the adapter normalises them.
        lora: the adapter was trained beside a LoRA on the denoiser, which the pipeline has to load too.
        image_encoder: the frozen encoder that `set_encoders(image=ImageEncoder.from_pretrained(id))` brings.
        image_size: side in pixels that references are resized to.
        merging: one of `MERGINGS`; not trained, so `from_pretrained(folder, merging="sum")` may change it.
        training: origin of the weights, recorded in `config.json`.

    Raises:
        ValueError: an unknown projection or merging, or a size below 1.
    """

    condition_type = (Reference,)
    projection_bias: ClassVar[bool] = False
    """Whether the projections of keys and values have a bias."""

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        projection: str = "basic",
        image_dim: int = 1024,
        token_dim: int = 768,
        num_tokens: int = 4,
        hidden_dim: int = 768,
        depth: int = 4,
        num_heads: int = 12,
        head_dim: int = 64,
        feed_forward_ratio: int = 4,
        image_encoder: str = VIT_H,
        image_size: int = 224,
        merging: str = "joint",
        face_dim: int = 512,
        shortcut: bool = False,
        lora: bool = False,
        layer_head_dim: int = 64,
        training: dict[str, object] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        check_choice("merging", merging, MERGINGS)
        resampler = hidden_dim, depth, num_heads, head_dim, feed_forward_ratio
        sizes = ProjectionSizes(image_dim, token_dim, num_tokens, *resampler, face_dim)
        self.image_projection = make_projection(projection, sizes)
        if isinstance(self.image_projection, FacePlusProjection):
            self.image_projection.shortcut = shortcut
        self.make_projections(layers, token_dim, bias=self.projection_bias)

    def warn_of_other_weights(self, denoiser: nn.Module) -> None:
        super().warn_of_other_weights(denoiser)
        if self.config["lora"] and not any(".lora_A." in name for name, _ in denoiser.named_parameters()):
            logger.warning(
                "reference: the adapter was trained beside a LoRA, and the denoiser has none; call "
                "pipe.load_lora_weights(folder of the adapter), or the faces are less alike"
            )

    # -- from conditions to features -----------------------------------------------------------------------

    def collate(self, conditions: Sequence[Sequence[Reference]]) -> ReferenceBatch:
        """Returns padded tensors, one row per design; designs may differ in their number of references, also 0.

        Raises:
            ValueError: embeds or faces of a shape that the projection does not read, embeds of several shapes, layers
                that match nothing, or regions of different aspects.
        """
        rows = padded(conditions, ABSENT)
        every = [reference for row in rows for reference in row]
        for one in every:
            check_face(one, self.config["projection"], self.config["face_dim"])
        blank = self._blank_embeds(every)

        def table(value: Callable[[Reference], Any]) -> list[list[Any]]:
            return [[value(reference) for reference in row] for row in rows]

        def stacked(name: str, made: Callable[[Any], Tensor]) -> Tensor | None:
            """Stacks the values of all references; None if no reference has one."""
            things = table(lambda r: getattr(r, name))
            there = any(thing is not None for row in things for thing in row)
            return torch.stack([torch.stack([made(thing) for thing in row]) for row in things]) if there else None

        def filled(embeds: Tensor | None, blank: Tensor = blank) -> Tensor:
            return blank if embeds is None else embeds.detach().cpu().float()

        return ReferenceBatch.of(
            rows,
            self.config,
            pixels=stacked("image", self.pixels),
            embeds=stacked("embeds", filled),
            null_embeds=stacked("null_embeds", filled),
            face=stacked("face", partial(filled, blank=torch.zeros(self.config["face_dim"]))),
            has_image=torch.tensor(table(lambda r: r.image is not None)),
            has_null=torch.tensor(table(lambda r: r.null_embeds is not None)),
        )

    def pixels(self, image: Any) -> Float[Tensor, "3 size size"]:
        """Returns the encoder's input: shortest side resized, middle square, RGB in [0, 1]; zeros for None."""
        size = self.config["image_size"]
        if image is None:
            return torch.zeros(3, size, size)
        return unit_tensor(center_crop(image, size, size))

    def _blank_embeds(self, references: Sequence[Reference]) -> Tensor:
        """Returns zeros in the shape that all given embeds have."""
        shapes = {tuple(r.embeds.shape): None for r in references if r.embeds is not None}
        for shape in shapes:
            self._check("embeds", shape)
        if len(shapes) > 1:
            raise UserError(f"embeds: got shapes {', '.join(map(str, shapes))}, expected one; encode all in one way")
        return torch.zeros(next(iter(shapes), ()))

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        check_features(name, shape, self.config["projection"], self.config["image_dim"], self.config["image_encoder"])

    @torch.no_grad()
    def features(self, batch: ReferenceBatch, encoders: Encoders) -> ReferenceFeatures:
        """Returns images of a weight above 0 through the frozen image encoder, embeds as they are, and their null.

        `ValueError` if the encoder is missing, with the call that adds it, or is of another width.
        """
        kind, active = self.config["projection"], batch.weight > 0
        pooled, face = kind in POOLED, batch.face
        if face is None and kind in FACE_PROJECTIONS:
            face = torch.zeros(*active.shape, self.config["face_dim"], device=active.device)
        if face is not None and pooled:
            return batch.derived(ReferenceFeatures, image=face, null=torch.zeros_like(face), face=None)
        image, null = batch.embeds, batch.null_embeds
        seen = active & batch.has_image
        if batch.pixels is not None and seen.any():
            encoder, pixels = self._encoder(encoders), batch.pixels[seen]
            found = encoder.pooled(pixels) if pooled else encoder.states(pixels)
            self._check("image encoder", tuple(found.shape[1:]))
            image = filled_in(image, seen, found)
        if image is None:
            image = torch.zeros(*active.shape, *([] if pooled else [1]), self.config["image_dim"], device=active.device)
        null = torch.zeros_like(image) if null is None else null
        alone = active & (batch.guided > 0) & ~batch.has_null
        if kind not in ZERO_NULL and alone.any():
            null = filled_in(null, alone, self._encoder(encoders).null_states()[None])
        return batch.derived(ReferenceFeatures, image=image, null=null, face=face)

    def _encoder(self, encoders: Encoders) -> Any:
        if "image" not in encoders:
            name = self.config["image_encoder"]
            raise UserError(
                f"image encoder: this adapter reads images through {name!r}; call "
                f"pipe.set_encoders(image=ImageEncoder.from_pretrained({name!r})) first, or give embeds (for the "
                'projections "plus" and "full" with null_embeds or cfg="cond_only")'
            )
        return encoders["image"]

    # -- the trained part ----------------------------------------------------------------------------------

    @property
    def branch(self) -> type[DecoupledBranch]:
        """Branch that layers get."""
        return MERGINGS[self.config["merging"]]

    def forward(self, features: ReferenceFeatures) -> EncodedTokens:
        """Returns keys and values of all references, with those of the null beside them."""
        some = next(self.parameters())

        def tokens(*values: Float[Tensor, "design part *token dim"]) -> Float[Tensor, "design part token dim"]:
            inputs = (one.to(some).flatten(0, 1) for one in values)
            return self.image_projection(*inputs).unflatten(0, values[0].shape[:2])

        face = () if features.face is None else (features.face,)
        image = tokens(features.image, *face)
        designs, parts, count, _ = image.shape
        return EncodedTokens(
            self.project(image),
            self.project(tokens(features.null, *map(torch.zeros_like, face))),
            torch.ones(designs, parts * count, dtype=torch.bool, device=some.device),
            torch.arange(parts, device=some.device).repeat_interleave(count),
            **features.strengths(list(self.config["layers"]), some.device),
            branch=self.branch,
        )
