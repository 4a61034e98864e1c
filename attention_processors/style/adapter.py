"""Style adapter without reference images: an interpretation of PokeFusion Attention (arXiv 2602.03220).

Every style is a learned row, projected to a few tokens that the decoder's cross-attention reads beside the text:

    c_s = LayerNorm(reshape(W_p E[s] + b_p));    y = softmax(Q K_t^T / sqrt(d)) V_t + a softmax(Q K_s^T / sqrt(d)) V_s

with K_s = c_s W_k^s and V_s = c_s W_v^s trained and all else frozen; a(x) is weight, layer weight, schedule and region.

Source: the abstracts only (versions 1 and 3); the paper's text and code were not available.
Differs (our choices): styles are free rows of a table; the trained matrices are separate from the frozen ones;
addition as the default of four fusions; the number of tokens; the learned null style; the initialisation; mixing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Adapter, Encoders, KeyValueAdapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.branch import DecoupledBranch
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.gates import AFFINE, AffineBranch, ExclusiveBranch, GatedBranch
from weftwork.attention_processors.core.joint_branch import JointBranch
from weftwork.attention_processors.core.shares import share_row
from weftwork.attention_processors.style.card import PARTS, StyleCard
from weftwork.attention_processors.style.conditions import Style
from weftwork.datasets.readers.errors import UserError, check_choice

__all__ = ["FUSIONS", "Style", "StyleAdapter", "StyleCard", "StyleCards"]


FUSIONS: Mapping[str, type[DecoupledBranch]] = {
    "additive": DecoupledBranch,
    "gated": DecoupledBranch,
    "concat": JointBranch,
    "exclusive": ExclusiveBranch,
    "affine": AffineBranch,
}
"""Fusion of style and text: added; added with a factor tanh(g) per layer, g learned and zero-initialised ("gated"); in
one softmax with the text; in the text's place, with such a factor; or added with affine-scaled attention."""


