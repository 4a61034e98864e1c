"""The condition of a style: one by name, or a mixture of several."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import SharesKind, recorded
from weftwork.attention_processors.core.shares import checked_shares


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
        shares = checked_shares("styles", self.styles)
        super().__post_init__()
        object.__setattr__(self, "styles", shares)

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares by name, which sum to 1."""
        assert not isinstance(self.styles, str)
        return self.styles
