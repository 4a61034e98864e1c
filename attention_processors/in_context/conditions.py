"""Strength of one of the reference images of a call, and reference images themselves, as conditions."""

from dataclasses import dataclass, field
from typing import ClassVar

from weftwork.attention_processors.core.condition import GUIDANCE, Condition
from weftwork.attention_processors.core.records import ChoiceKind, ImageKind, NumberKind, recorded
from weftwork.attention_processors.core.regions import ImageLike, opened
from weftwork.attention_processors.core.strength import number
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True, eq=False)
class InContextReference(Condition):
    """Strength of a reference image that the pipeline itself reads; the other arguments are those of `Condition`.

    A weight of 1 is the stock model, 0 is it without the reference, and references without a condition have 1. Outside
    of its region and schedule a reference is not seen.

    Args:
        index: which of the call's reference images, from 0.

    Raises:
        ValueError: an index that is no whole number of at least 0; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("index",)
    has_maps: ClassVar[bool] = False

    index: int = field(metadata=recorded(NumberKind(maximum=100), "Which reference image, from 0."))

    def __post_init__(self) -> None:
        super().__post_init__()
        value = number(self.index)
        if value is None or not value.is_integer() or value < 0:
            raise UserError(f"index: got {self.index!r}, expected a whole number of at least 0: which reference image")
        object.__setattr__(self, "index", int(value))


@dataclass(frozen=True, eq=False)
class ReferenceOnly(Condition):
    """A reference image for a denoiser that reads none by itself; the other arguments are those of `Condition`.

    At a weight of 1, tokens of the reference count as much as those of the generated image. With `cfg="both"` the
    unconditional half of guidance reads the reference too. At a weight of 0 there need be no image.

    Args:
        image: an image, an array or a path; cropped at the centre to the aspect of the generated image.

    Raises:
        ValueError: no image at a weight above 0; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("image",)
    has_maps: ClassVar[bool] = False

    image: ImageLike | None = field(
        default=None,
        metadata=recorded(ImageKind(), "Path of the reference image; cropped to the canvas's aspect."),
    )
    cfg: str = field(
        default="cond_only",
        kw_only=True,
        metadata=recorded(
            ChoiceKind(GUIDANCE),
            "The unconditional half of guidance reads the reference too (both) or is the frozen model (cond_only).",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image is not None:
            object.__setattr__(self, "image", opened(self.image))
        elif self.weight > 0:
            raise UserError("image: got none at a weight above 0, expected the reference image; give one")
