"""Reference images as conditions: IP-Adapter and IP-Adapter-Plus (arXiv 2308.06721).

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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.adapter import KeyValueAdapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.branch import Attend, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.records import ImageKind, recorded
from weftwork.attention_processors.core.regions import ImageLike, from_array
from weftwork.attention_processors.reference.projections import (
    POOLED,
    ProjectionSizes,
    check_embeds,
    check_features,
    filled_in,
    make_projection,
)
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image, center_crop, read_image

__all__ = ["MERGINGS", "Reference", "ReferenceAdapter"]

VIT_H = "h94/IP-Adapter/models/image_encoder"


@dataclass(frozen=True, eq=False)
class Reference(Condition):
    """A reference image or its embeddings; the other arguments are those of `Condition`.

    At a weight of 0 neither image nor encoder is needed. The unconditional half of guidance reads the null condition of
    the original code: zero features for "basic", encoded zero pixels otherwise.

    Args:
        image: an image, an array or a path; its middle square is read.
        embeds: precomputed features instead: pooled [dim] for "basic", penultimate states [token, dim] for "plus" and
            "full".
        null_embeds: with `embeds`, the embeddings in the unconditional half of guidance: of another image, to lead away
            from it, or of zero pixels, for which "plus" and "full" need the image encoder otherwise.

    Raises:
        ValueError: not exactly one of `image` and `embeds` at a weight above 0, embeds that are not a finite floating
            tensor of one or two dimensions, null embeds of another shape; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("image",)

    image: ImageLike | None = field(
        default=None, metadata=recorded(ImageKind(), "Path of the reference image; its middle square is read.")
    )
    embeds: Tensor | None = None
    null_embeds: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.image is not None) + (self.embeds is not None)
        if given > 1 or (not given and self.weight > 0):
            got = "both image and" if given else "no image and no"
            raise UserError(f"reference: got {got} embeds; give one of them")
        for name in ("embeds", "null_embeds"):
            check_embeds(name, getattr(self, name))
        if self.null_embeds is not None and (self.embeds is None or self.embeds.shape != self.null_embeds.shape):
            beside = "no embeds" if self.embeds is None else f"embeds of shape {tuple(self.embeds.shape)}"
            raise UserError(
                f"null_embeds: got shape {tuple(self.null_embeds.shape)} beside {beside}; encode zero pixels as embeds"
            )
        if self.image is not None:
            object.__setattr__(self, "image", _opened(self.image))


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceBatch(Batch):
    """References before the image encoder.

    Args:
        pixels, embeds, null_embeds: None if no reference has any.
        has_image, has_null: which references have an image, and null embeds of their own.
    """

    pixels: Float[Tensor, "design part 3 size size"] | None
    embeds: Float[Tensor, "design part *token dim"] | None
    null_embeds: Float[Tensor, "design part *token dim"] | None
    has_image: Bool[Tensor, "design part"]
    has_null: Bool[Tensor, "design part"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceFeatures(Batch):
    """References as the image encoder's features, pooled or states, with those of the null beside them."""

    image: Float[Tensor, "design part *token dim"]
    null: Float[Tensor, "design part *token dim"]

    def without(self, dropped: Bool[Tensor, " design"]) -> "ReferenceFeatures":
        """Returns a copy for training in which some designs have the null instead of their references."""
        where = dropped.to(self.image.device).view(-1, *[1] * (self.image.ndim - 1))
        return replace(self, image=torch.where(where, self.null.to(self.image), self.image))


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
        projection: "basic", "plus" or "full", see `PROJECTIONS`.
        image_dim: width of the image encoder's features.
        token_dim: width of image tokens: the text width of the backbone, so that K and V can start as copies.
        num_tokens: tokens per reference; "full" has as many as the encoder yields.
        hidden_dim, depth, num_heads, head_dim, feed_forward_ratio: of the resampler of "plus".
        image_encoder: the frozen encoder that `set_encoders(image=ImageEncoder.from_pretrained(id))` brings.
        image_size: side in pixels that references are resized to.
        merging: one of `MERGINGS`; not trained, so `from_pretrained(folder, merging="sum")` may change it.
        training: origin of the weights, recorded in `config.json`.

    Raises:
        ValueError: an unknown projection or merging, or a size below 1.
    """

    condition_type = (Reference,)

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, Any] | None = None,
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
        training: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        if merging not in MERGINGS:
            raise UserError(f"merging: got {merging!r}, expected one of {', '.join(MERGINGS)}")
        resampler = hidden_dim, depth, num_heads, head_dim, feed_forward_ratio
        sizes = ProjectionSizes(image_dim, token_dim, num_tokens, *resampler)
        self.image_projection = make_projection(projection, sizes)
        self.make_projections(layers, token_dim)

    # -- from conditions to features -----------------------------------------------------------------------

    def collate(self, conditions: Sequence[Sequence[Reference]]) -> ReferenceBatch:
        """Returns padded tensors, one row per design; designs may differ in their number of references, also 0.

        Raises:
            ValueError: embeds of a shape that the projection does not read or of several shapes, layers that match
                nothing, or regions of different aspects.
        """
        rows = padded(conditions, ABSENT)
        blank = self._blank_embeds([reference for row in rows for reference in row])

        def table(value: Callable[[Reference], Any]) -> list[list[Any]]:
            return [[value(reference) for reference in row] for row in rows]

        def stacked(name: str, made: Callable[[Any], Tensor]) -> Tensor | None:
            """Stacks the values of all references; None if no reference has one."""
            things = table(lambda r: getattr(r, name))
            there = any(thing is not None for row in things for thing in row)
            return torch.stack([torch.stack([made(thing) for thing in row]) for row in things]) if there else None

        def filled(embeds: Tensor | None) -> Tensor:
            return blank if embeds is None else embeds.detach().cpu().float()

        return ReferenceBatch.of(
            rows,
            list(self.config["layers"]),
            pixels=stacked("image", self.pixels),
            embeds=stacked("embeds", filled),
            null_embeds=stacked("null_embeds", filled),
            has_image=torch.tensor(table(lambda r: r.image is not None)),
            has_null=torch.tensor(table(lambda r: r.null_embeds is not None)),
        )

    def pixels(self, image: Any) -> Float[Tensor, "3 size size"]:
        """Returns the encoder's input: shortest side resized, middle square, RGB in [0, 1]; zeros for None."""
        size = self.config["image_size"]
        if image is None:
            return torch.zeros(3, size, size)
        return torch.from_numpy(np.array(center_crop(image, size, size), np.float32) / 255).permute(2, 0, 1)

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
    def features(self, batch: ReferenceBatch, encoders: Mapping[str, Any]) -> ReferenceFeatures:
        """Returns images of a weight above 0 through the frozen image encoder, embeds as they are, and their null.

        Raises:
            ValueError: the encoder is needed and missing, with the call that adds it, or is of another width.
        """
        pooled, active = self.config["projection"] in POOLED, batch.weight > 0
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
        if not pooled and alone.any():
            null = filled_in(null, alone, self._encoder(encoders).null_states()[None])
        return batch.derived(ReferenceFeatures, image=image, null=null)

    def _encoder(self, encoders: Mapping[str, Any]) -> Any:
        if "image" not in encoders:
            name = self.config["image_encoder"]
            raise UserError(
                f"image encoder: this adapter reads images through {name!r}; call "
                f"pipe.set_encoders(image=ImageEncoder.from_pretrained({name!r})) first, or give embeds (for the "
                'projections "plus" and "full" with null_embeds or cfg="cond_only")'
            )
        return encoders["image"]

    # -- the trained part ----------------------------------------------------------------------------------

    def forward(self, features: ReferenceFeatures) -> EncodedTokens:
        """Returns keys and values of all references, with those of the null beside them."""
        some = next(self.parameters())

        def tokens(values: Float[Tensor, "design part *token dim"]) -> Float[Tensor, "design part token dim"]:
            return self.image_projection(values.to(some).flatten(0, 1)).unflatten(0, values.shape[:2])

        image = tokens(features.image)
        designs, parts, count, _ = image.shape
        return EncodedTokens(
            self.project(image),
            self.project(tokens(features.null)),
            torch.ones(designs, parts * count, dtype=torch.bool, device=some.device),
            torch.arange(parts, device=some.device).repeat_interleave(count),
            **features.strengths(list(self.config["layers"]), some.device),
            branch=MERGINGS[self.config["merging"]],
        )


def _opened(given: ImageLike) -> Image.Image:
    return read_image(given) if isinstance(given, str | Path) else as_image(from_array(given, "image"))
