"""Paired adapter: localized sketch–text pairs (LOTS, arXiv 2507.22627, and its multi-level extension, 2602.18309).

Per pair, sketch tokens and text tokens pass a pair-former on their own; the tokens of all pairs are read by one softmax
beside the frozen text attention ("deferred merging"):

    y = softmax(Q K_t^T / sqrt(d)) V_t + A softmax(Q K_p^T / sqrt(d) + log(a_p / A)) V_p

with a_p(x) = weight * schedule * region of pair p and A = max_p a_p; all ones is the published equation.

Source: intelligolabs/lots@5913624 (src/lots), intelligolabs/lots-extension@43c4f4f.
Differs: keys and values of the pairs are projected once per generation, not once per step; weights, schedules and
regions per pair; a pair may lack its sketch or its text (the missing half is the null condition's); `isolation`
"per_pair" keeps pairs independent; `anchored` tokens act around their own place on the canvas.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.adapter import Encoders, KeyValueAdapter
from weftwork.attention_processors.core.adapter_files import FORMAT_VERSION
from weftwork.attention_processors.core.batch import padded
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.regions import region_size
from weftwork.attention_processors.encoders.image import unit_tensor
from weftwork.attention_processors.paired.batch import PairedBatch, PairedFeatures
from weftwork.attention_processors.paired.conditions import (
    GlobalSketch,
    PreparedPair,
    PreparedSketch,
    SketchTextPair,
    stroke_pixels,
)
from weftwork.attention_processors.paired.pair_former import (
    GlobalSketchAttention,
    ImageProjector,
    PairFormer,
    TextProjector,
    null_tokens,
)
from weftwork.attention_processors.paired.stroke_encoder import StrokeEncoder
from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.datasets.readers.images import center_crop, letterbox

__all__ = ["GlobalSketch", "PairedAdapter", "SketchTextPair", "StrokeEncoder"]

ABSENT = PreparedPair(None, weight=0.0)
"""Padding of designs with fewer pairs than others."""


class PairedAdapter(KeyValueAdapter[PairedBatch, PairedFeatures]):
    """The trained part of the paired method.

    Args:
        layers: inner width by layer name; `PairedAdapter.for_denoiser` fills it in.
        base: description of the base model.
        token_dim: width of pair tokens.
        image_dim: width of the sketch encoder's tokens.
        text_dim: width of the text encoder's states.
        text_tokens: tokens per pooled description.
        text_states: 0 reads one pooled vector per description, as published; n > 0 its first n token states.
        num_readout_tokens, num_layers, num_heads, norm_groups, masking, fusion, isolation: see `PairFormer`.
        global_sketch: whether the adapter has the module for a sketch of the whole image.
        sketch_encoder: "strokes" for the small `StrokeEncoder` trained here, else the id of a frozen vision model that
            `set_encoders(sketch=SketchEncoder.from_pretrained(id))` brings.
        sketch_size: side in pixels that sketches are resized to.
        sketch_patch: side in pixels of the part that one token of `StrokeEncoder` stands for: 16, 8, 4 or 2.
        skip_blank: whether tokens of `StrokeEncoder` outside of strokes and hull skip the pair-former's blocks, which
            is faster for small sketches; with a `masking` of "pair" or "compression".
        center_crop: the authors' preprocessing (shortest edge to 256, centre 224) instead of letter-boxing.
        anchored: image tokens (read-outs, where the masking has them) act around their own place on the canvas, with
            this standard deviation (a fraction of the canvas); 0 is the published equation.
        training: origin of the weights (data, steps, seed), recorded in `config.json`.
    """

    condition_type = (SketchTextPair, GlobalSketch)

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        layers: dict[str, int],
        base: dict[str, object] | None = None,
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
        sketch_patch: int = 16,
        skip_blank: bool = False,
        center_crop: bool = False,
        anchored: float = 0.0,
        training: dict[str, object] | None = None,
        format_version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        side = math.isqrt(num_readout_tokens)
        if anchored and masking in ("compression", "all") and side * side != num_readout_tokens:
            raise UserError(
                f"num_readout_tokens: got {num_readout_tokens}, expected a square: anchored ones form a grid"
            )
        check_choice("sketch_patch", sketch_patch, (16, 8, 4, 2))
        small = sketch_encoder == "strokes"
        if skip_blank and not (small and masking in ("compression", "pair")):
            raise UserError(
                f"skip_blank: got sketch_encoder={sketch_encoder!r} and masking={masking!r}, expected 'strokes' and "
                "'pair' or 'compression'; leave it out"
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
        self.stroke_encoder = StrokeEncoder(image_dim, sketch_size, sketch_patch) if small else None
        self.make_projections(layers, token_dim)

    # -- from conditions to features -----------------------------------------------------------------------

    def collate(self, conditions: Sequence[Sequence[SketchTextPair | GlobalSketch | PreparedSketch]]) -> PairedBatch:
        """Returns padded tensors, one row per design; designs may differ in their number of pairs, also 0.

        Raises:
            ValueError: more than one global sketch in a design, one that this adapter has no module for, layer factors
                that match nothing, or regions of different aspects.
        """
        pairs, wholes = zip(*map(self._sorted, conditions), strict=True)
        if any(wholes) and self.whole is None:
            raise UserError("conditions: got a GlobalSketch, but this adapter was trained without one; leave it out")
        if any(len(row) > 1 for row in wholes):
            raise UserError("conditions: got several GlobalSketch in one design, expected at most one; merge them")
        pairs, blank = padded(pairs, ABSENT), self.pixels(None)

        def drawn(one: PreparedSketch) -> Float[Tensor, "channel size size"]:
            return blank if one.pixels is None else one.pixels

        own: dict[str, Any] = {
            "sketch": torch.stack([torch.stack([drawn(one) for one in row]) for row in pairs]),
            "has_sketch": torch.tensor([[one.pixels is not None for one in row] for row in pairs]),
            "has_text": torch.tensor([[one.text is not None for one in row] for row in pairs]),
            "texts": tuple(tuple(one.text or "" for one in row) for row in pairs),
            "pair_mask": torch.tensor([[one is not ABSENT for one in row] for row in pairs]),
        }
        rows: list[list[PreparedSketch]] = [[*row] for row in pairs]
        if self.whole is not None:
            last = [row[0] if row else ABSENT for row in wholes]
            rows = [[*row, one] for row, one in zip(rows, last, strict=True)]
            given = torch.tensor([one is not ABSENT for one in last])
            own |= {"whole": torch.stack([drawn(one) for one in last]), "whole_mask": given, "has_whole": given}
        batch = PairedBatch.of(rows, self.config, **own)
        factors = any(one.layers for row in rows for one in row)
        return batch if factors else replace(batch, layer_weight=None)  # pairs have long biases: one per grid is enough

    def _sorted(
        self, conditions: Sequence[SketchTextPair | GlobalSketch | PreparedSketch]
    ) -> tuple[list[PreparedPair], list[PreparedSketch]]:
        """Returns the prepared pairs and global sketches of a design."""
        pairs: list[PreparedPair] = []
        wholes: list[PreparedSketch] = []
        for one in conditions:
            if isinstance(one, SketchTextPair | PreparedPair):
                pairs.append(self.prepare(one) if isinstance(one, SketchTextPair) else one)
            else:
                wholes.append(self.prepare_whole(one) if isinstance(one, GlobalSketch) else one)
        return pairs, wholes

    def prepare(self, pair: SketchTextPair) -> PreparedPair:
        """Returns a pair as tensors; a dataset may cache the result and pass it to `collate`."""
        return PreparedPair(text=pair.text, **self._prepared(pair))

    def prepare_whole(self, whole: GlobalSketch) -> PreparedSketch:
        """As `prepare`, of a global sketch."""
        return PreparedSketch(**self._prepared(whole))

    def _prepared(self, condition: SketchTextPair | GlobalSketch) -> dict[str, Any]:
        region = None if condition.region is None else condition.region_map(region_size(condition.aspect or 1.0))
        pixels = None if condition.sketch is None else self.pixels(condition.sketch)
        return {**condition.common_fields(), "pixels": pixels, "region": region, "region_aspect": condition.aspect}

    def composed(self, pairs: Sequence[PreparedPair]) -> PreparedSketch | None:
        """Returns the sketches of all pairs as one global sketch, every pixel the darkest; None without any sketch."""
        drawn = [pair.pixels for pair in pairs if pair.pixels is not None]
        if not drawn:
            return None
        if self.stroke_encoder is None:
            return PreparedSketch(torch.stack(drawn).amin(0))
        ink = torch.stack(drawn)[:, 0].amax(0)
        whole = Image.fromarray(((1 - ink) * 255).round().byte().numpy())
        return PreparedSketch(stroke_pixels(whole, self.config["sketch_size"]))

    def pixels(self, image: Any) -> Float[Tensor, "channel size size"]:
        """Returns the encoder's input: strokes and hull for the small one, RGB in [0, 1] for frozen ones."""
        size = self.config["sketch_size"]
        if image is None:
            return torch.zeros(2 if self.stroke_encoder is not None else 3, size, size)
        if self.stroke_encoder is not None:
            return stroke_pixels(image, size)
        square = center_crop(image, size) if self.config["center_crop"] else letterbox(image, size)
        return unit_tensor(square)

    @torch.no_grad()
    def features(self, batch: PairedBatch, encoders: Encoders) -> PairedFeatures:
        """Returns texts through the text encoders, and sketches through the frozen sketch encoder, if any.

        `ValueError` if an encoder is missing, with the call that adds it.
        """
        text = self._texts(batch, encoders)
        if self.stroke_encoder is not None:
            return batch.derived(PairedFeatures, text=text)
        encoder = encoders.get("sketch")
        name = self.config["sketch_encoder"]
        if encoder is None:
            raise UserError(
                f"sketch encoder: this adapter reads sketches through {name!r}; call "
                f"pipe.set_encoders(sketch=SketchEncoder.from_pretrained({name!r})) first"
            )
        image = encoder(batch.sketch.flatten(0, 1)).unflatten(0, batch.sketch.shape[:2])
        image, whole = masked(image, batch.has_sketch), batch.whole
        if whole is not None and batch.has_whole is not None:
            whole = masked(encoder(whole), batch.has_whole)
        return batch.derived(PairedFeatures, text=text, image=image, sketch=None, whole=whole)

    def _texts(self, batch: PairedBatch, encoders: Encoders) -> Float[Tensor, "design pair *state text_dim"]:
        flat = [one for row in batch.texts for one in row]
        states = self.config["text_states"]
        if not encoders["text"].models:
            if batch.has_text.any():
                raise UserError(
                    "text: got pairs with texts, but the pipeline has no text encoder; keep it, or pass sketches alone"
                )
            shape = (*batch.has_text.shape, states, self.config["text_dim"])
            return torch.zeros([side for side in shape if side], device=batch.has_text.device)
        if states:
            values, mask = encoders["text"].tokens(flat, states)
            values = values * mask[..., None]
        else:
            values = encoders["text"].pooled(flat)
        if values.shape[-1] != self.config["text_dim"]:
            raise UserError(
                f"text: got vectors of width {values.shape[-1]} from the pipeline's text encoders, but the adapter was "
                f"trained on {self.config['text_dim']}; load one that was trained for this pipeline"
            )
        return masked(values.unflatten(0, batch.has_text.shape), batch.has_text)

    # -- the trained part ----------------------------------------------------------------------------------

    def forward(self, features: PairedFeatures) -> EncodedTokens:
        """Returns keys and values of all pairs, with those of the null condition beside them."""
        weight = self.image_projector.projection.weight
        strengths = features.merged() if self.config["fusion"] == "mean" else features
        image, text = self._image(features).to(weight), features.text.to(weight)
        mask = features.pair_mask.to(weight.device)
        given = self.image_projector(image), self.text_projector(text), mask
        drawn = self._drawn(features)
        tokens, keep = self.pair_former(*given, drawn), self.pair_former.token_mask(*given).flatten(1)
        null = null_tokens(self.pair_former, self.image_projector, self.text_projector, image, text, drawn)
        parts, count = tokens.shape[1:3]
        null = null.expand(1, parts, -1, -1)
        part = torch.arange(parts, device=weight.device).repeat_interleave(count)
        anchors = self._anchors(image.shape[2], parts, count)
        if self.whole is not None:
            whole, here = self._whole(features)
            blank = torch.zeros_like(whole[:1])
            tokens = self.whole(whole, tokens.flatten(1, 2))[:, None]
            null = self.whole(blank, null.flatten(1, 2))[:, None]
            keep = torch.cat([here[:, None].expand(-1, whole.shape[1]), keep], 1)
            part = torch.cat([torch.full((whole.shape[1],), parts, device=weight.device), part])
            if anchors is not None:  # a global sketch acts everywhere
                anchors = torch.cat([anchors.new_full((whole.shape[1], 2), math.nan), anchors])
        return EncodedTokens(
            self.project(tokens),
            self.project(null),
            keep,
            part,
            **strengths.strengths(list(self.config["layers"]), weight.device),
            anchors=anchors,
            anchor_sigma=self.config["anchored"],
        )

    def _whole(
        self, features: PairedFeatures
    ) -> tuple[Float[Tensor, "design image_token image_dim"], Bool[Tensor, " design"]]:
        """Returns tokens of the global sketches, and a mask of the designs that have one."""
        weight = self.image_projector.projection.weight
        assert features.whole is not None and features.has_whole is not None and features.whole_mask is not None
        whole = features.whole.to(weight)
        if self.stroke_encoder is not None:
            whole = masked(self.stroke_encoder(whole), features.has_whole)
        return whole, features.whole_mask.to(weight.device)

    def _anchors(self, image_tokens: int, parts: int, count: int) -> Float[Tensor, "token 2"] | None:
        """Returns anchors: read-outs on a grid of their own, or image tokens where these are the result."""
        if not self.config["anchored"]:
            return None
        placed = self.pair_former.num_readout_tokens or image_tokens
        side = math.isqrt(placed)
        centres = (torch.arange(side) + 0.5) / side
        grid = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).flatten(0, 1)
        free = torch.full((count - len(grid), 2), math.nan)
        return torch.cat([grid, free]).repeat(parts, 1).to(self.image_projector.projection.weight.device)

    def _image(self, features: PairedFeatures) -> Float[Tensor, "design pair image_token image_dim"]:
        if self.stroke_encoder is None:
            assert features.image is not None
            return features.image
        assert features.sketch is not None
        tokens = self.stroke_encoder(features.sketch.flatten(0, 1).to(self.stroke_encoder.position))
        return masked(tokens.unflatten(0, features.sketch.shape[:2]), features.has_sketch)

    def _drawn(self, features: PairedFeatures) -> Bool[Tensor, "design pair image_token"] | None:
        """Returns a mask of the tokens to transform; None for all."""
        if not self.config["skip_blank"]:
            return None
        assert self.stroke_encoder is not None and features.sketch is not None
        drawn = self.stroke_encoder.drawn(features.sketch.flatten(0, 1)).unflatten(0, features.sketch.shape[:2])
        return (drawn & features.has_sketch[..., None]).to(self.image_projector.projection.weight.device)


def masked(values: Float[Tensor, "*item token dim"], keep: Bool[Tensor, "*item"]) -> Float[Tensor, "*item token dim"]:
    """Zeroes the items that are not kept."""
    return values * keep.to(values.device).view(*keep.shape, *[1] * (values.ndim - keep.ndim))
