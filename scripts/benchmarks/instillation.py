"""Cost of attention instillation: time relative to two independent passes, and memory held between them.

One U-Net with random weights is both teacher and student, each with two reference views; times do not depend on
weights. Bytes of queries and keys are measured; those of probabilities follow from their shapes, in the same precision.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.views.instillation import Instillation, Recorded, Taps, attention_scores
from weftwork.attention_processors.views.reference_attention import References
from weftwork.scripts.benchmarks.timing import interleaved, ratios

DENOISERS: Mapping[str, Mapping[str, Any]] = {
    "full": {
        "sample_size": 64,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "tiny": {
        "sample_size": 16,
        "cross_attention_dim": 32,
        "block_out_channels": (16, 16, 32, 32),
        "attention_head_dim": (1, 1, 2, 2),
        "norm_num_groups": 8,
        "layers_per_block": 1,
    },
}
"""Configs by size; "full" is the layout of Stable Diffusion 2.1, as used by the authors."""
VIEWS = 2


@dataclass(frozen=True, eq=False)
class RecordProbabilities(Branch):
    """Records a layer's attention probabilities, [row, head, query, token]."""

    layer: str
    store: MutableMapping[str, Tensor]

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        self.store[self.layer] = attention_scores(query, own.key).softmax(-1)
        return out


@dataclass(frozen=True, eq=False)
class UseProbabilities(Branch):
    """Applies recorded probabilities to the layer's own values."""

    layer: str
    store: Mapping[str, Tensor]

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        shared = torch.einsum("rhqt,rthd->rqhd", self.store[self.layer].to(own.value.dtype), own.value)
        return out + (shared - own.out)


def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the rows of the report: times of the passes, then memory held, in total and by layer."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**DENOISERS[size]).eval().requires_grad_(False)
    install(unet)
    side, width = unet.config["sample_size"], unet.config["cross_attention_dim"]
    layout, references = Layout(layer_levels(unet), (side, side)), References()
    latents, context = torch.randn(VIEWS, 4, side, side), torch.randn(VIEWS, 1, width)

    def run(rows: int, **taps: Encoded) -> Tensor:
        with torch.inference_mode(), conditioned(unet, Conditioning.of(taps, layout)):
            return unet(latents[:rows], 500, context[:rows]).sample

    run(VIEWS, references=references.record())
    seen, link = references.extend(VIEWS), Instillation()

    def linked() -> None:
        link.clear()
        run(1, references=seen, link=link.record())
        run(1, references=seen, link=link.use())

    def by_probabilities() -> None:
        maps: dict[str, Tensor] = {}
        run(1, references=seen, link=Taps(RecordProbabilities, "self", {"store": maps}))
        run(1, references=seen, link=Taps(UseProbabilities, "self", {"store": maps}))

    def apart() -> None:
        for _ in range(2):
            run(1, references=seen)

    seconds = interleaved(
        rounds,
        two_passes=apart,
        instillation=linked,
        probabilities=by_probabilities,
    )
    return {**ratios(seconds, "two_passes"), **_held(link.store)}


def _held(store: Mapping[str, Recorded]) -> dict[str, dict[str, float]]:
    layers = {}
    for name, kept in store.items():
        rows, queries, heads, _ = kept.query.shape
        size = kept.query.element_size()
        maps = rows * heads * queries * kept.key.shape[1] * size
        layers[name] = (kept.query.numel() + kept.key.numel()) * size, maps
    total = tuple(map(sum, zip(*layers.values(), strict=True)))
    return {
        name: {"query_key_bytes": held, "probability_bytes": maps, "share": held / maps}
        for name, (held, maps) in {"held": total, **layers}.items()
    }
