"""Attention to the image tokens of another call of the denoiser (reference-only attention).

`Capture` keeps the keys and values of a layer's image tokens, as the layer attends with them: projected, normalised and
rotated. In a later call, `ReadCaptured` lets its image queries attend to them beside the layer's own keys:

    softmax([Q K^T, Q K_r^T + log(a_r)] / sqrt(d)) [V, V_r],   exactly the stock output where all a_r are 0

The bias is added to the scaled logits; a_r is the strength of reference r at the query's place.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention, check_places, conditional_half
from weftwork.attention_processors.core.key_bias import ABSENT
from weftwork.attention_processors.core.strength import ImageTokens


@dataclass(eq=False)
class Captured:
    """Keys and values of a layer's image tokens, [row, token, head, dim] each; None where there are none to read."""

    tokens: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Capture(Branch):
    """Branch that keeps the keys and values of a layer's image tokens.

    Args:
        image: place of the image's tokens; None if all queries are the image's.
    """

    linear = True

    captured: Captured
    image: ImageTokens | None = None

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        begin, end = (0, query.shape[1]) if self.image is None else self.image.span(query.shape[1])
        self.captured.tokens = own.key[:, begin:end], own.value[:, begin:end]
        return out


@dataclass(frozen=True, eq=False)
class ReadCaptured(Branch):
    """Branch with which image queries attend to captured tokens beside the layer's own keys.

    Args:
        captured: tokens of the parts, one after another, equally many each.
        log_strength: by part, `core.key_bias.ABSENT` where it is not read.
        image: place of the image's tokens; None if all queries are the image's.
        conditional: index of the conditional half of the rows, where a batch has both.
    """

    linear = True

    captured: Captured
    log_strength: Float[Tensor, "row place part"]
    image: ImageTokens | None = None
    conditional: int | None = None

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        if self.captured.tokens is None:
            if bool((self.log_strength > ABSENT).any()):
                raise RuntimeError("captured: got no keys of references, expected a pass over them before this call")
            return out
        (key, value), queries = self.captured.tokens, query.shape[1]
        begin, end = (0, queries) if self.image is None else self.image.span(queries)
        check_places(self.log_strength.shape[1], end - begin)
        rows, _, parts = self.log_strength.shape
        strength, count = self.log_strength.expand(rows, end - begin, parts), key.shape[1]
        members = torch.eye(parts, device=key.device).repeat_interleave(count // parts, 0).expand(rows, -1, -1)
        own = own.of_queries(begin, end)
        biases = [(places, F.pad(keys, (0, 0, 0, count))) for places, keys in own.biases]
        biases.append((strength, F.pad(members, (0, 0, own.key.shape[1], 0))))
        mask = own.mask
        if mask is not None:  # captured tokens are visible
            mask = F.pad(mask, (0, count), value=float(mask.dtype == torch.bool))
        keys, values = torch.cat([own.key, key], 1), torch.cat([own.value, value], 1)
        read = attend(query[:, begin:end], keys, values, mask, biases)
        acts = (strength > ABSENT).any(-1)[:, :, None, None]
        mixed = torch.where(acts, out[:, begin:end] + (read - own.out), out[:, begin:end])
        # Copies have other strides, at which the projection of the output rounds differently.
        return mixed if (begin, end) == (0, queries) else torch.cat([out[:, :begin], mixed, out[:, end:]], 1)

    def rows(self, count: int) -> "ReadCaptured":
        if self.log_strength.shape[0] == count:
            return self
        half = conditional_half(self.log_strength.shape[0], count, self.conditional)
        return replace(self, log_strength=self.log_strength[half], conditional=None)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "ReadCaptured":
        return replace(self, log_strength=self.log_strength.to(device))
