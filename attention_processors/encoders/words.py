"""Positions of words of a prompt among the keys that a denoiser's layers read, from the offsets of its tokenizers."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from diffusers import DiffusionPipeline

from weftwork.attention_processors.core.spans import Span
from weftwork.datasets.readers.errors import UserError

IMAGE_TOKENS = "image_pad"
"""Part of templates in which tokens of images stand before the prompt."""


@dataclass(frozen=True, eq=False)
class PromptWords:
    """Words of a pipeline's prompts as the tokens that its denoiser reads.

    Args:
        tokenizers: of the encoders whose tokens stand one after another, each padded to its maximum.
        expand: replaces the tokens of textual inversion by all of their vectors, for a tokenizer.
        template: text around the prompt; `dropped` is the number of its first tokens that are no keys.
    """

    tokenizers: Sequence[Any] = ()
    expand: Callable[[str, Any], str] | None = None
    template: str = "{}"
    dropped: int = 0

    @classmethod
    def of(cls, pipe: DiffusionPipeline, components: Sequence[str]) -> "PromptWords":
        """Returns the tokens of a pipeline's prompts; none without `components`, or where they are not known."""
        found = [one for one in (getattr(pipe, name, None) for name in components) if one is not None]
        template = getattr(pipe, "prompt_template_encode", "{}")
        if not isinstance(template, str) or IMAGE_TOKENS in template:
            return NO_WORDS
        dropped = getattr(pipe, "prompt_template_encode_start_idx", 0)
        return cls(found, getattr(pipe, "maybe_convert_prompt", None), template, dropped)

    @property
    def begins(self) -> bool:
        """Whether a token without a word, as CLIP's, stands in front of the first word."""
        ids = self.tokenizers[0]("").input_ids if self.tokenizers else []
        return ids[:1] == [getattr(self.tokenizers[0], "bos_token_id", None)] if ids else False

    def pieces(self, prompt: str) -> list[str]:
        """Returns the texts of the keys of a prompt, without padding at their end; none where they are not known."""
        found: list[str] = []
        for index, tokenizer in enumerate(self.tokenizers):
            text = self.template.format(prompt if self.expand is None else self.expand(prompt, tokenizer))
            own = tokenizer(text).input_ids[self.dropped :][: tokenizer.model_max_length]
            found += [tokenizer.decode([one]).strip() for one in own]
            if index + 1 < len(self.tokenizers):
                found += ["padding"] * (tokenizer.model_max_length - len(own))
        return found

    def spans(self, prompt: str | None, words: str, instead: str = "tokens=(first, end)") -> list[Span]:
        """Returns the spans of words among the keys, one per tokenizer.

        Args:
            prompt: None where the pipeline got prompt embeddings.
            instead: the argument with positions that can be passed instead, for errors.

        Raises:
            ValueError: no prompt, words that it does not have, or has several times; tokenizers without offsets.
        """
        if prompt is None:
            raise UserError(
                f"words: got {words!r} without a prompt to find them in, expected one in the pipeline's call; pass a "
                f"prompt, or {instead} beside prompt embeddings"
            )
        if not all(getattr(tokenizer, "is_fast", False) for tokenizer in self.tokenizers) or not self.tokenizers:
            raise UserError(
                f"words: got {words!r} for a pipeline whose tokens of the prompt have no known positions; pass "
                f"{instead}, by position among the prompt's embeddings"
            )
        found, before = [], 0
        for tokenizer in self.tokenizers:
            text = self.template.format(prompt if self.expand is None else self.expand(prompt, tokenizer))
            begin, end = place_of(words, text, prompt)
            offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
            inside = [i for i, (left, right) in enumerate(offsets) if left < right and left < end and right > begin]
            found.append((inside[0] - self.dropped + before, inside[-1] + 1 - self.dropped + before))
            before += tokenizer.model_max_length
        return found


NO_WORDS: Final = PromptWords()
"""Where the tokens of prompts are not known."""


def place_of(words: str, text: str, prompt: str) -> Span:
    """Returns begin and end of words in a text that has the prompt; `ValueError` for none, or several such places."""
    pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, words.split())) + r"(?!\w)"
    start = text.find(prompt)
    places = [one.span() for one in re.finditer(pattern, text, re.IGNORECASE) if one.start() >= start]
    if not places:
        own = ", ".join(dict.fromkeys(re.findall(r"\w[\w'-]*", prompt)))
        raise UserError(f"words: got {words!r}, expected words of the prompt, which are {own}; use some of them")
    if len(places) > 1:
        raise UserError(
            f"words: got {words!r}, which the prompt has {len(places)} times, expected a single place; add the words "
            "beside it"
        )
    return places[0]
