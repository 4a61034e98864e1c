"""Reference-only attention: reference images on denoisers that read none by themselves.

Before each call of the denoiser, the frozen denoiser itself runs on the latents of each reference, noised to the level
of that call, with the call's other arguments. There, the keys and values of image tokens are kept in each layer in
which image tokens read each other; in the call, image queries read them beside the layer's own (`core.captured`):

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
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from weftwork.attention_processors.core.adapter import Encoders
from weftwork.attention_processors.core.batch import Batch, Strengths, padded
from weftwork.attention_processors.core.branch import Branch, conditional_half
from weftwork.attention_processors.core.captured import Capture, Captured, ReadCaptured
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded, check_layout
from weftwork.attention_processors.core.families import call_arguments, sample_of
from weftwork.attention_processors.core.image_latents import latent_size, with_latents
from weftwork.attention_processors.core.key_bias import KeyBiasAdapter, KeyStrength
from weftwork.attention_processors.core.processor import conditioned, is_compiled, unwrapped
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
    """Reference images in [-1, 1], of any size, by design and part; None for none.

    Args:
        encode: the frozen encoder, which runs when the size of the latents is known.
    """

    images: tuple[tuple[Float[Tensor, "3 height width"] | None, ...], ...]
    encode: EncodeImage | None = None


@dataclass(frozen=True)
class EncodedReferenceImages(Encoded):
    """References to be read at these layers."""

    layers: Sequence[str]
    strengths: Strengths
    images: tuple[tuple[Tensor | None, ...], ...]
    encode: EncodeImage
    known: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Results of `latents`, which all passes and halves of guidance share."""

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        check_layout(self.layers, self.strengths["region"], self.strengths["region_aspect"], layout)
        unconditional = "conditional" not in layout.halves
        unread = unconditional and not bool(self.strengths["null_weight"].any())
        if unread or all(one is None for row in self.images for one in row):
            return {}, ()
        strength = KeyStrength.of(self.strengths, self.layers, layout)
        kept = {layer: Captured() for layer in self.layers}
        strength.on_call = ReferencePasses(self, layout, strength, kept)
        return {
            layer: ReadCaptured(one, strength.gain(layout.grid(layer), layer), layout.tokens, layout.conditional)
            for layer, one in kept.items()
        }, (strength,)

    def latents(
        self, size: tuple[int, int]
    ) -> tuple[Float[Tensor, "design part channel h w"], Float[Tensor, "channel h w"]]:
        """Returns the latents of all references, 0 for those that are absent, and the noise that is added to each."""
        if size not in self.known:
            rows = [[None if one is None else self.encode(one, size) for one in row] for row in self.images]
            nothing = torch.zeros_like(next(one for row in rows for one in row if one is not None))
            made = torch.stack([torch.stack([nothing if one is None else one for one in row]) for row in rows])
            noise = torch.randn(nothing.shape, generator=torch.Generator().manual_seed(0)).to(nothing)
            self.known[size] = made, noise
        return self.known[size]


@dataclass(eq=False)
class ReferencePasses:
    """Runs a denoiser on the references before each of its calls in which they act."""

    encoded: EncodedReferenceImages
    layout: Layout
    strength: KeyStrength
    kept: Mapping[str, Captured]

    @torch.no_grad()
    def __call__(self, denoiser: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Keeps the keys and values of a pass over each reference.

        Raises:
            ValueError: a denoiser whose cache would mix up passes and calls.
        """
        if not self.strength.active and not is_compiled(denoiser):  # compiled code has one form
            for one in self.kept.values():
                one.tokens = None
            return
        if getattr(unwrapped(denoiser), "is_cache_enabled", False):
            raise UserError(
                f"{type(unwrapped(denoiser)).__name__}: got a cache beside reference images, whose passes it would "
                "take for the call's; disable_cache()"
            )
        given = call_arguments(denoiser, args, kwargs)
        passes = {layer: Capture(Captured(), self.layout.tokens) for layer in self.kept}
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in self.kept}
        with conditioned(denoiser, Conditioning({layer: (one,) for layer, one in passes.items()})):
            for noisy in self._noisy(denoiser, given).unbind(1):
                with torch.random.fork_rng([noisy.device] if noisy.is_cuda else []):
                    denoiser.forward(**with_latents(denoiser, given, noisy))
                for layer, one in passes.items():
                    assert one.captured.tokens is not None
                    parts[layer].append(one.captured.tokens)
        for layer, one in self.kept.items():
            keys, values = zip(*parts[layer], strict=True)
            one.tokens = torch.cat(keys, 1), torch.cat(values, 1)

    def _noisy(self, denoiser: nn.Module, given: Mapping[str, Any]) -> Float[Tensor, "row part channel h w"]:
        latents, noise = self.encoded.latents(latent_size(denoiser, given))
        latents, rows = self.layout.expand(latents), len(sample_of(given))
        if len(latents) != rows:
            latents = latents[conditional_half(len(latents), rows, self.layout.conditional)]
        signal, level = self.strength.noise_level
        return signal * latents + level * noise


class ReferenceOnlyAdapter(KeyBiasAdapter[ReferenceOnlyBatch]):
    """Reference images on any denoiser; there is nothing to train."""

    condition_type = (ReferenceOnly,)
    reads_linear = True

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, *, layers: str | Sequence[str] = "self", **config: object) -> Self:
        """Makes an adapter for layers of a denoiser in which image tokens read each other.

        Raises:
            ValueError: as for `Adapter`, or a denoiser whose grid is not known.
        """
        return super().for_denoiser(denoiser, layers=layers, **config)

    def collate(self, conditions: Sequence[Sequence[ReferenceOnly]]) -> ReferenceOnlyBatch:
        rows = padded(conditions, ABSENT)
        images = tuple(tuple(_tensor(one) for one in row) for row in rows)
        return ReferenceOnlyBatch.of(rows, self.config, images=images)

    def features(self, batch: ReferenceOnlyBatch, encoders: Encoders) -> ReferenceOnlyBatch:
        if "latents" not in encoders:
            raise UserError("latents: got a pipeline without an autoencoder (vae), which reads the references; load it")
        return replace(batch, encode=encoders["latents"])

    def forward(self, features: ReferenceOnlyBatch) -> EncodedReferenceImages:
        assert features.encode is not None
        layers = list(self.config["layers"])
        strengths = features.strengths(layers, features.weight.device)
        return EncodedReferenceImages(layers, strengths, features.images, features.encode)


def _tensor(condition: ReferenceOnly) -> Float[Tensor, "3 height width"] | None:
    if condition.image is None:
        return None
    assert isinstance(condition.image, Image.Image)
    return to_unit(torch.from_numpy(np.array(condition.image.convert("RGB")))[None])[0]
