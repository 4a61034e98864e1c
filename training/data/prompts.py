"""Prompt embeddings for training, as the pipeline makes them, with the added conditions of XL models."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.encoders import TextEncoders
from weftwork.datasets.readers.errors import UserError
from weftwork.training.data.feature_cache import FeatureCache, Rows


@dataclass(frozen=True)
class PromptEmbeds:
    """Prompt embeddings of a batch.

    Args:
        states: context of cross-attention.
        added: XL models' `text_embeds` and `time_ids`; empty for others.
    """

    states: Float[Tensor, "design token dim"]
    added: Mapping[str, Tensor]

    def to(self, device: torch.device) -> "PromptEmbeds":
        return PromptEmbeds(self.states.to(device), {name: value.to(device) for name, value in self.added.items()})


def with_prompts(prompts: Sequence[str], shown: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Replaces the prompts of validation samples; the shorter of the two lists is repeated."""
    count = max(len(prompts), len(shown)) if shown else 0
    return [(prompts[i % len(prompts)], shown[i % len(shown)][1]) for i in range(count)]


def check_lengths(texts: Iterable[tuple[str, str, int]], encoders: TextEncoders) -> None:
    """Raises if texts have more tokens than the encoders read.

    Args:
        texts: source, text and maximal number of tokens of each, begin and end tokens included.

    Raises:
        ValueError: some texts are too long; all of them are listed.
    """
    long = [
        f"  {place}: {text[:40]!r} has {count - 2} tokens, expected at most {most - 2}"
        for place, text, most in texts
        if (count := encoders.count(text)) > most
    ]
    if long:
        raise UserError("\n".join([f"texts: got {len(long)} that are too long; shorten these:", *long]))


class Prompts:
    """Encodes captions with a pipeline's text encoders.

    Args:
        text: the pipeline's text encoders.
        cache: of XL pipelines' embeddings; the text encoders of other pipelines have their own.
    """

    def __init__(self, pipe: Any, text: TextEncoders, cache: FeatureCache | None = None) -> None:
        self.pipe, self.text, self.cache = pipe, text, cache
        self.extra = getattr(pipe, "text_encoder_2", None) is not None

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], size: tuple[int, int]) -> PromptEmbeds:
        """Encodes captions, one row each.

        Args:
            size: height and width of the images, in pixels: original and target size of XL models, without crops.
        """
        if not self.extra:
            return PromptEmbeds(self.text.tokens(captions, self.text.tokenizers[0].model_max_length)[0], {})
        rows = self._rows(captions)
        if self.pipe.config.force_zeros_for_empty_prompt:  # as the negative prompt of guidance
            filled = torch.tensor([bool(caption) for caption in captions])
            rows = {
                name: values * filled.view(-1, *[1] * (values.ndim - 1)).to(values) for name, values in rows.items()
            }
        sizes = torch.tensor([[*size, 0, 0, *size]] * len(captions), dtype=rows["pooled"].dtype)
        return PromptEmbeds(
            rows["states"], {"text_embeds": rows["pooled"], "time_ids": sizes.to(rows["pooled"].device)}
        )

    def _rows(self, captions: Sequence[str]) -> Rows:
        def encode(places: list[int]) -> Rows:
            given = [captions[place] for place in places]
            states, _, pooled, _ = self.pipe.encode_prompt(given, do_classifier_free_guidance=False)
            return {"states": states, "pooled": pooled}

        if self.cache is None:
            return encode(list(range(len(captions))))
        made = self.cache.rows([f"prompt {caption}".encode() for caption in captions], encode)
        return {name: values.to(self.pipe._execution_device) for name, values in made.items()}
