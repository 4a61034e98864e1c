"""Maps of the text tokens that places of an image attend to, with the graph that a loss on them needs.

For image queries Q and the text's keys K, also of layers in which both streams attend to both:

    softmax(Q K^T / sqrt(d) + bias),   mean over heads, [row, place, token]

Its sum over the text's tokens is 1 at each place, whatever else the layer attends to.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.biases import additive
from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention, text_keys
from weftwork.attention_processors.core.strength import ImageTokens


@dataclass(frozen=True, eq=False)
class KeepTextMap(Branch):
    """Branch that keeps the map of a layer, as the last of its branches, and changes nothing.

    Args:
        kept: maps by layer.
        image: place of the image's tokens; None if all queries are the image's.
    """

    layer: str
    kept: dict[str, Float[Tensor, "row place token"]]
    image: ImageTokens | None = None

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        begin, end = (0, query.shape[1]) if self.image is None else self.image.span(query.shape[1])
        first, last = text_keys(self.image, query.shape[1], own.key.shape[1])
        logits = own_logits(query[:, begin:end], own.of_queries(begin, end), first, last)
        self.kept[self.layer] = logits.softmax(-1).mean(1)
        return out


def own_logits(
    query: Float[Tensor, "row place head dim"], own: OwnAttention, first: int, last: int
) -> Float[Tensor, "row head place key"]:
    """Returns the logits of a layer's own attention from `first` to the key before `last`, in float32.

    Args:
        own: of these queries.
    """
    queries, keys = (x.float().transpose(1, 2) for x in (query, own.key[:, first:last]))
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
    logits = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    for of_places, of_keys in own.biases:
        logits = logits + (of_places @ of_keys[:, first:last].transpose(1, 2)).unsqueeze(1)
    if own.mask is not None:
        logits = logits + additive(own.mask[..., first:last], logits.dtype)
    return logits
