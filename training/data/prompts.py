"""Prompt embeddings for training, as the pipeline makes them, with the added conditions of XL models."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedTokenizerBase

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.text_length import text_length
from weftwork.training.core.denoisers import DenoiserCall, Embeds, Rows, call_of, denoiser_of
from weftwork.training.data.feature_cache import FeatureCache

T = TypeVar("T")


def with_prompts(prompts: Sequence[str], shown: Sequence[tuple[str, T]]) -> list[tuple[str, T]]:
    """Replaces the prompts of validation samples; the shorter of the two lists is repeated."""
    count = max(len(prompts), len(shown)) if shown else 0
    return [(prompts[i % len(prompts)], shown[i % len(shown)][1]) for i in range(count)]


class Tokens(Protocol):
    """Counts the tokens of texts."""

    @property
    def longest(self) -> int: ...
    def count(self, text: str) -> int: ...


@dataclass(frozen=True)
class PromptTokens:
    """Counts the tokens of prompts, begin and end included; `longest` is the most that a pipeline reads."""

    tokenizer: PreTrainedTokenizerBase
    longest: int

    @classmethod
    def of(cls, pipe: DiffusionPipeline, length: int | None = None) -> "PromptTokens":
        """Counts for a pipeline whose transformer reads `length` tokens; None for that of its family's pipelines."""
        call = call_of(denoiser_of(pipe))
        tokenizer = next(one for name in call.tokenizers if (one := getattr(pipe, name, None)) is not None)
        return cls(tokenizer, min(tokenizer.model_max_length, length or call.length or tokenizer.model_max_length))

    def count(self, text: str) -> int:
        return len(self.tokenizer(text).input_ids)


def check_lengths(texts: Iterable[tuple[str, str, Tokens, int]]) -> None:
    """Raises if texts have more tokens than are read.

    Args:
        texts: source, text, what counts its tokens, and the maximal number of each, begin and end tokens included.

    Raises:
        ValueError: some texts are too long; all of them are listed.
    """
    long = [
        f"  {place}: {text[:40]!r} has {count - 2} tokens, expected at most {most - 2}"
        for place, text, tokens, most in texts
        if (count := tokens.count(text)) > most
    ]
    if long:
        raise UserError("\n".join([f"texts: got {len(long)} that are too long; shorten these:", *long]))


class Prompts:
    """Encodes captions as the pipeline of the backbone encodes prompts.

    Args:
        length: number of tokens that transformers read; None for as many as in generation.
        cache: of prompt embeddings.
    """

    def __init__(
        self, pipe: DiffusionPipeline, call: DenoiserCall, length: int | None = None, cache: FeatureCache | None = None
    ) -> None:
        self.pipe, self.call, self.cache = pipe, call, cache
        self.length = length or text_length(pipe).get("max_sequence_length", call.length)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], size: tuple[int, int]) -> Embeds:
        """Encodes captions as arguments of the denoiser, one row each.

        Args:
            size: height and width of the images, in pixels: original and target size of XL models, without crops.
        """
        embeds = dict(self.call.batch(self._rows(captions)))
        if (pooled := embeds.pop("text_embeds", None)) is not None:
            sizes = pooled.new_tensor([[*size, 0, 0, *size]] * len(captions))
            embeds["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
        return embeds

    def _rows(self, captions: Sequence[str]) -> Rows:
        def encode(given: list[str]) -> Rows:
            return self.call.encode(self.pipe, given, self.length)

        if self.cache is None:
            return encode(list(captions))
        found = self.cache.found(captions, lambda caption: f"prompt {self.length} {caption}".encode(), encode)
        device = self.pipe._execution_device
        return {name: [row[name].to(device) for row in found] for name in found[0]}
