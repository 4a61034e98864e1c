"""Reference attention: self-attention layers read what was recorded of reference views beside their own tokens.

After MoAI (arXiv 2506.11924). Two taps, as those of `views.instillation`: `RecordInput` records a layer's input,
`ExtendContext` appends it to another pass's. `References` makes both.

Differs on transformers, whose layers rotate keys, fuse projections or have text among their tokens: `KeyReferences`
records keys and values of image tokens, as the reference pass attends with them, and image queries alone read these.
"""

import copy
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention, Project, conditional_half
from weftwork.attention_processors.core.captured import Captured, ReadCaptured
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.families import UNET, family_of
from weftwork.attention_processors.core.layers import select_names
from weftwork.attention_processors.core.strength import ImageTokens, Layout, Strength
from weftwork.attention_processors.views.instillation import Taps, missing, span
from weftwork.datasets.readers.errors import UserError

InputStore = MutableMapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class RecordInput(Branch):
    """Branch that records a self-attention layer's input, [row, token, dim], by the layer's name."""

    layer: str
    store: InputStore
    kept_as: torch.dtype | None = None

    def read(self, hidden_states: Tensor) -> None:
        self.store[self.layer] = hidden_states.to(self.kept_as or hidden_states.dtype)


@dataclass(frozen=True, eq=False)
class ExtendContext(Branch):
    """Branch that appends recorded tokens to a self-attention layer's input for keys and values (reference attention).

    Args:
        store: entries of `RecordInput`, by layer, with `views` times as many rows as here, those of a row together.
    """

    layer: str
    store: Mapping[str, Tensor]
    views: int

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, project: Project) -> tuple[Tensor, Tensor, Tensor]:
        more = self.projected(query, project)
        return query, torch.cat([key, more[0]], 1), torch.cat([value, more[1]], 1)

    def projected(self, query: Tensor, project: Project) -> tuple[Tensor, Tensor]:
        """Returns keys and values of the recorded tokens."""
        if self.layer not in self.store:
            raise UserError(missing(self.layer, "input"))
        kept, rows = self.store[self.layer], query.shape[0]
        if kept.shape[0] != rows * self.views:
            raise UserError(
                f"{self.layer}: got references of shape {tuple(kept.shape)}, expected {rows} x {self.views} rows; run "
                "the reference pass with all views of these rows"
            )
        return project(kept.to(query.dtype).reshape(rows, -1, kept.shape[2]))


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadReferences(ReadCaptured):
    """Branch that reads recorded tokens at the strength of their views.

    Args:
        inputs: the recorded tokens, [row, token, dim].
        image_key: the image role's key of the recorded tokens, which replaces the layer's own.
    """

    inputs: Tensor
    image_key: Tensor | None = None

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, project: Project) -> tuple[Tensor, Tensor, Tensor]:
        own, values = project(self.inputs.to(query.dtype))
        self.captured.tokens = own if self.image_key is None else self.image_key, values
        return query, key, value

    def rows(self, count: int) -> "ReadReferences":
        if self.log_strength.shape[0] == count:
            return self
        half = conditional_half(len(self.inputs), count, self.conditional)
        key = None if self.image_key is None else self.image_key[half]
        strength, inputs = self.log_strength[half], self.inputs[half]
        return replace(self, log_strength=strength, inputs=inputs, image_key=key, conditional=None)


@dataclass(frozen=True, eq=False)
class RecordKeys(Branch):
    """Branch that records keys and values of a layer's image tokens, [row, token, 2, head, dim], by its name."""

    linear: ClassVar[bool] = True

    layer: str
    store: InputStore
    image: ImageTokens | None = None

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        place = span(self.image, query)
        self.store[self.layer] = torch.stack([own.key[:, place], own.value[:, place]], 2)
        return out


