"""Words of the prompt that the image has to show, as conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, cast

from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.records import NumberKind, TextKind, recorded
from weftwork.attention_processors.core.spans import Span, checked_spans
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.texts import check_characters


@dataclass(frozen=True, eq=False)
class Attend(Condition):
    """Words of the prompt that some place of the image has to attend to.

    The other arguments are those of `Condition`. `cfg` has no effect: both halves of guidance denoise the same latents.

    Args:
        words: words of the prompt, as they stand there.
        tokens: instead, (first, end) of their tokens among the prompt's, or several such spans.
        weight: factor on the loss.
        region: where the place has to be.
        end: share of the steps behind which the latents are left alone; half of them by default, as published.

    Raises:
        ValueError: words and tokens or neither, empty words, spans that are not 0 <= first < end, or factors of layers;
            and as for `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("words",)
    has_maps: ClassVar[bool] = False
    refused: ClassVar[Mapping[str, str]] = {
        "layers": "got factors, which have no effect here; choose layers for the adapter, "
        "AttentionControlAdapter.for_denoiser(denoiser, layers=…)"
    }

    words: str | None = field(
        default=None, metadata=recorded(TextKind(), "Words of the prompt that the image has to show.")
    )
    _: KW_ONLY
    tokens: Span | Sequence[Span] | None = None
    end: float = field(
        default=0.5, metadata=recorded(NumberKind(maximum=1), "Share of the steps where it ends; 0.5 by default.")
    )

    @property
    def spans(self) -> tuple[Span, ...]:
        """Spans of the tokens; none for words."""
        return cast(tuple[Span, ...], self.tokens or ())  # checked on construction

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.words is None) == (self.tokens is None):
            raise UserError(
                f"words: got {self.words!r} and tokens {self.tokens!r}, expected one of both; pass words or tokens"
            )
        if self.tokens is not None:
            object.__setattr__(self, "tokens", checked_spans(self.tokens))
        elif not isinstance(self.words, str) or not self.words.strip():
            raise UserError(f"words: got {self.words!r}, expected words of the prompt; name what has to be shown")
        else:
            check_characters(self.words)
