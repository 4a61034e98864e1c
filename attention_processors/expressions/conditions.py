"""Expressions of people, by name or by a prior, as conditions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import NumberKind, SharesKind, recorded
from weftwork.attention_processors.core.shares import checked_shares
from weftwork.attention_processors.core.strength import MAX_WEIGHT, check_weight
from weftwork.attention_processors.reference.projections import check_embeds
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True, eq=False)
class Expression(Condition):
    """An expression by name, a mixture of several, or one given by its prior.

    The other arguments are those of `Condition`; a region, such as the box of a face, says whose expression it is.

    Args:
        expression: a name, or shares by name; shares are divided by their sum, and priors are mixed.
        prior: mean of a Gaussian prior instead, [dim], as `ExpressionAdapter.prior` returns it.
        guidance: guidance scale of the expression as a multiple of the pipeline's: 1 guides by the text and the
            expression together, 2 counts the expression twice. Conditions of one prompt share it.

    Raises:
        ValueError: not one of `expression` and `prior` at a weight above 0, shares that are negative, not finite or sum
            to 0, a prior that is no finite floating tensor, a guidance that is negative or not finite; and as for
            `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("expression",)

    expression: str | Mapping[str, float] | None = field(
        default=None,
        metadata=recorded(SharesKind(alone=True), "A name, or shares by name, which are divided by their sum."),
    )
    prior: Tensor | None = None
    guidance: float = field(
        default=1.0,
        metadata=recorded(
            NumberKind(maximum=MAX_WEIGHT), "Guidance scale of the expression as a multiple of the image's."
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.expression is not None) + (self.prior is not None)
        if given > 1 or (not given and self.weight > 0):
            got = "both a name and a" if given else "no name and no"
            raise UserError(f"expression: got {got} prior; give one of them")
        if self.expression is not None:
            object.__setattr__(self, "expression", checked_shares("expression", self.expression))
        check_embeds("prior", self.prior)
        check_weight(self.guidance, "guidance")

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares by name, which sum to 1; none with a prior."""
        assert not isinstance(self.expression, str)
        return self.expression or {}