ABSENT = Condition(weight=0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class StyleBatch(Batch):
    """Mixtures of styles.

    Args:
        shares: share of each style of the adapter.
        null: designs that get the null style, where training drops styles; None for no design.
    """

    shares: Float[Tensor, "design part style"]
    null: Bool[Tensor, " design"] | None = None


class StyleReader(Adapter[StyleBatch, StyleBatch]):
    """The base of trained and baked styles: makes branches from the keys and values of all styles."""

    condition_type = (Style,)

    def style_keys(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns by layer keys and values [2 * style, token, inner]: of all styles, then of the null of each."""
        raise NotImplementedError

    def branch_gates(self) -> dict[str, Tensor] | None:
        """Returns the gates of the branches by layer; None for a fusion without."""
        return None

    def collate(self, conditions: Sequence[Sequence[Style]]) -> StyleBatch:
        """Returns padded tensors, one row per design; designs may differ in their number of styles, also 0.

        Raises:
            ValueError: an unknown style, layer factors that match nothing, or regions of different aspects.
        """
        rows = padded(conditions, ABSENT)
        shares = torch.tensor([[self._shares(style) for style in row] for row in rows])
        return StyleBatch.of(rows, self.config, shares=shares)

    def _shares(self, style: Condition) -> list[float]:
        return share_row("style", style.shares if isinstance(style, Style) else {}, self.config["styles"])

    def features(self, batch: StyleBatch, encoders: Encoders) -> StyleBatch:
        return batch

    def forward(self, features: StyleBatch) -> EncodedTokens:
        """Returns keys and values of the mixtures."""
        keys = self.style_keys()
        some = next(iter(keys.values()))[0]
        shares = features.shares.to(some)
        parts, tokens = shares.shape[1], some.shape[1]

        dropped = torch.zeros(len(shares), dtype=torch.bool) if features.null is None else features.null
        null = dropped.to(some)[:, None, None]
        nothing = torch.zeros_like(shares)
        conditional = torch.cat([shares * (1 - null), shares * null], -1)
        unconditional = torch.cat([nothing, shares], -1)

        def mixed(mixture: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
            def one(values: Float[Tensor, "style token inner"]) -> Float[Tensor, "design token inner"]:
                return torch.einsum("dps,sti->dpti", mixture, values).flatten(1, 2)

            return {name: (one(key), one(value)) for name, (key, value) in keys.items()}

        return EncodedTokens(
            mixed(conditional),
            mixed(unconditional),
            torch.ones(shares.shape[0], parts * tokens, dtype=torch.bool, device=some.device),
            torch.arange(parts, device=some.device).repeat_interleave(tokens),
            **features.strengths(list(keys), some.device),
            branch=FUSIONS[self.config["fusion"]],
            gates=self.branch_gates(),
        )

    def bake(self, styles: str | Mapping[str, float], name: str | None = None) -> StyleCard:
        """Makes the card of a style or a named mixture; `ValueError` for unknown styles, gates, or no name."""
        if issubclass(FUSIONS[self.config["fusion"]], GatedBranch):
            raise UserError(
                f"fusion: got {self.config['fusion']!r}, whose gates are not part of a card, expected another; pass "
                "the adapter's folder on instead"
            )
        if name is None and not isinstance(styles, str):
            raise UserError("name: got a mixture of styles without one; name the card")
        with torch.no_grad():
            encoded = self.forward(self.collate([[Style(styles)]]))
        assert encoded.null is not None
        tensors = {}
        for layer, (key, value) in encoded.key_value.items():
            null_key, null_value = encoded.null[layer]
            tensors[layer] = (key[0].clone(), value[0].clone(), null_key[0].clone(), null_value[0].clone())
        return StyleCard(name or str(styles), self.config["base"], self.config["fusion"], tensors)


class StyleAdapter(StyleReader, KeyValueAdapter[StyleBatch, StyleBatch]):
    """A table of styles with keys and values of their own in chosen layers.

    Args:
        layers: inner width by layer name; `StyleAdapter.for_denoiser` fills it in (pass `layers="decoder"` there).
        base: description of the base model.
        styles: names, in the order of the rows.
        style_dim: width of a style's row.
        token_dim: width of style tokens: the text width of the backbone, so that K and V can start as copies.
        num_tokens: tokens per style.
        rank: 0 for full matrices; n > 0 for keys and values of rank n, which start as the best such approximation of
            the layer's own.
        fusion: one of `FUSIONS`.
        training: origin of the weights, recorded in `config.json`.

    Raises:
        ValueError: no style, a name given twice, or an unknown fusion.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        styles: Sequence[str] = (),
        style_dim: int = 128,
        token_dim: int = 768,
        num_tokens: int = 4,
        rank: int = 0,
        fusion: str = "additive",
        training: dict[str, object] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        if not styles or len(set(styles)) != len(styles):
            raise UserError(f"styles: got {list(styles)}, expected at least one name and each once")
        check_choice("fusion", fusion, FUSIONS)
        self.table = nn.Parameter(torch.randn(len(styles) + 1, style_dim))
        self.projection = nn.Linear(style_dim, num_tokens * token_dim)
        self.norm = nn.LayerNorm(token_dim)
        self.gates = nn.Parameter(torch.zeros(len(layers))) if fusion in ("gated", "exclusive") else None
        affine = {n.replace(".", "-"): torch.zeros(width + AFFINE) for n, width in layers.items() if fusion == "affine"}
        self.affine = nn.ParameterDict(affine)
        self.make_projections(layers, token_dim, rank)

    @torch.no_grad()
    def extended(self, styles: Sequence[str]) -> Self:
        """Returns a copy with more styles, initialised as the mean of the known ones, which are unchanged."""
        wider: Any = type(self).from_config(self.config, styles=[*self.config["styles"], *styles])
        state = self.state_dict()
        known, null = state["table"][:-1], state["table"][-1:]
        state["table"] = torch.cat([known, known.mean(0, keepdim=True).expand(len(styles), -1), null])
        wider.load_state_dict(state)
        return wider

    def style_keys(self) -> dict[str, tuple[Tensor, Tensor]]:
        token_dim = self.norm.normalized_shape[0]
        tokens = self.norm(self.projection(self.table).unflatten(-1, (-1, token_dim)))
        styles = len(self.config["styles"])
        tokens = torch.cat([tokens[:styles], tokens[styles:].expand(styles, -1, -1)])  # one null for all
        keys = self.project(tokens[:, None])
        if self.gates is None or self.config["fusion"] != "gated":
            return keys
        return {n: (key, value * gate.tanh()) for (n, (key, value)), gate in zip(keys.items(), self.gates, strict=True)}

    def branch_gates(self) -> dict[str, Tensor] | None:
        layers = self.config["layers"]
        if self.config["fusion"] == "exclusive" and self.gates is not None:
            return dict(zip(layers, self.gates.tanh(), strict=True))
        return {name: self.affine[name.replace(".", "-")] for name in layers} if self.affine else None


class StyleCards(StyleReader):
    """Baked styles as an adapter: `pipe.attach(style=StyleCards.of(cards))`.

    Mixtures are linear in keys and values, so cards mix as the table that they were baked from.

    Args:
        layers, base, styles, num_tokens, fusion: as in `StyleAdapter`.
    """

    @register_to_config
    def __init__(
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
        styles: Sequence[str] = (),
        num_tokens: int = 4,
        fusion: str = "additive",
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, FUSIONS)

        def empty() -> nn.ParameterDict:
            shape = 2 * len(styles), num_tokens
            return nn.ParameterDict({n.replace(".", "-"): torch.zeros(*shape, width) for n, width in layers.items()})

        self.baked_keys, self.baked_values = empty(), empty()

    @classmethod
    def of(cls, cards: Sequence[StyleCard]) -> Self:
        """Stacks cards of one backbone and fusion; `ValueError` for none, others, or two of one name."""
        names = [card.name for card in cards]
        if not cards or len(set(names)) != len(names):
            raise UserError(f"cards: got {names}, expected at least one and each name once; rename or drop one")
        first = cards[0]
        for card in cards[1:]:
            for what in ("base", "fusion", "shapes"):
                if getattr(card, what) != getattr(first, what):
                    raise UserError(
                        f"cards: {card.name!r} has another {what} than {first.name!r}; stack cards that were baked for "
                        "one backbone in one way"
                    )
        layers = {layer: shape[1] for layer, shape in first.shapes.items()}
        tokens = next(iter(first.shapes.values()))[0]
        reader = cls(layers, dict(first.base), names, tokens, first.fusion)
        for layer in layers:
            stacked = [torch.stack([card.tensors[layer][part] for card in cards]) for part in range(len(PARTS))]
            reader.baked_keys[layer.replace(".", "-")].data = torch.cat(stacked[0::2])
            reader.baked_values[layer.replace(".", "-")].data = torch.cat(stacked[1::2])
        return reader

    def style_keys(self) -> dict[str, tuple[Tensor, Tensor]]:
        slots = {name: name.replace(".", "-") for name in self.config["layers"]}
        return {name: (self.baked_keys[slot], self.baked_values[slot]) for name, slot in slots.items()}