class References:
    """Reference views for a denoiser: layer inputs of a pass over them extend those of the target's pass.

    Args:
        layers: as in `select_layers`; all self-attentions by default.
        kept_as: precision in which inputs are kept; None is their own. The authors' code keeps them in float16.
    """

    def __init__(self, layers: str | Sequence[str] = "self", *, kept_as: torch.dtype | None = None) -> None:
        self.layers, self.kept_as = layers, kept_as
        self.store: dict[str, Tensor] = {}
        self.read: dict[str, Captured] = {}
        """Their keys and values in layers that read them at a strength, while the denoiser runs."""
        self.image_keys: Mapping[str, Tensor] = {}
        """Keys of the image role, in layers of the geometry role that read these."""

    @staticmethod
    def of(denoiser: nn.Module, layers: str | Sequence[str] = "self") -> "References":
        """Returns empty references for a U-Net or a transformer."""
        return References(layers) if family_of(denoiser) is UNET else KeyReferences(layers)

    def names(self, known: Collection[str], presets: Mapping[str, str] | None = None) -> list[str]:
        """Returns the names of the layers among those of a denoiser; none without any."""
        return select_names(list(known), self.layers, presets) if known else []

    def record(self) -> Taps:
        """Branches for the pass over the references; its rows are [target row, view], views of a row together."""
        return Taps(RecordInput, self.layers, {"store": self.store, "kept_as": self.kept_as})

    def join(self, passes: Sequence[Mapping[str, Tensor]]) -> None:
        """Keeps what passes over one reference per row have recorded, as if of one reference."""
        self.store = {layer: torch.cat([one[layer] for one in passes], 1) for layer in passes[0]}

    def extend(self, views: int) -> Encoded:
        """Branches for passes over the target, with `views` references per row."""
        return Taps(ExtendContext, self.layers, {"store": self.store, "views": views})

    def at_strength(self, layer: str, log_strength: Float[Tensor, "row place part"], layout: Layout) -> ReadCaptured:
        """Returns the branch with which a layer reads joined references at strengths."""
        self.read[layer] = Captured()
        return ReadReferences(
            self.read[layer],
            log_strength,
            layout.tokens,
            layout.conditional,
            inputs=self.store[layer],
            image_key=self.image_keys.get(layer),
        )

    def with_keys_of(self, image: "References", layers: Collection[str], gradient: str) -> Self:
        """Returns references of the geometry role that are read with the image role's keys, after that has run.

        Args:
            gradient: "live" or "detach", whether it reaches the image role.
        """
        made = copy.copy(self)
        keys = {layer: one.tokens[0] for layer, one in image.read.items() if layer in layers and one.tokens}
        made.image_keys = {layer: key if gradient == "live" else key.detach() for layer, key in keys.items()}
        return made


class KeyReferences(References):
    """Reference views for a transformer: keys and values of a pass over them extend those of image queries."""

    def record(self) -> Taps:
        return Taps(RecordKeys, self.layers, {"store": self.store})

    def extend(self, views: int) -> Encoded:
        return AllReferences(self)

    def at_strength(self, layer: str, log_strength: Float[Tensor, "row place part"], layout: Layout) -> ReadCaptured:
        key, value = self.store[layer].unbind(2)
        return ReadCaptured(Captured((key, value)), log_strength, layout.tokens, layout.conditional)

    def with_keys_of(self, image: References, layers: Collection[str], gradient: str) -> Self:
        made = copy.copy(self)
        made.store = dict(self.store)
        for layer in set(layers) & set(image.store):
            key = image.store[layer][:, :, 0]
            key = key if gradient == "live" else key.detach()
            made.store[layer] = torch.stack([key, self.store[layer][:, :, 1]], 2)
        return made


@dataclass(frozen=True, eq=False)
class AllReferences(Encoded):
    """References of a transformer at full strength, everywhere."""

    references: KeyReferences

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        names = self.references.names(layout.levels, layout.presets)
        absent = next((name for name in names if name not in self.references.store), None)
        if absent is not None:
            raise UserError(missing(absent, "keys"))
        kept = {name: self.references.store[name] for name in names}
        full = {name: torch.zeros(len(one), 1, 1, device=one.device) for name, one in kept.items()}
        return {name: self.references.at_strength(name, one, layout) for name, one in full.items()}, ()
