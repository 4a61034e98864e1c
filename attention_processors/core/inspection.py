"""Inspection of a generation: what each layer and head reads, by step, and what changes without it.

    inspector = Inspector()
    image = pipe(prompt, conditions=…, recorder=inspector).images[0]
    inspector.measured()["…attn2"]["paired"]["influence"]   # [step, head]

Sources are "text", the layer's own attention (in joint layers to the image as well), the adapters by name, and the
parts of their conditions, as "paired 1". All measures are means over the conditional rows and the image's places (of
attention to conditions, over those where they act), by head, in float32:

    text     share       attention to the text's keys; 1 in cross-attention
             first, last, most   attention to the first and the last key of the text, and to the key that is read most
             most_key    number of that key
             entropy     of the attention over its logarithm at uniform attention: 1 where all keys are read alike
    adapter  influence   mean |what it adds| / mean |output of the layer's own attention|
             most, most_key, entropy   of its attention to its own tokens
    part     share       of the adapter's attention
             influence   of what the part's tokens add
    all      read        of the text, the parts, and adapters without parts, the share of their norms: 1 / (1 + sum of
                         influences) of the text, influence / (1 + sum of influences) of the others

Changes without a layer, a head, or an adapter in one of them are those of the prediction, as in `core.ablation`.
Inspection does not change the image by one bit.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.ablation import Ablation, Change
from weftwork.attention_processors.core.attention_maps import MapRecorder, TokenAttention
from weftwork.attention_processors.core.branch import Branch, DecoupledBranch, OwnAttention, text_keys
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import call_arguments
from weftwork.attention_processors.core.grids import Given, Positional
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.core.text_maps import own_logits
from weftwork.datasets.readers.errors import UserError

PLACES = 256
"""Number of places of which attention is held at once."""

Measures = dict[str, Float[Tensor, " head"]]


class Inspector(MapRecorder):
    """Records attention maps, and by layer, head and step what is read and what changes without it.

    Args:
        layers, steps: as for `MapRecorder`.
        ablate: shares of the run at which the denoiser is run again without each layer, and each adapter in it: with L
            layers and A adapters L (A + 1) + A + 1 times.
        heads: whether also without each of their H heads, and each adapter in it: L (A + 1) H times more.
        with_maps: whether maps are wanted too, which not all conditions have.
    """

    def __init__(
        self,
        layers: str | Sequence[str] = "all",
        steps: Collection[int] | None = None,
        ablate: Collection[float] = (0.5,),
        heads: bool = True,
        with_maps: bool = False,
    ) -> None:
        super().__init__(layers, steps)
        self.ablate, self.heads, self.with_maps = tuple(ablate), heads, with_maps
        self.on_call = self._keep_call
        self.tokens: dict[str, Float[Tensor, " token"]] = {}
        """Attention to the text's keys by layer, mean over heads, sum over steps."""
        self.changes: dict[int, dict[str, dict[str, Change]]] = {}
        """By step, layer and what is left out."""
        self.totals: dict[int, dict[str, float]] = {}
        """Changes of the prediction by step without each adapter."""
        self._found: dict[str, dict[int, dict[str, Measures]]] = {}
        self._ablated: set[int] = set()
        self._call: tuple[Conditioning, nn.Module, Given] | None = None

    def check(self, encoded: Mapping[str, Encoded]) -> None:
        """All that changes the output of layers is recorded; maps are as in `MapRecorder`."""
        if self.with_maps:
            super().check(encoded)

    def begin(self, layout: Layout, num_steps: int = 1) -> None:
        super().begin(layout, num_steps)
        self._ablated = {min(int(share * num_steps), num_steps - 1) for share in self.ablate}
        self.tokens, self.changes, self.totals, self._found, self._call = {}, {}, {}, {}, None

    def measured(self) -> dict[str, dict[str, dict[str, Float[Tensor, "step head"]]]]:
        """Returns the measures of the recorded steps by layer, source and name."""
        return {
            layer: {
                source: {name: torch.stack([step[source][name] for step in steps.values()]) for name in measures}
                for source, measures in next(iter(steps.values())).items()
            }
            for layer, steps in self._found.items()
        }

    @property
    def recorded_steps(self) -> list[int]:
        return sorted({step for steps in self._found.values() for step in steps})

    @torch.no_grad()
    def record(
        self,
        layer: str,
        names: Sequence[str],
        branches: Sequence[Branch],
        query: Float[Tensor, "row query head dim"],
        own: OwnAttention,
        outs: Sequence[Float[Tensor, "row query head dim"]],
    ) -> None:
        super().record(layer, names, branches, query, own, outs)
        if not self.records(layer) or self._layout is None:
            return
        rows = self._conditional(query.shape[0])
        span = (0, query.shape[1]) if self._layout.tokens is None else self._layout.tokens.span(query.shape[1])
        sources, tokens = self._text(query, own, rows, span)
        self.tokens[layer] = self.tokens[layer] + tokens if layer in self.tokens else tokens
        size = _norm(own.out, rows, span).clamp(min=torch.finfo(torch.float32).tiny)
        for name, branch, before, after in zip(names, branches, [own.out, *outs], outs, strict=False):
            if type(branch).mix is Branch.mix:  # changes queries or keys, and adds nothing
                continue
            sources[name] = {"influence": _norm(after - before, rows, span) / size}
            if type(branch) is DecoupledBranch and branch.token_part is not None:
                attention = TokenAttention.of(branch, query, own)
                sources[name] |= _reading(attention.weights, attention.active)
                sources |= _parts(name, attention, branch.token_part)
        read = [name for name in sources if name != "text" and f"{name} 1" not in sources]
        total = sum((sources[name]["influence"] for name in read), torch.ones_like(size))
        sources["text"]["read"] = 1 / total
        for name in read:
            sources[name]["read"] = sources[name]["influence"] / total
        found = {source: {n: x.cpu() for n, x in measures.items()} for source, measures in sources.items()}
        self._found.setdefault(layer, {})[self._step] = found

    def on_step_end(self, step: int) -> None:
        if self._call is not None:
            ablation = Ablation(*self._call)
            found = {layer: steps[step] for layer, steps in self._found.items() if step in steps}
            names = dict.fromkeys(name for layer in found for name in self._call[0].names[layer])
            self.totals[step] = {name: ablation.without(name) for name in names}
            self.changes[step] = {
                layer: ablation.of_layer(layer, len(sources["text"]["entropy"]) if self.heads else 0)
                for layer, sources in found.items()
            }
            self._call = None
        super().on_step_end(step)

    def _keep_call(self, conditioning: Conditioning, denoiser: nn.Module, args: Positional, kwargs: Given) -> None:
        """Keeps a call that is to be repeated.

        Raises:
            ValueError: no branches in any chosen layer.
        """
        if not self._chosen.intersection(conditioning.branches):
            raise UserError(
                f"recorder: got conditions that add nothing to the attention of the layers {self.layers!r}, expected "
                "some that do; inspect other layers, or leave the inspection out"
            )
        if self._step in self._ablated:
            self._call = conditioning, denoiser, call_arguments(denoiser, args, kwargs)

    def _conditional(self, rows: int) -> slice:
        """Returns the conditional rows of a call."""
        assert self._layout is not None
        half, index = rows // len(self._layout.halves), self._layout.conditional or 0
        return slice(half * index, half * (index + 1))

    def _text(
        self, query: Tensor, own: OwnAttention, rows: slice, span: tuple[int, int]
    ) -> tuple[dict[str, Measures], Float[Tensor, " token"]]:
        """Returns measures of a layer's own attention, and attention to the text's keys."""
        assert self._layout is not None
        keys = own.key.shape[1]
        first, last = text_keys(self._layout.tokens, query.shape[1], keys)
        total, entropy = 0, 0
        for begin in range(*span, PLACES):
            end = min(begin + PLACES, span[1])
            weights = own_logits(query[:, begin:end], own.of_queries(begin, end), 0, keys)[rows].softmax(-1)
            total, entropy = total + weights.sum((0, 2)), entropy + _entropy(weights).sum((0, 2))
        count = (rows.stop - rows.start) * (span[1] - span[0])
        read = total / count
        most, most_key = read.max(-1)
        text = read[:, first:last]
        ends = {"first": text[:, 0], "last": text[:, -1]}
        measures = {"share": text.sum(-1), **ends, "most": most, "most_key": most_key, "entropy": entropy / count}
        return {"text": measures}, text.mean(0).cpu()


