"""Texts of conditions that a pipeline encodes as it does its prompt, and joins to it.

`encode_prompt` encodes the prompt and each text alone. The tokens of the texts stand behind those of the prompt; where
the denoiser reads a mask, what it hides comes last, or first if the encoder pads there, so that there are more tokens
only if the texts need them. Pooled embeddings and negative prompts are those of the prompt alone. What is joined is
passed as prompt embeddings, so that `encode_prompt` itself makes all that depends on the number of tokens, such as
positions.
"""

import inspect
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.grids import Given
from weftwork.attention_processors.core.joined_texts import EncodedTexts
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.core.spans import Span
from weftwork.datasets.readers.errors import UserError

EMBEDS: Final = "prompt_embeds"
POOLED: Final = "pooled_prompt_embeds"
MASKS: Final = ("prompt_attention_mask", "prompt_embeds_mask")
OF_PROMPTS: Final = frozenset({"prompt", "prompt_2", "prompt_3", EMBEDS, POOLED, *MASKS})
HIDING: Final = frozenset({"encoder_attention_mask", "encoder_hidden_states_mask", "text_embedding_mask", "cap_feats"})
"""Arguments of denoisers that hide padding, or leave it out. Chroma adds its `attention_mask` to the logits, as 1."""
Found = dict[str, Any]
"""What `encode_prompt` returns, by the names of the arguments that give it back."""


