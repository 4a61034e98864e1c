"""Localized sketch–text pairs: LOTS (arXiv 2507.22627) and its multi-level extension (arXiv 2602.18309).

Per pair, sketch tokens and text tokens pass a pair-former on their own; the tokens of all pairs are read by one softmax
beside the frozen text attention ("deferred merging"):

    y = softmax(Q K_t^T / sqrt(d)) V_t + A softmax(Q K_p^T / sqrt(d) + log(a_p / A)) V_p

with a_p(x) = weight * schedule * region of pair p and A = max_p a_p; all ones is the published equation.

Source: intelligolabs/lots@5913624 (src/lots), intelligolabs/lots-extension@43c4f4f.
Differs: keys and values of the pairs are projected once per generation, not once per step; weights, schedules and
regions per pair; a pair may lack its sketch or its text (the missing half is the null condition's); `isolation`
"per_pair" keeps pairs independent; `anchored` tokens speak for their own place on the canvas.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import FORMAT_VERSION, KeyValueAdapter
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.regions import region_size
from weftwork.attention_processors.core.strength import Schedule
from weftwork.attention_processors.paired.conditions import (
    GlobalSketch,
    PreparedPair,
    SketchTextPair,
    stack_pairs,
    stroke_pixels,
)
from weftwork.attention_processors.paired.pair_former import (
    GlobalSketchAttention,
    ImageProjector,
    PairFormer,
    TextProjector,
    null_tokens,
)
from weftwork.datasets.readers.images import center_crop, letterbox

__all__ = ["GlobalSketch", "PairedAdapter", "SketchTextPair", "StrokeEncoder"]


class StrokeEncoder(nn.Module):
    """A small trained encoder of sketches: strokes and their hull to a grid of tokens, one per 16x16 pixels."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        widths = (2, 24, 48, 96, dim)
        stages = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU())
        ]
        self.stages = nn.Sequential(*stages, nn.Conv2d(dim, dim, 3, padding=1))
        self.position = nn.Parameter(torch.randn(1, (size // 16) ** 2, dim) * 0.02)

    def forward(self, sketches: Float[Tensor, "sketch 2 size size"]) -> Float[Tensor, "sketch token dim"]:
        return self.stages(sketches).flatten(2).transpose(1, 2) + self.position


class PairedAdapter(KeyValueAdapter):
    """The trained part of the paired method.

    Args:
        layers: inner width by layer name; `PairedAdapter.for_denoiser` fills it in.
        base: what the adapter was trained on.
        token_dim: width of pair tokens.
        image_dim: width of the sketch encoder's tokens.
        text_dim: width of the text encoder's states.
        text_tokens: tokens that one pooled description becomes.
        text_states: 0 reads one pooled vector per description, as published; n > 0 its first n token states.
        num_readout_tokens, num_layers, num_heads, norm_groups, masking, fusion, isolation: see `PairFormer`.
        global_sketch: with the module for a sketch of the whole.
        sketch_encoder: "strokes" for the small `StrokeEncoder` trained here, else the id of a frozen vision model that
            `set_encoders(sketch=SketchEncoder.from_pretrained(id))` brings.
        sketch_size: side in pixels that sketches are brought to.
        center_crop: the authors' preprocessing (shortest edge to 256, centre 224) instead of letter-boxing.
        anchored: image tokens (read-outs, where the masking has them) act around their own place on the canvas, with
            this standard deviation (a fraction of the canvas); 0 is the published equation.
        training: where the weights come from (data, steps, seed), for the reader of `config.json`.
    """

    condition_type = (SketchTextPair, GlobalSketch)

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, Any] | None = None,
        token_dim: int = 2048,
        image_dim: int = 384,
        text_dim: int = 2048,
        text_tokens: int = 4,
        text_states: int = 0,
        num_readout_tokens: int = 32,
        num_layers: int = 2,
        num_heads: int = 8,
        norm_groups: int = 32,
        masking: str = "compression",
        fusion: str = "deferred",
        isolation: str = "per_pair",
        global_sketch: bool = False,
        sketch_encoder: str = "facebook/dinov2-small",
        sketch_size: int = 224,
        center_crop: bool = False,
        anchored: float = 0.0,
        training: dict[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        side = math.isqrt(num_readout_tokens)
        if anchored and masking in ("compression", "all") and side * side != num_readout_tokens:
            raise ValueError(
                f"num_readout_tokens: got {num_readout_tokens}, expected a square: anchored ones form a grid"
            )
        self.image_projector = ImageProjector(image_dim, token_dim)
        if text_states:
            self.text_projector = ImageProjector(text_dim, token_dim)
        else:
            self.text_projector = TextProjector(text_dim, token_dim, text_tokens)
        self.pair_former = PairFormer(
            token_dim,
            num_readout_tokens=num_readout_tokens,
            num_layers=num_layers,
            num_heads=num_heads,
            norm_groups=norm_groups,
            masking=masking,
            fusion=fusion,
            isolation=isolation,
        )
        self.whole = GlobalSketchAttention(image_dim, token_dim, num_heads) if global_sketch else None
        self.stroke_encoder = StrokeEncoder(image_dim, sketch_size) if sketch_encoder == "strokes" else None
        self.make_projections(layers, token_dim)

    # -- from conditions to features -----------------------------------------------------------------------

    def collate(self, conditions: Sequence[Sequence[SketchTextPair | GlobalSketch]]) -> dict[str, Any]:
        """Padded tensors, one row per design; designs may differ in their number of pairs, also 0.

        Raises:
            ValueError: more than one global sketch in a design, one that this adapter has no module for, or regions of
                different aspects.
        """
        pairs = [[self.prepare(c) for c in row if isinstance(c, SketchTextPair)] for row in conditions]
        wholes = [[c for c in row if isinstance(c, GlobalSketch)] for row in conditions]
        if any(wholes) and self.whole is None:
            raise ValueError("conditions: got a GlobalSketch, but this adapter was trained without one; leave it out")
        if any(len(row) > 1 for row in wholes):
            raise ValueError("conditions: got several GlobalSketch in one design, expected at most one; merge them")
        batch = stack_pairs(pairs, self.pixels(None))
        if self.whole is not None:
            given = [row[0] if row else None for row in wholes]
            batch["whole"] = torch.stack([self.pixels(g.sketch if g else None) for g in given])
            batch["has_whole"] = torch.tensor([g is not None for g in given])
            batch["weight"] = torch.cat([batch["weight"], torch.tensor([[g.weight if g else 0.0] for g in given])], 1)
            whole = [Schedule(g.start, g.end) if g else Schedule() for g in given]
            batch["schedules"] = [[*row, one] for row, one in zip(batch["schedules"], whole, strict=True)]
            if batch["region"] is not None:
                batch["region"] = torch.cat([batch["region"], torch.ones_like(batch["region"][:, :1])], 1)
        return batch

    def prepare(self, pair: SketchTextPair) -> PreparedPair:
        """One pair as tensors; what a data set may cache."""
        region = None if pair.region is None else pair.region_map(region_size(pair.aspect or 1.0))
        pixels = None if pair.sketch is None else self.pixels(pair.sketch)
        return PreparedPair(pixels, pair.text, pair.weight, pair.schedule, region, pair.aspect)

    def pixels(self, image: Any) -> Float[Tensor, "channel size size"]:
        """A sketch as the encoder wants it: strokes and hull for the small one, RGB in [0, 1] for frozen ones."""
        size = self.config["sketch_size"]
        if image is None:
            return torch.zeros(2 if self.stroke_encoder is not None else 3, size, size)
        if self.stroke_encoder is not None:
            return stroke_pixels(image, size)
        square = center_crop(image, size) if self.config["center_crop"] else letterbox(image, size)
        return torch.from_numpy(np.array(square.convert("RGB"), np.float32) / 255).permute(2, 0, 1)

    @torch.no_grad()
    def features(self, batch: Mapping[str, Any], encoders: Mapping[str, Any]) -> dict[str, Any]:
        """Texts through the text encoders, and sketches through the frozen sketch encoder if there is one.

        Raises:
            ValueError: an encoder is missing, by name, with the call that brings it.
        """
        features = {k: v for k, v in batch.items() if k != "texts"}
        text = encoders["text"]
        flat = [t for row in batch["texts"] for t in row]
        states = self.config["text_states"]
        if states:
            values, mask = text.tokens(flat, states)
            values = values * mask[..., None]
        else:
            values = text.pooled(flat)
        if values.shape[-1] != self.config["text_dim"]:
            raise ValueError(
                f"text: got vectors of width {values.shape[-1]} from the pipeline's text encoders, but the adapter was "
                f"trained on {self.config['text_dim']}; load one that was trained for this pipeline"
            )
        has_text = batch["has_text"].to(values.device)
        values = values.unflatten(0, has_text.shape)
        features["text"] = values * has_text.view(*has_text.shape, *[1] * (values.ndim - 2))
        if self.stroke_encoder is None:
            encoder = encoders.get("sketch")
            name = self.config["sketch_encoder"]
            if encoder is None:
                raise ValueError(
                    f"sketch encoder: this adapter reads sketches through {name!r}; call "
                    f"pipe.set_encoders(sketch=SketchEncoder.from_pretrained({name!r})) first"
                )
            sketches = batch["sketch"]
            tokens = encoder(sketches.flatten(0, 1)).unflatten(0, sketches.shape[:2])
            features["image"] = tokens * batch["has_sketch"].to(tokens.device)[:, :, None, None]
            if self.whole is not None:
                features["whole"] = encoder(batch["whole"]) * batch["has_whole"][:, None, None]
        return features

    # -- the trained part ----------------------------------------------------------------------------------

    def forward(self, features: Mapping[str, Any]) -> EncodedTokens:
        """Keys and values of all pairs, with the null condition's beside them.

        Args:
            features: `text` [design, pair, text_dim] or [design, pair, state, text_dim]; `image` [design, pair,
                image_token, image_dim], or `sketch` pixels for the small encoder; `pair_mask` [design, pair]; `weight`
                [design, part]; `schedules`; `region` [design, part, height, width] or None.
        """
        weight = self.image_projector.projection.weight
        strength = self._merged(features) if self.config["fusion"] == "mean" else features
        image, text = self._image(features).to(weight), features["text"].to(weight)
        mask = features["pair_mask"].to(weight.device)
        parts_of_pairs = self.image_projector(image), self.text_projector(text), mask
        tokens, keep = self.pair_former(*parts_of_pairs), self.pair_former.token_mask(*parts_of_pairs).flatten(1)
        null = null_tokens(self.pair_former, self.image_projector, self.text_projector, image, text)
        null = null.expand_as(tokens)
        parts, count = tokens.shape[1:3]
        part = torch.arange(parts, device=weight.device).repeat_interleave(count)
        anchors = self._anchors(image.shape[2], parts, count)
        if self.whole is not None:
            whole = self._whole(features).to(weight)
            tokens, null = (
                self.whole(whole, tokens.flatten(1, 2)),
                self.whole(torch.zeros_like(whole), null.flatten(1, 2)),
            )
            tokens, null = tokens[:, None], null[:, None]
            here = features["has_whole"].to(weight.device)[:, None].expand(-1, whole.shape[1])
            keep = torch.cat([here, keep], 1)
            part = torch.cat([torch.full((whole.shape[1],), parts, device=weight.device), part])
            if anchors is not None:  # a sketch of the whole speaks everywhere
                anchors = torch.cat([anchors.new_full((whole.shape[1], 2), math.nan), anchors])
        return EncodedTokens(
            self.project(tokens),
            self.project(null),
            keep,
            part,
            strength["weight"].to(weight.device),
            strength["schedules"],
            None if strength["region"] is None else strength["region"].to(weight.device),
            features["region_aspect"],
            anchors,
            self.config["anchored"],
        )

    def _merged(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The mean of all pairs is one part: as strong as the strongest, where any acts, when the first does."""
        pairs = features["pair_mask"].shape[1]

        def merged(values: Float[Tensor, "design part *place"]) -> Float[Tensor, "design merged_part *place"]:
            return torch.cat([values[:, :pairs].amax(1, keepdim=True), values[:, pairs:]], 1)

        return {
            "weight": merged(features["weight"]),
            "schedules": [[row[0], *row[pairs:]] for row in features["schedules"]],
            "region": None if features["region"] is None else merged(features["region"]),
        }

    def _whole(self, features: Mapping[str, Any]) -> Float[Tensor, "design image_token image_dim"]:
        whole = features["whole"]
        if self.stroke_encoder is None:
            return whole
        tokens = self.stroke_encoder(whole.to(self.stroke_encoder.position))
        return tokens * features["has_whole"].to(tokens)[:, None, None]

    def _anchors(self, image_tokens: int, parts: int, count: int) -> Float[Tensor, "token 2"] | None:
        """Places of read-outs on a grid of their own, or of image tokens where these are the result."""
        if not self.config["anchored"]:
            return None
        placed = self.pair_former.num_readout_tokens or image_tokens
        side = math.isqrt(placed)
        centres = (torch.arange(side) + 0.5) / side
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).flatten(0, 1)
        free = torch.full((count - len(grid), 2), math.nan)
        return torch.cat([grid, free]).repeat(parts, 1).to(self.image_projector.projection.weight.device)

    def _image(self, features: Mapping[str, Any]) -> Float[Tensor, "design pair image_token image_dim"]:
        if self.stroke_encoder is None:
            return features["image"]
        sketch = features["sketch"]
        tokens = self.stroke_encoder(sketch.flatten(0, 1).to(self.stroke_encoder.position))
        return tokens.unflatten(0, sketch.shape[:2]) * features["has_sketch"].to(tokens)[:, :, None, None]
