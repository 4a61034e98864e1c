"""The condition of a style: one by name, or a mixture of several."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import SharesKind, recorded
from weftwork.attention_processors.core.strength import number
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True, eq=False)
class Style(Condition):
    """A style, or a mixture of styles, by name; the other arguments are those of `Condition`.

    Args:
        styles: a name, or shares by name; shares are divided by their sum.

    Raises:
        ValueError: no style, shares that are negative, not finite or sum to 0; and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("style",)

    styles: str | Mapping[str, float] = field(
        metadata=recorded(
            SharesKind(alone=True), "A name, or shares by name, which are divided by their sum.", key="style"
        )
    )

    def __post_init__(self) -> None:
        shares = {self.styles: 1.0} if isinstance(self.styles, str) else dict(self.styles)
        if not shares or not all(isinstance(name, str) and name for name in shares):
            raise UserError(f"styles: got {self.styles!r}, expected a name or shares by name")
        for name, share in shares.items():
            value = number(share)
            if value is None or not (math.isfinite(value) and value >= 0):
                raise UserError(
                    f"styles: got a share of {share!r} for {name!r}, expected a finite number of at least 0"
                )
            shares[name] = value
        total = sum(shares.values())
        if total == 0:
            raise UserError("styles: got shares that sum to 0; give one more than 0, or weight=0 to turn the style off")
        super().__post_init__()
        object.__setattr__(self, "styles", {name: share / total for name, share in shares.items()})

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares by name, which sum to 1."""
        assert not isinstance(self.styles, str)
        return self.styles