class JoinedTexts:
    """Joins the texts of conditions to the prompts of each run of a pipeline.

    Args:
        encoded: encoded conditions by adapter name, of which those with texts count.
    """

    def __init__(self, pipe: DiffusionPipeline, denoiser: nn.Module, encoded: Mapping[str, Encoded]) -> None:
        self.encode: Any = getattr(pipe, "encode_prompt", None)
        self.names = set(inspect.signature(self.encode).parameters) if self.encode else set()
        self.mask = next((name for name in MASKS if name in self.names), "")
        self.denoiser, self.family = unwrapped(denoiser), family_of(denoiser)
        self.hides = not HIDING.isdisjoint(inspect.signature(type(self.denoiser).forward).parameters)
        """Whether the denoiser does not see the tokens that masks hide."""
        self.texts = {name: one.texts for name, one in encoded.items() if isinstance(one, EncodedTexts)}
        self.places: list[list[list[Span]]] = []
        """Spans by design and text, those of all adapters one after another."""
        self.tokens = 0
        """Number of tokens of the encoders that were called in this run."""
        self.left = False
        """Whether padding stands in front of the tokens."""
        connectors: Any = getattr(pipe, "connectors", None) or nn.Module()
        self.to_front = any("learnable_registers" in name for name, _ in connectors.named_parameters())
        """Whether the pipeline moves tokens in front of padding."""

    def placed(self, name: str, one: Encoded) -> Encoded:
        """Returns the conditions of an adapter on the tokens of their texts; unchanged before a prompt is encoded."""
        if not isinstance(one, EncodedTexts) or not self.places:
            return one
        counts = {adapter: len(texts[0]) for adapter, texts in self.texts.items()}
        first = sum(list(counts.values())[: list(counts).index(name)])
        return one.placed([row[first : first + counts[name]] for row in self.places], hidden=self.hides)

    def arguments(self, given: Given) -> dict[str, Any]:
        """Returns the arguments of a call of `encode_prompt` with the texts joined to its prompts.

        Raises:
            ValueError: an `encode_prompt` that takes no prompt embeddings, prompts of several lengths for one list of
                texts, or more tokens than a denoiser with a fixed number of them reads.
        """
        if EMBEDS not in self.names:
            raise UserError(
                f"prompt: got a text for {type(self.denoiser).__name__}, whose pipeline takes no prompt_embeds; pass "
                "RegionalPrompt(tokens=span) with tokens of the prompt (docs/regional.md)"
            )
        own, prompt = self._read(given), given.get("prompt")
        prompts = [prompt] if isinstance(prompt, str) else prompt
        count = len(given[EMBEDS] if prompts is None else prompts)
        texts = self._texts(count)
        every = [own, *(self._read(self._of_texts(given, one)) for one in texts)]
        parts = [self._rows(own), *map(self._rows, every[1:], texts)]
        if not given.get("text_encoder_index"):
            self.places, self.tokens = [], 0
        before = self.tokens
        own[EMBEDS], mask = self._joined(parts, every)
        self._place(parts, before)
        own |= {} if mask is None else {self.mask: mask}
        images = len(parts[0]) // count
        once = {"prompt": None if prompts is None else [one for one in prompts for _ in range(images)]}
        once |= {name: 1 for name in ("num_images_per_prompt", "num_videos_per_prompt") if name in self.names}
        if "max_sequence_length" in self.names:  # Qwen-Image cuts prompt embeddings, too
            once["max_sequence_length"] = max(map(len, own[EMBEDS]))
        return {**_without_prompts(given), **once, **own}

    def _texts(self, count: int) -> list[list[str]]:
        """Returns the texts by part and prompt."""
        designs = [[text for one in rows for text in one] for rows in zip(*self.texts.values(), strict=True)]
        return [list(one) for one in zip(*(designs[i * len(designs) // count] for i in range(count)), strict=True)]

    def _of_texts(self, given: Given, texts: Sequence[str]) -> dict[str, Any]:
        """Returns the arguments of a call that encodes texts in the place of prompts."""
        unguided = {"do_classifier_free_guidance": False} if "do_classifier_free_guidance" in self.names else {}
        return {**_without_prompts(given), "prompt": texts, **unguided}

    def _read(self, given: Given) -> Found:
        found: Found = {}
        result = self.encode(**given)
        for value in result:
            name = self._name(value, len(result[0]))
            name = f"negative_{name}" if name in found else name
            if name in self.names:
                found.setdefault(name, value)
        return found

    def _name(self, value: Any, rows: int) -> str:
        """Returns the argument for one of the things that `encode_prompt` returns; "" for what it makes anew."""
        if isinstance(value, list):
            return EMBEDS if value else ""
        if not isinstance(value, Tensor) or len(value) != rows:
            return ""
        if value.ndim > 2:
            return EMBEDS if value.is_floating_point() else ""
        is_mask = self.mask and (not value.is_floating_point() or bool(((value == 0) | (value == 1)).all()))
        return self.mask if is_mask else POOLED

    def _rows(self, found: Found, texts: Sequence[str] = ()) -> list[Tensor]:
        """Returns the states of each row, [token, …]; where masks hide tokens, without these and those of no text."""
        states, mask = found[EMBEDS], found.get(self.mask)
        if not self.hides:
            return list(states)
        rows = states if mask is None else [row[keep.bool()] for row, keep in zip(states, mask, strict=True)]
        there = (
            [True] * len(rows) if not texts else [bool(texts[i * len(texts) // len(rows)]) for i in range(len(rows))]
        )
        return [row if known else row[:0] for row, known in zip(rows, there, strict=True)]

    def _place(self, parts: Sequence[Sequence[Tensor]], first: int) -> None:
        """Keeps where the texts stand, behind the `first` tokens, which other encoders of this run gave."""
        lengths = [[len(part[row]) for part in parts] for row in range(len(parts[0]))]
        shifted = self.left and not self.to_front
        begins = [self.tokens - sum(row) if shifted else first for row in lengths]
        ends = [accumulate(row, initial=begin) for row, begin in zip(lengths, begins, strict=True)]
        spans = [list(pairwise(row))[1:] for row in ends]
        designs = len(next(iter(self.texts.values())))
        rows = len(spans) // designs
        if any(spans[i] != spans[i // rows * rows] for i in range(len(spans))):
            raise UserError(
                "prompt: got texts behind prompts of several lengths; pass one list of conditions per prompt"
            )
        here = [[[span] for span in spans[i * rows]] for i in range(designs)]
        before = self.places or [[[] for _ in row] for row in here]
        self.places = [[[*a, *b] for a, b in zip(x, y, strict=True)] for x, y in zip(before, here, strict=True)]

    def _joined(self, parts: Sequence[Sequence[Tensor]], every: Sequence[Found]) -> tuple[Any, Tensor | None]:
        """Returns the states of prompts and texts, and their mask; pads those of negative prompts in the same batch."""
        own, rows = every[0], [torch.cat(list(row)) for row in zip(*parts, strict=True)]
        if isinstance(own[EMBEDS], list):
            return rows, None
        masks = [one[self.mask] for one in every if one.get(self.mask) is not None]
        had = own[EMBEDS].shape[1]
        tokens = max(had if masks else 0, *map(len, rows))
        self.left = self.hides and any(bool((one[:, 0] < one[:, -1]).any()) for one in masks)
        if tokens > had and self.family.fixed_text(self.denoiser):
            raise UserError(
                f"prompt: got texts that make {tokens} tokens with the prompt, expected at most {had} for this "
                f"{type(self.denoiser).__name__}; shorten them, or pass RegionalPrompt(tokens=span) with tokens of the "
                "prompt"
            )
        self.tokens += tokens
        if self.family.guidance.startswith("one batch"):
            for name in (f"negative_{EMBEDS}", f"negative_{self.mask}"):
                own |= {name: _longer(own[name], tokens, self.left)} if name in own else {}
        mask = None
        if masks and self.hides:
            lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
            mask = (torch.arange(tokens, device=lengths.device) < lengths[:, None]).to(masks[0].dtype)
            mask = mask.flip(1) if self.left else mask
        elif masks:
            mask = torch.cat(masks, 1)
        return torch.cat([_longer(row[None], tokens, self.left) for row in rows]), mask


def _without_prompts(given: Given) -> dict[str, Any]:
    """Returns arguments of `encode_prompt` with None for prompts and what is made of them."""
    return {
        name: None if name in OF_PROMPTS or name.startswith("negative_") else value for name, value in given.items()
    }


def _longer(value: Tensor, tokens: int, left: bool) -> Tensor:
    """Fills the second axis with zeros, behind what is there or, with `left`, in front of it."""
    more = max(0, tokens - value.shape[1])
    return F.pad(value, (0, 0) * (value.ndim - 2) + ((more, 0) if left else (0, more)))
