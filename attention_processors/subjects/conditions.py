"""Subjects shown as images, which words of the prompt stand for, as conditions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import ImageKind, TextKind, recorded
from weftwork.attention_processors.core.regions import ImageLike, opened
from weftwork.attention_processors.core.strength import check_weight
from weftwork.attention_processors.reference.projections import check_embeds
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True, eq=False)
class Subject(Condition):
    """A subject shown as an image, which words of the prompt stand for.

    The other arguments are those of `Condition`, but without regions and factors by layer: all layers read the changed
    prompt embedding. The unconditional half of guidance is the stock model for any `cfg`.

    Args:
        image: an image, an array or a path; padded to a square with black.
        text: words of the prompt, such as "fox" or "red car"; their last token is changed.
        embeds: features of the image by the image encoder, [dim], instead of it.
        token: position of the token among the prompt embeddings, instead of `text`.

    Raises:
        ValueError: not one of `image` and `embeds` at a weight above 0, not one of `text` and `token`, a region
            or factors by layer; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("image",)
    has_maps: ClassVar[bool] = False
    refused: ClassVar[Mapping[str, str]] = {
        "region": "got one for a subject, whose prompt embedding all places read; leave it out, or attach `regional` "
        "beside it and pass RegionalPrompt(tokens=…, region=…) for its words",
        "layers": "got factors for a subject, whose prompt embedding all layers read; leave them out",
    }

    image: ImageLike | None = field(
        default=None, metadata=recorded(ImageKind(), "Path of an image of the subject, alone in it.")
    )
    text: str | None = field(
        default=None, metadata=recorded(TextKind(), "Words of the prompt that it stands for, as they are there.")
    )
    embeds: Tensor | None = None
    token: int | None = None

    @classmethod
    def required_keys(cls) -> list[str]:
        return [*super().required_keys(), "text"]

    def __post_init__(self) -> None:
        super().__post_init__()
        shown = (self.image is not None) + (self.embeds is not None)
        if shown > 1 or (not shown and self.weight > 0):
            raise UserError(f"subject: got {'both image and' if shown else 'no image and no'} embeds; give one of them")
        check_embeds("embeds", self.embeds)
        if self.image is not None:
            object.__setattr__(self, "image", opened(self.image))
        if (self.text is None) == (self.token is None):
            raise UserError(f"text: got {self.text!r} and token {self.token!r}, expected one of both; give the words")
        if self.text is not None and not (isinstance(self.text, str) and self.text.strip()):
            raise UserError(f"text: got {self.text!r}, expected words of the prompt; name the subject")
        if self.token is not None and (type(self.token) is not int or self.token < 0):
            raise UserError(f"token: got {self.token!r}, expected a whole number of at least 0; count from 0")


def delayed(alpha: float, num_inference_steps: int) -> float:
    """Returns the `start` of a subject for FastComposer's subject conditioning ratio: text alone in the first steps.

    The authors' loop runs on text alone at index i while i <= (1 - alpha) n, so 16 steps of 50 for an alpha of 0.7, one
    more than `start = 1 - alpha` has.

    Raises:
        ValueError: an alpha outside of [0, 1], or no steps.
    """
    check_weight(alpha, "alpha")
    if not (alpha <= 1 and num_inference_steps >= 1):
        raise UserError(
            f"alpha, num_inference_steps: got {alpha} and {num_inference_steps}, expected a share in [0, 1] and at "
            "least 1 step; pass those of the call"
        )
    return min(1.0, (math.floor((1 - alpha) * num_inference_steps) + 1) / num_inference_steps)
