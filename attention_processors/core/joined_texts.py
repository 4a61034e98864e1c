"""Conditions whose texts stand behind the pipeline's prompt, since they run through all layers of a transformer."""

from abc import abstractmethod
from collections.abc import Sequence

from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.spans import Span
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.datasets.readers.errors import UserError

Places = Sequence[Sequence[Sequence[Span]]]
"""Spans of texts among the tokens of a prompt, by design and text."""


class EncodedTexts(Encoded):
    """Encoded conditions with texts that a pipeline encodes as its prompt, and joins to it."""

    @property
    @abstractmethod
    def texts(self) -> Sequence[Sequence[str]]:
        """Texts by design, as many of each; "" for none."""

    @abstractmethod
    def placed(self, places: Places, *, hidden: bool) -> Encoded:
        """Returns the conditions on the tokens of their texts.

        Args:
            hidden: whether the denoiser does not see what a negative prompt has in their places.
        """

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        raise UserError(
            f"prompt: got {self.texts[0][0]!r} for a transformer, where a text is a part of the prompt, and no call of "
            "encode_prompt to join it to; call a pipeline that has one within conditions(pipe, …), or pass "
            "joined_prompts of the prompt and the text as prompt_embeds, and RegionalPrompt(tokens=span) with the "
            "spans that it returns (docs/regional.md)"
        )
