"""Reference-only attention: reference images on denoisers that read none by themselves.

Before each call of the denoiser, the frozen denoiser itself runs on the latents of each reference, noised to the level
of that call, with the call's other arguments but residuals of ControlNets. There, the keys and values of image tokens
are kept in each layer in which image tokens read each other; in the call, image queries read them beside the layer's
own (`core.captured`):

    softmax([Q K^T, Q K_r^T + log(a_r(x))] / sqrt(d)) [V, V_r]

with a_r(x) = weight * layer factor * schedule * region of reference r at place x; where all are 0 the attention is the
stock one, bit for bit. Keys are kept behind rotary embeddings: a place of the reference is near the same place of the
image. No weights are trained.

After reference-only control of ControlNet's authors (https://github.com/Mikubill/sd-webui-controlnet, discussion 1236).
Differs: there, layers read a reference at full strength or not at all, its weight is the share of layers that do, and
noise is drawn at each step; here weights, regions and schedules are biases of one softmax, and noise is drawn once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Encoders
from weftwork.attention_processors.core.batch import Batch, Strengths, padded
from weftwork.attention_processors.core.branch import Branch, conditional_half
from weftwork.attention_processors.core.caches import without_caches
from weftwork.attention_processors.core.call_rows import first_alike, rows_of, without_control
from weftwork.attention_processors.core.captured import Capture, Captured, ReadCaptured
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded, check_layout
from weftwork.attention_processors.core.families import call_arguments, sample_of
from weftwork.attention_processors.core.grids import Given, Positional
from weftwork.attention_processors.core.image_latents import latent_size, with_latents
from weftwork.attention_processors.core.key_bias import KeyBiasAdapter, KeyStrength
from weftwork.attention_processors.core.processor import conditioned, is_compiled
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.attention_processors.encoders.latents import to_unit
from weftwork.attention_processors.in_context.conditions import ReferenceOnly
from weftwork.datasets.readers.errors import UserError

ABSENT: Final = ReferenceOnly(weight=0)


class EncodeImage(Protocol):
    """Encoder of an image in [-1, 1] to latents of a given height and width."""

    def __call__(
        self, image: Float[Tensor, "3 height width"], size: tuple[int, int], /
    ) -> Float[Tensor, "channel h w"]: ...


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceOnlyBatch(Batch):
    """Distinct reference images in [-1, 1], of any size.

    Args:
        index: which image, -1 for none.
        encode: the frozen encoder, which runs when the size of the latents is known.
    """

    images: tuple[Float[Tensor, "3 height width"], ...]
    index: Int[Tensor, "design part"]
    encode: EncodeImage | None = None


@dataclass(frozen=True)
class EncodedReferenceImages(Encoded):
    """References to be read at these layers."""

    layers: Sequence[str]
    strengths: Strengths
    images: tuple[Tensor, ...]
    index: Int[Tensor, "design part"]
    encode: EncodeImage
    known: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Results of `latents`, which all passes and halves of guidance share."""

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        check_layout(self.layers, self.strengths["region"], self.strengths["region_aspect"], layout)
        unconditional = "conditional" not in layout.halves
        unread = unconditional and not bool(self.strengths["null_weight"].any())
        if unread or not self.images:
            return {}, ()
        strength = KeyStrength.of(self.strengths, self.layers, layout)
        kept = {layer: Captured() for layer in self.layers}
        strength.on_call = ReferencePasses(self, layout, strength, kept)
        return {
            layer: ReadCaptured(one, strength.gain(layout.grid(layer), layer), layout.tokens, layout.conditional)
            for layer, one in kept.items()
        }, (strength,)

    def latents(self, size: tuple[int, int]) -> tuple[Float[Tensor, "image channel h w"], Float[Tensor, "channel h w"]]:
        """Returns the latents of all images, and the noise that is added to each."""
        if size not in self.known:
            made = torch.stack([self.encode(one, size) for one in self.images])
            noise = torch.randn(made.shape[1:], generator=torch.Generator().manual_seed(0)).to(made)
            self.known[size] = made, noise
        return self.known[size]


