"""Cross-modal attention instillation: one denoiser attends with another's queries and keys (MoAI, arXiv 2506.11924).

Queries and keys of chosen self-attention layers are recorded in one pass and used in another, by layer name; the other
pass (the student) keeps its own values:

    out = W_o softmax(Q_teacher K_teacher^T / sqrt(d)) V_student

In layers that image and text share, these are the queries and keys of image tokens; the text keeps the student's.

Taps are branches in the conditioning, without state but the shared store: `RecordAttention` records queries and keys,
`UseAttention` attends with them, and `Instillation` makes both. Taps of reference views are in
`weftwork.attention_processors.views.reference_attention`.

    link = Instillation(layers="self")
    teacher = Conditioning.of({"link": link.record()}, layout)
    student = Conditioning.of({"link": link.use()}, layout)
    for t in timesteps:
        link.clear()
        with conditioned(unet_a, teacher):
            image = unet_a(x, t, context).sample
        with conditioned(unet_b, student):
            geometry = unet_b(y, t, context).sample

Differs: entries are found by name and never popped, so recomputing (gradient checkpointing) changes nothing, and
missing or unfitting entries are an error, where the authors' code silently falls back to the student's own queries and
keys. Gradients reach the teacher, as there; `gradient="detach"` stops them.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention, Project
from weftwork.attention_processors.core.conditioning import Encoded
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.layers import select_layers, select_names
from weftwork.attention_processors.core.processor import attention_layers
from weftwork.attention_processors.core.strength import ImageTokens, Layout, Strength
from weftwork.datasets.readers.errors import UserError, check_choice

KEYS: Final = ("all", "target")
GRADIENTS: Final = ("live", "detach")


@dataclass(frozen=True, eq=False)
class Recorded:
    """Recorded queries and keys of a layer, [row, token, head, dim]."""

    query: Tensor
    key: Tensor
    differentiable: bool
    """Whether gradients were recorded."""


AttentionStore = MutableMapping[str, Recorded]


def span(image: ImageTokens | None, query: Tensor) -> slice:
    """Returns which tokens of a layer are the image's; all, also those that branches appended, if all queries are."""
    begin, end = (0, query.shape[1]) if image is None else image.span(query.shape[1])
    return slice(None) if (begin, end) == (0, query.shape[1]) else slice(begin, end)


@dataclass(frozen=True, eq=False)
class RecordAttention(Branch):
    """Branch that records a layer's queries and keys of image tokens, after projection and before scaling."""

    linear: ClassVar[bool] = True

    layer: str
    store: AttentionStore
    gradient: str = "live"
    image: ImageTokens | None = None

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        place = span(self.image, query)
        kept_query, kept_key = query[:, place], own.key[:, place]
        if self.gradient != "live":
            kept_query, kept_key = kept_query.detach(), kept_key.detach()
        self.store[self.layer] = Recorded(kept_query, kept_key, torch.is_grad_enabled())
        return out


