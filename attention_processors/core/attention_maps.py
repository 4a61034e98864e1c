"""Attention maps per part of a condition (a pair, a style), recorded during a call, on request only.

    recorder = MapRecorder(layers="decoder")
    image = pipe(prompt, conditions=…, recorder=recorder).images[0]
    overlay(image, recorder.maps("influence", size=(512, 512))[0, 1])   # the second pair of the first image

For the tokens T of all parts, with w = softmax(Q K^T / sqrt(d) + bias) over T, part p and place x:

    share      sum of w over the tokens of p: the branch's attention per part; sums to 1 where it acts. With one
               part it is constant, hence also
    influence  |gain * sum of w V over the tokens of p| / |output of the text attention|

Both are computed for conditional rows in float32, as means over heads (of the share, and of either norm), over steps
and over layers. Recording does not change the image by one bit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.branch import Branch, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.conditioning import Encoded, EncodedTokens
from weftwork.attention_processors.core.layers import select_names
from weftwork.attention_processors.core.strength import Layout, OnCall
from weftwork.datasets.readers.errors import UserError


@dataclass
class _Sums:
    """Sums over the recorded steps of one adapter at one layer."""

    share: Float[Tensor, "row part query"]
    active: Float[Tensor, "row 1 query"]
    influence: Float[Tensor, "row part query"]
    steps: int = 1

    def add(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.share + other.share,
            self.active + other.active,
            self.influence + other.influence,
            self.steps + other.steps,
        )


class MapRecorder:
    """Records attention maps of pipeline calls with `recorder=`; every call clears the previous maps.

    It keeps one sum per layer and adapter, so its memory does not grow with the steps.

    Args:
        layers: a preset, a regular expression or a list of names, as for adapters.
        steps: loop indices to record; None records all.
    """

    def __init__(self, layers: str | Sequence[str] = "all", steps: Collection[int] | None = None) -> None:
        self.layers, self.steps = layers, steps
        self._layout: Layout | None = None
        self._chosen: frozenset[str] = frozenset()
        self._step = 0
        self._sums: dict[str, dict[str, _Sums]] = {}
        self.on_call: OnCall | None = None
        """As `Strength.on_call`; changes no arguments."""

    @property
    def adapters(self) -> frozenset[str]:
        """Names of the adapters that were recorded."""
        return frozenset(self._sums)

    def check(self, encoded: Mapping[str, Encoded]) -> None:
        """Raises if nothing of encoded conditions, by adapter name, would be recorded.

        Raises:
            ValueError: adapters alone that add no attention to tokens of their own.
        """
        if encoded and not any(
            isinstance(one, EncodedTokens) and one.branch is DecoupledBranch for one in encoded.values()
        ):
            raise UserError(
                f"maps: got conditions of {', '.join(encoded)} alone, whose adapters add no attention of their own; "
                "leave the recorder (--maps) out, or add conditions of an adapter that does, such as pairs"
            )

    def begin(self, layout: Layout, num_steps: int = 1) -> None:
        """Clears recorded maps and prepares for a call of so many steps.

        Raises:
            ValueError: `layers` names or matches nothing.
        """
        self._chosen = frozenset(select_names(list(layout.levels), self.layers, layout.presets))
        self._layout, self._step, self._sums = layout, 0, {}

    def on_step_end(self, step: int) -> None:
        """To be called after loop index `step`."""
        self._step = step + 1

    def records(self, layer: str) -> bool:
        """Whether a layer is recorded at the current step."""
        return layer in self._chosen and (self.steps is None or self._step in self.steps)

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
        """Records one layer of one step: branches of the adapters `names`, beside the layer's own attention.

        Args:
            outs: outputs of the layer behind each branch.

        Raises:
            RuntimeError: within `torch.compile`.
        """
        refuse_compiled(torch.compiler.is_compiling())
        if not self.records(layer):
            return
        for name, branch in zip(names, branches, strict=True):
            if type(branch) is DecoupledBranch and branch.token_part is not None:
                one = _measure(branch, query, own)
                so_far = self._sums.setdefault(name, {})
                so_far[layer] = so_far[layer].add(one) if layer in so_far else one

    def maps(
        self,
        kind: Literal["share", "influence"] = "influence",
        size: tuple[int, int] | None = None,
        adapter: str | None = None,
    ) -> Float[Tensor, "row part height width"]:
        """Returns the recorded maps as the mean over layers; rows are the images of the call, in order.

        Args:
            size: height and width, usually the image's; None is that of the latents.
            adapter: name of the adapter; required if several were recorded.

        Raises:
            ValueError: nothing was recorded, or an unknown name or kind.
        """
        if kind not in ("share", "influence"):
            raise UserError(f"kind: got {kind!r}, expected 'share' or 'influence'")
        layout, sums = self._layout, self._of(adapter)
        assert layout is not None
        if layout.latent_size is None:
            raise UserError("maps: got a denoiser whose grid is not known; add a record of its class to FAMILIES")
        size = size or layout.latent_size

        def at_size(values: Float[Tensor, "row part query"], layer: str) -> Float[Tensor, "row part height width"]:
            places = values.unflatten(2, (layout.frames, *layout.grid(layer))).mean(2)
            return F.interpolate(places, size, mode="bilinear", align_corners=False)

        if kind == "influence":
            return torch.stack([at_size(one.influence / one.steps, n) for n, one in sums.items()]).mean(0).cpu()
        share = torch.stack([at_size(one.share, n) for n, one in sums.items()]).sum(0)
        active = torch.stack([at_size(one.active, n) for n, one in sums.items()]).sum(0)
        return torch.where(active > 0, share / active.clamp(min=torch.finfo(active.dtype).tiny), 0).cpu()

    def _of(self, adapter: str | None) -> dict[str, _Sums]:
        if not self._sums:
            raise UserError(
                f"maps: nothing was recorded with layers={self.layers!r} and steps={self.steps!r}; pass the recorder "
                "as pipe(…, conditions=…, recorder=recorder) and choose layers and steps at which conditions act"
            )
        if adapter is None and len(self._sums) == 1:
            return next(iter(self._sums.values()))
        if adapter not in self._sums:
            raise UserError(f"adapter: got {adapter!r}, recorded are: {', '.join(self._sums)}; name one of them")
        return self._sums[adapter]


class TokenAttention(NamedTuple):
    """Attention of the conditional rows to a condition's tokens, in float32."""

    weights: Float[Tensor, "row head place token"]
    value: Float[Tensor, "row head token dim"]
    gain: Float[Tensor, "row 1 place"]
    text: Float[Tensor, "row head place dim"]
    """Output of the layer's own attention."""

    @classmethod
    def of(cls, branch: DecoupledBranch, query: Float[Tensor, "row query head dim"], own: OwnAttention) -> Self:
        query, text = branch.queries(query, own), own.out[:, slice(*branch.span(query))]
        if branch.conditional is not None:
            half = query.shape[0] // 2
            rows = slice(half * branch.conditional, half * (branch.conditional + 1))
            query, text, branch = query[rows], text[rows], branch.rows(half)
        query, text = (x.float().transpose(1, 2) for x in (query, text))
        heads, head_dim = query.shape[1], query.shape[-1]
        key, value = (x.float().unflatten(-1, (-1, head_dim)).transpose(1, 2) for x in (branch.key, branch.value))
        key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
        logits = query @ key.transpose(-1, -2) * head_dim**-0.5
        weights = (logits if branch.bias is None else logits + branch.bias).softmax(-1)
        gain = branch.gain[:, :, 0, 0].unsqueeze(1)
        return cls(weights, value, gain.expand(-1, -1, query.shape[2]), text)

    @property
    def active(self) -> Float[Tensor, "row 1 place"]:
        """1 where the condition acts."""
        return (self.gain != 0).to(self.weights)

    def part(self, mine: Bool[Tensor, " token"]) -> tuple[Tensor, Tensor]:
        """Returns share and norm of the tokens of one part, by head, [row, head, place] each."""
        of_part = self.weights[..., mine]
        norm = (of_part @ self.value[:, :, mine]).norm(dim=-1)
        return of_part.sum(-1) * self.active, norm * self.gain