@dataclass(eq=False)
class ReferencePasses:
    """Runs a denoiser on the references before each of its calls in which they act, once for rows that are alike."""

    encoded: EncodedReferenceImages
    layout: Layout
    strength: KeyStrength
    kept: Mapping[str, Captured]

    @torch.no_grad()
    def __call__(self, _: object, denoiser: nn.Module, args: Positional, kwargs: Given) -> None:
        """Keeps the keys and values of references in the rows and parts in which they act."""
        compiled = is_compiled(denoiser)  # compiled code has one form, and one number of rows
        given = without_control(call_arguments(denoiser, args, kwargs))
        images, acting = self._of_rows(len(sample_of(given)))
        if not compiled and not bool(acting.any()):
            for one in self.kept.values():
                one.tokens = None
            return
        row, part = (torch.ones_like(acting) if compiled else acting).nonzero(as_tuple=True)
        noisy = self._noisy(latent_size(denoiser, given))[images[row, part]]
        placed = with_latents(denoiser, rows_of(given, row.tolist()), noisy)
        first = list(range(len(row))) if compiled else first_alike(placed)
        distinct = sorted(set(first))
        with torch.random.fork_rng([noisy.device] if noisy.is_cuda else []):
            tokens = self._tokens(denoiser, placed, distinct, len(images))
        place = torch.zeros_like(images)  # where nothing acts, any tokens
        place[row, part] = torch.tensor([distinct.index(one) for one in first], device=place.device)
        for layer, one in self.kept.items():
            key, value = (x[place].flatten(1, 2) for x in tokens[layer])
            one.tokens = key, value

    def _of_rows(self, rows: int) -> tuple[Int[Tensor, "row part"], Bool[Tensor, "row part"]]:
        """Returns which image each part of a row is, and whether it acts at the current step."""
        index = self.layout.expand(self.encoded.index)
        acting = self.strength.acting & (index >= 0)
        if len(index) != rows:
            half = conditional_half(len(index), rows, self.layout.conditional)
            index, acting = index[half], acting[half]
        return index.clamp(min=0), acting

    def _noisy(self, size: tuple[int, int]) -> Float[Tensor, "image channel h w"]:
        latents, noise = self.encoded.latents(size)
        sampling = self.strength.sampling
        return sampling.signal * latents + sampling.noise * noise

    def _tokens(
        self, denoiser: nn.Module, placed: Mapping[str, Any], rows: Sequence[int], most: int
    ) -> dict[str, list[Tensor]]:
        """Returns the keys and values of each layer in passes of some rows, at most so many at once."""
        passes = {layer: Capture(Captured(), self.layout.tokens) for layer in self.kept}
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in self.kept}
        acting = Conditioning({layer: (one,) for layer, one in passes.items()})
        with conditioned(denoiser, acting), without_caches(denoiser):
            for start in range(0, len(rows), most):
                denoiser.forward(**rows_of(placed, rows[start : start + most]))
                for layer, one in passes.items():
                    assert one.captured.tokens is not None
                    parts[layer].append(one.captured.tokens)
        return {layer: [torch.cat(some) for some in zip(*own, strict=True)] for layer, own in parts.items()}


class ReferenceOnlyAdapter(KeyBiasAdapter[ReferenceOnlyBatch]):
    """Reference images on any denoiser; there is nothing to train."""

    condition_type = (ReferenceOnly,)
    reads_linear = True

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, *, layers: str | Sequence[str] = "self", **config: object) -> Self:
        """Makes an adapter for layers in which image tokens read each other; `ValueError` if the grid is not known."""
        return super().for_denoiser(denoiser, layers=layers, **config)

    def collate(self, conditions: Sequence[Sequence[ReferenceOnly]]) -> ReferenceOnlyBatch:
        rows, images = padded(conditions, ABSENT), dict[tuple[Any, bytes], Image.Image]()
        index = torch.full((len(rows), len(rows[0])), -1)
        for design, row in enumerate(rows):
            for part, one in enumerate(row):
                if one.image is not None:
                    assert isinstance(one.image, Image.Image)
                    image = one.image.convert("RGB")
                    images.setdefault(key := (image.size, image.tobytes()), image)
                    index[design, part] = list(images).index(key)
        tensors = (to_unit(torch.from_numpy(np.array(one))[None])[0] for one in images.values())
        return ReferenceOnlyBatch.of(rows, self.config, images=tuple(tensors), index=index)

    def features(self, batch: ReferenceOnlyBatch, encoders: Encoders) -> ReferenceOnlyBatch:
        if "latents" not in encoders:
            raise UserError("latents: got a pipeline without an autoencoder (vae), which reads the references; load it")
        return replace(batch, encode=encoders["latents"])

    def forward(self, features: ReferenceOnlyBatch) -> EncodedReferenceImages:
        assert features.encode is not None
        layers = list(self.config["layers"])
        strengths = features.strengths(layers, features.weight.device)
        return EncodedReferenceImages(layers, strengths, features.images, features.index, features.encode)
