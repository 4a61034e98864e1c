"""Reference images, their features, and the embeddings of faces in them, as conditions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import ImageKind, recorded
from weftwork.attention_processors.core.regions import ImageLike, opened
from weftwork.attention_processors.reference.projections import check_embeds
from weftwork.datasets.readers.errors import UserError


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
        face: for the projections "faceid", which reads nothing else, and "faceid_plus": the embedding of a face
            recogniser, [dim], or a function of the image that returns it, called once. The null is zeros.

    Raises:
        ValueError: not exactly one of `image` and `embeds` at a weight above 0 without a `face`, embeds that are not a
            finite floating tensor of one or two dimensions, null embeds of another shape, a function as `face` without
            an image; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("image",)

    image: ImageLike | None = field(
        default=None, metadata=recorded(ImageKind(), "Path of the reference image; its middle square is read.")
    )
    embeds: Tensor | None = None
    null_embeds: Tensor | None = None
    face: Tensor | Callable[[Image.Image], Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.image is not None) + (self.embeds is not None)
        if given > 1 or (not given and self.face is None and self.weight > 0):
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
            object.__setattr__(self, "image", opened(self.image))
        if callable(self.face) and not isinstance(self.face, Tensor):
            if not isinstance(self.image, Image.Image):
                raise UserError("face: got a function and no image to call it with; give the image, or the embedding")
            object.__setattr__(self, "face", torch.as_tensor(self.face(self.image)))
        check_embeds("face", self.face)