def _measure(branch: DecoupledBranch, query: Tensor, own: OwnAttention) -> _Sums:
    """Computes share and influence of one layer at one step."""
    attention, members = TokenAttention.of(branch, query, own), branch.token_part
    assert members is not None
    text = attention.text.norm(dim=-1).mean(1).clamp(min=torch.finfo(torch.float32).tiny)
    parts = [attention.part(members == part) for part in range(int(members.max()) + 1)]
    shares, norms = (torch.stack([one.mean(1) for one in by_part], 1) for by_part in zip(*parts, strict=True))
    return _Sums(shares, attention.active, norms / text.unsqueeze(1))


def refuse_compiled(compiled: bool) -> None:
    """Raises if the denoiser is compiled: the recorder's sums would become part of its graph.

    Raises:
        RuntimeError: the denoiser is compiled.
    """
    if compiled:
        raise RuntimeError(
            "recorder: got a compiled denoiser, expected an eager one; record with the module behind torch.compile "
            "(pipe.unet = pipe.unet._orig_mod), then compile it again"
        )


def overlay(image: Image.Image, values: Float[Tensor, "height width"], opacity: float = 0.6) -> Image.Image:
    """Overlays a map on its image: transparent where it is 0, yellow to red at its maximum.

    Raises:
        ValueError: not one map.
    """
    if values.ndim != 2:
        raise UserError(
            f"values: got shape {tuple(values.shape)}, expected one map [height, width]; index row and part"
        )
    pixels = np.asarray(image.convert("RGB"), np.float32)
    heat = values.float().clamp(min=0)
    heat = F.interpolate(heat[None, None], pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0].cpu().numpy()
    heat = heat / max(float(heat.max()), 1e-8)
    colour = np.stack([np.full_like(heat, 255), 255 * (1 - heat), np.zeros_like(heat)], -1)
    opaque = opacity * heat[..., None]
    return Image.fromarray((pixels * (1 - opaque) + colour * opaque).round().astype(np.uint8))
