"""Words of the prompt that the image has to show, as conditions."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from weftwork.attention_processors.core.records import NumberKind, TextKind, recorded
from weftwork.attention_processors.core.spans import SpanCondition


@dataclass(frozen=True, eq=False)
class Attend(SpanCondition):
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
    refused: ClassVar[Mapping[str, str]] = {
        "layers": "got factors, which have no effect here; choose layers for the adapter, "
        "AttentionControlAdapter.for_denoiser(denoiser, layers=…)"
    }

    words: str | None = field(
        default=None, metadata=recorded(TextKind(), "Words of the prompt that the image has to show.")
    )
    _: KW_ONLY
    end: float = field(
        default=0.5, metadata=recorded(NumberKind(maximum=1), "Share of the steps where it ends; 0.5 by default.")
    )