def _norm(values: Float[Tensor, "row query head dim"], rows: slice, span: tuple[int, int]) -> Float[Tensor, " head"]:
    return values[rows, slice(*span)].float().norm(dim=-1).mean((0, 1))


def _entropy(weights: Float[Tensor, "*places key"]) -> Float[Tensor, "*places"]:
    """Returns the entropy over that of uniform attention to the keys that are not masked; 0 for one key."""
    seen = (weights > 0).sum(-1).clamp(min=2)
    return torch.special.entr(weights).sum(-1) / seen.log()


def _mean(values: Float[Tensor, "row head place *rest"], active: Float[Tensor, "row 1 place"]) -> Tensor:
    """Returns the mean over the places that are active, by head."""
    active = active.view(*active.shape, *[1] * (values.ndim - 3))
    return (values * active).sum((0, 2)) / active.sum().clamp(min=1)


def _reading(weights: Float[Tensor, "row head place token"], active: Float[Tensor, "row 1 place"]) -> Measures:
    most, most_key = _mean(weights, active).max(-1)
    return {"most": most, "most_key": most_key, "entropy": _mean(_entropy(weights), active)}


def _parts(name: str, attention: TokenAttention, members: Tensor) -> dict[str, Measures]:
    size = attention.text.norm(dim=-1).mean((0, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    found: dict[str, Measures] = {}
    for part in range(int(members.max()) + 1):
        share, norm = attention.part(members == part)
        found[f"{name} {part + 1}"] = {"share": _mean(share, attention.active), "influence": norm.mean((0, 2)) / size}
    return found
