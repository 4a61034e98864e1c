"""Subjects' tokens, fused with the features of their images in the prompt embeddings that a denoiser gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Branch, conditional_half
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.families import call_arguments
from weftwork.attention_processors.core.grids import Given, Positional
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.core.spans import check_tokens
from weftwork.attention_processors.core.strength import Arguments, Layout, Schedule, Strength
from weftwork.attention_processors.encoders.words import PromptWords
from weftwork.attention_processors.subjects.conditions import Subject
from weftwork.datasets.readers.errors import UserError

Fuse = Callable[[Tensor, Tensor], Tensor]
"""Prompt embeddings and image features, [row, part, spot, dim] each, to prompt embeddings."""
NOWHERE = -1
"""Position of a token that is not there."""
PROMPT_EMBEDS = "encoder_hidden_states", "cap_feats"
"""Names of prompt embeddings among the arguments of denoisers."""


@dataclass(frozen=True)
class EncodedSubjects(Encoded):
    """Subjects whose tokens are fused when the prompt embeddings are known, in the first call of the denoiser."""

    fuse: Fuse
    embeds: Float[Tensor, "design part dim"]
    weight: Float[Tensor, "design part"]
    schedules: Sequence[Sequence[Schedule]]
    subjects: tuple[tuple[Subject, ...], ...]
    prompt: PromptWords

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        weight = layout.expand(self.weight.float(), torch.zeros_like(self.weight, dtype=torch.float32))
        return {}, (FusedTokens(self, weight, layout),) if bool(weight.any()) else ()

    def tokens(self, prompts: Sequence[str]) -> Int[Tensor, "design part spot"]:
        """Returns the positions of each subject's tokens, one per text encoder; `NOWHERE` for absent ones.

        Raises:
            ValueError: words that the prompt does not have, or two subjects at one token.
        """
        found = []
        for design, (row, weights) in enumerate(zip(self.subjects, self.weight.tolist(), strict=True)):
            pairs = zip(row, weights, strict=True)
            found.append([self._tokens(one, design, prompts) if weight > 0 else [] for one, weight in pairs])
            taken = [spot for spots in found[-1] for spot in spots]
            if len(set(taken)) < len(taken):
                raise UserError(f"text: got two subjects at token {max(taken)}, expected one; give each its own words")
        most = max(1, *(len(spots) for row in found for spots in row))
        table = [[[*spots, *[NOWHERE] * (most - len(spots))] for spots in row] for row in found]
        return torch.tensor(table, device=self.weight.device)

    def _tokens(self, subject: Subject, design: int, prompts: Sequence[str]) -> list[int]:
        if subject.text is None:
            return [NOWHERE if subject.token is None else subject.token]
        own = prompts[design % len(prompts)] if prompts else None
        return [end - 1 for _, end in self.prompt.spans(own, subject.text, instead="token=")]


class FusedTokens(Strength):
    """Strengths of subjects, which change the prompt embeddings that a call of the denoiser gets."""

    def __init__(self, encoded: EncodedSubjects, weight: Float[Tensor, "row part"], layout: Layout) -> None:
        none = torch.zeros(len(weight), 0, dtype=torch.bool, device=weight.device)
        schedules = [row for row in encoded.schedules for _ in range(layout.repeat)] * len(layout.halves)
        super().__init__(weight, schedules, none[0].long(), none)
        self.fuse, self.conditional = encoded.fuse, layout.conditional
        self.embeds, self.token = layout.expand(encoded.embeds), layout.expand(encoded.tokens(layout.prompts))
        self.known: tuple[object, Tensor] | None = None
        """Prompt embeddings of a call, and its fused tokens: pipelines pass the same ones at all steps."""
        self.on_call = self.changed

    def changed(self, conditioning: object, denoiser: nn.Module, args: Positional, kwargs: Given) -> Arguments | None:
        """Returns the arguments of a call with fused tokens in the prompt embeddings.

        Raises:
            ValueError: a denoiser whose prompt embeddings are not known, or tokens behind the last of these.
        """
        if not bool(self.acting.any()):
            return None
        given = dict(call_arguments(denoiser, args, kwargs))
        name = next((one for one in PROMPT_EMBEDS if given.get(one) is not None), None)
        states = given.get(name or "")
        if isinstance(states, list):  # one tensor for each row
            fused = self._fused(nn.utils.rnn.pad_sequence(states, batch_first=True), states)
            given[name or ""] = [row[: len(one)] for row, one in zip(fused, states, strict=True)]
        elif isinstance(states, Tensor) and states.ndim in (3, 4):
            given[name or ""] = self._fused(states, states)
        else:
            raise UserError(
                f"subjects: got {type(unwrapped(denoiser)).__name__}, whose prompt embeddings are not known; use a "
                f"denoiser that gets some as {' or '.join(PROMPT_EMBEDS)}"
            )
        return (), given

    def _fused(
        self, embeds: Float[Tensor, "row token *layer dim"], key: object
    ) -> Float[Tensor, "row token *layer dim"]:
        """Returns the prompt embeddings with fused tokens; where the denoiser reads several layers, each is fused."""
        states, (rows, count) = embeds.flatten(2), embeds.shape[:2]
        half = slice(None)
        if rows != len(self.weight):
            half = conditional_half(len(self.weight), rows, self.conditional)
        token, gain = self.token[half], self._active[half, :, None, None]
        check_tokens(int(token.max()) + 1, count)
        shape = *token.shape, states.shape[-1]
        padded = torch.cat([states, states[:, :1]], 1)  # absent parts write to the last
        place = torch.where(token < 0, count, token).flatten(1)[..., None].expand(-1, -1, shape[-1])
        text = padded.gather(1, place).view(shape)
        if self.known is None or self.known[0] is not key:
            by_layer = text.view(*token.shape, -1, embeds.shape[-1])
            images = self.embeds[half, :, None, None].expand(*by_layer.shape[:-1], -1)
            self.known = key, self.fuse(by_layer, images).view(shape)
        fused = self.known[1].to(text)
        mixed = torch.where(gain == 0, text, torch.lerp(text, fused, gain.to(text)))
        return padded.scatter(1, place, mixed.flatten(1, 2))[:, :count].reshape(embeds.shape).contiguous()
