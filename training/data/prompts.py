"""What a denoiser is told of captions, as its own pipeline tells it: states, and what XL models have beside them."""

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
class Prompted:
    """Args:
    states: the context of cross-attention.
    added: XL models' `text_embeds` and `time_ids`; empty for others.
    """

    states: Float[Tensor, "design token dim"]
    added: Mapping[str, Tensor]

    def to(self, device: torch.device) -> "Prompted":
        return Prompted(self.states.to(device), {name: value.to(device) for name, value in self.added.items()})


def with_prompts(prompts: Sequence[str], shown: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What validation draws, with prompts of one's own; the shorter of both begins again."""
    count = max(len(prompts), len(shown)) if shown else 0
    return [(prompts[i % len(prompts)], shown[i % len(shown)][1]) for i in range(count)]


def check_lengths(texts: Iterable[tuple[str, str, int]], encoders: TextEncoders) -> None:
    """Raise unless the encoders read all texts to their end.

    Args:
        texts: where each is from, the text, and how many tokens it may have, beginning and end among them.

    Raises:
        ValueError: some are longer; lists all of them.
    """
    long = [
        f"  {place}: {text[:40]!r} has {count - 2} tokens, expected at most {most - 2}"
        for place, text, most in texts
        if (count := encoders.count(text)) > most
    ]
    if long:
        raise UserError("\n".join([f"texts: got {len(long)} that are too long; shorten these:", *long]))


class Prompts:
    """Captions of a pipeline's training.

    Args:
        text: the pipeline's text encoders.
        cache: where XL pipelines' states are kept; the encoders of others keep their own.
    """

    def __init__(self, pipe: Any, text: TextEncoders, cache: FeatureCache | None = None) -> None:
        self.pipe, self.text, self.cache = pipe, text, cache
        self.extra = getattr(pipe, "text_encoder_2", None) is not None

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], size: tuple[int, int]) -> Prompted:
        """Args:
        size: height and width of the pictures, in pixels; XL models are told that they are whole.
        """
        if not self.extra:
            return Prompted(self.text.tokens(captions, self.text.tokenizers[0].model_max_length)[0], {})
        rows = self._rows(captions)
        if self.pipe.config.force_zeros_for_empty_prompt:  # as in the unconditional half of guidance
            said = torch.tensor([bool(caption) for caption in captions])
            rows = {name: values * said.view(-1, *[1] * (values.ndim - 1)).to(values) for name, values in rows.items()}
        sizes = torch.tensor([[*size, 0, 0, *size]] * len(captions), dtype=rows["pooled"].dtype)
        return Prompted(rows["states"], {"text_embeds": rows["pooled"], "time_ids": sizes.to(rows["pooled"].device)})

    def _rows(self, captions: Sequence[str]) -> Rows:
        def encode(places: list[int]) -> Rows:
            given = [captions[place] for place in places]
            states, _, pooled, _ = self.pipe.encode_prompt(given, do_classifier_free_guidance=False)
            return {"states": states, "pooled": pooled}

        if self.cache is None:
            return encode(list(range(len(captions))))
        made = self.cache.rows([f"prompt {caption}".encode() for caption in captions], encode)
        return {name: values.to(self.pipe._execution_device) for name, values in made.items()}