@dataclass(frozen=True, eq=False)
class UseAttention(Branch):
    """Branch that attends with recorded queries and keys to the layer's own values.

    Args:
        store: entries of `RecordAttention`, by layer.
        keys: "all", or "target": only as many of the first keys as there are queries, for a layer whose context is not
            extended by references.
        source: the recorded row for each row; None for the same rows.
        gradient: "live" lets gradients into the recording pass.
        strength: [row or 1, 1, 1, 1] in [0, 1]: a blend of this and the layer's own attention, 0 exactly the latter.
        image: place of the image's tokens; None if all queries are the image's.
    """

    replaces: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    layer: str
    store: Mapping[str, Recorded]
    keys: str = "all"
    source: Int[Tensor, " row"] | None = None
    gradient: str = "live"
    strength: Tensor | None = None
    image: ImageTokens | None = None

    def qkv(self, query: Tensor, key: Tensor, value: Tensor, project: Project) -> tuple[Tensor, Tensor, Tensor]:
        kept = self._kept(query, value)
        if self.strength is not None:
            return query, key, value
        return (*self._query_key(kept, query, key), value)

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        kept = self._kept(query, own.value)
        if self.strength is None:
            return out
        shared = attend(*self._query_key(kept, query, own.key), own.value, own.mask)
        strength = self.strength.to(out.dtype)
        return torch.where(strength == 0, out, out + strength * (shared - own.out))

    def _kept(self, query: Tensor, value: Tensor) -> Recorded:
        """Returns the entry of this layer, checked against its shapes."""
        kept = self.store.get(self.layer)
        if kept is None:
            raise UserError(missing(self.layer, "attention"))
        if self.gradient == "live" and torch.is_grad_enabled() and not kept.differentiable:
            raise UserError(
                f"{self.layer}: got queries and keys that were recorded without gradients, expected live ones; record "
                "outside torch.no_grad() and reentrant checkpointing, or pass gradient='detach'"
            )
        if self.source is not None:
            check_source(self.source, len(kept.query), self.layer)
        rows, place = len(kept.query) if self.source is None else len(self.source), span(self.image, query)
        query, value = query[:, place], value[:, place]
        heads, tokens = kept.query.shape[2], query.shape[1] if self.keys == "target" else kept.key.shape[1]
        if (rows, kept.query.shape[1], heads) != query.shape[:3]:
            raise UserError(
                f"{self.layer}: got {rows} rows of {kept.query.shape[1]} queries and {heads} heads, expected "
                f"{query.shape[0]} of {query.shape[1]} and {query.shape[2]}; give both passes the same batch and canvas"
            )
        if tokens != value.shape[1]:
            raise UserError(
                f"{self.layer}: got {tokens} recorded keys for {value.shape[1]} values; give both passes the same "
                "references, or pass keys='target' where this one has none"
            )
        return kept

    def _query_key(self, kept: Recorded, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        shared = kept.key if self.keys == "all" else kept.key[:, : query.shape[1]]
        made = self._rows(kept.query).to(query.dtype), self._rows(shared).to(query.dtype)
        place = span(self.image, query)
        if place == slice(None):
            return made
        begin, end = place.start, place.stop
        (q, k) = (
            torch.cat([own[:, :begin], one, own[:, end:]], 1) for own, one in zip((query, key), made, strict=True)
        )
        return q, k

    def _rows(self, recorded: Tensor) -> Tensor:
        recorded = recorded if self.gradient == "live" else recorded.detach()
        return recorded if self.source is None else recorded[self.source.to(recorded.device)]


def check_source(source: Int[Tensor, " row"], rows: int, place: str) -> None:
    """Raises `ValueError` unless all sources are rows of the batch, naming the first that is not."""
    wrong = source[(source < 0) | (source >= rows)]
    if len(wrong):
        raise UserError(f"{place}: got the source {int(wrong[0])}, expected rows from 0 to {rows - 1}; correct it")


@dataclass(frozen=True, eq=False)
class Taps(Encoded):
    """One kind of branch at every selected layer, as an `Encoded` for `Conditioning.of`."""

    kind: type[Branch]
    layers: str | Sequence[str]
    options: Mapping[str, object] = field(default_factory=dict)

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        names = select_names(list(layout.levels), self.layers, layout.presets)
        options = dict(self.options)
        if any(one.name == "image" for one in fields(self.kind)):  # pyright: ignore[reportArgumentType]
            options["image"] = layout.tokens
        return {name: self.kind(layer=name, **options) for name in names}, ()  # pyright: ignore[reportCallIssue]


class Instillation:
    """Shares the attention of a recording pass with another pass.

    Args:
        layers: as in `select_layers`; all self-attentions by default, which is the published setting.
        keys: "all" or "target", see `UseAttention`.
        gradient: "live" or "detach".
        strength: from 0 (the student's own attention) to 1; None is 1 without computing its own at all.

    Raises:
        ValueError: an unknown choice, or a strength outside [0, 1].
    """

    def __init__(
        self,
        layers: str | Sequence[str] = "self",
        *,
        keys: str = "all",
        gradient: str = "live",
        strength: float | None = None,
    ) -> None:
        check_choice("keys", keys, KEYS)
        check_choice("gradient", gradient, GRADIENTS)
        if strength is not None and not 0 <= strength <= 1:
            raise UserError(f"strength: got {strength!r}, expected a number in [0, 1]; None is full strength")
        self.layers, self.keys, self.gradient = layers, keys, gradient
        self.strength = None if strength is None else torch.full((1, 1, 1, 1), float(strength))
        self.store: dict[str, Recorded] = {}

    def clear(self) -> None:
        """Removes all recorded entries; call it before every denoiser step, so that no stale entry is used."""
        self.store.clear()

    def record(self) -> Taps:
        """Branches for the teacher's pass."""
        return Taps(RecordAttention, self.layers, {"store": self.store, "gradient": self.gradient})

    def use(self, source: Int[Tensor, " row"] | None = None) -> Taps:
        """Branches for the student's pass; `source` is the teacher's row for each row, None for the same rows."""
        options = {"store": self.store, "keys": self.keys, "source": source, "gradient": self.gradient}
        return Taps(UseAttention, self.layers, {**options, "strength": self.strength})

    def unused_parameters(self, student: nn.Module) -> list[str]:
        """Names of the student's unused parameters: query and key projections of the shared layers.

        Where text and image share projections, these are used.

        Freeze them and exclude them from optimizers, distributed training and LoRA targets.
        """
        if self.strength is not None:
            return []
        layers, family = attention_layers(student), family_of(student)
        dead = ("to_q", "to_k", "norm_q", "norm_k")
        return [
            f"{layer}.{name}"
            for layer in select_layers(student, self.layers, linear=True)
            if family.role(layer) in ("self", "linear") or hasattr(layers[layer], "add_q_proj")
            for name, _ in layers[layer].named_parameters()
            if name.partition(".")[0] in dead
        ]


def attention_scores(
    query: Float[Tensor, "row query head dim"], key: Float[Tensor, "row token head dim"]
) -> Float[Tensor, "row head query token"]:
    """Computes Q K^T / sqrt(d) in float32."""
    return torch.einsum("rqhd,rthd->rhqt", query.float(), key.float()) * query.shape[-1] ** -0.5


def missing(layer: str, what: str) -> str:
    """Returns the error text for a layer without a recorded entry."""
    return (
        f"{layer}: got no recorded {what}, expected some; run the recording pass first, with the same layers, in this "
        "step"
    )
