"""Options of the training tasks; importing them loads no library, so that `weftwork train METHOD --help` is quick."""

import math
from dataclasses import dataclass, fields
from typing import Final

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import option

DISTILLATIONS: Final = ("kl", "mse", "logits")
"""Distances between attention maps; see `attention_distillation`."""
WEIGHTING_SCHEMES: Final = ("logit_normal", "mode", "sigma_sqrt", "cosmap", "none")
"""Timestep sampling and loss weighting of flow matching, as in diffusers' training scripts."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The denoising objective of an adapter.

    Raises:
        ValueError: a number out of its range.
    """

    caption_dropout: float = option(0.15, "share of empty prompts")
    snr_gamma: float | None = option(None, "min-SNR weighting, for example 5")
    noise_offset: float = option(0.0, "share of noise that is constant per channel, for darker and lighter images")
    logit_mean: float | None = option(
        None, "mean logit of timesteps, below 0 = less noise; none = uniform, or 0 with flow matching"
    )
    logit_std: float = option(1.4, "standard deviation of that logit; 1 with flow matching and no --logit_mean")
    weighting_scheme: str = option("logit_normal", f"with flow matching: {', '.join(WEIGHTING_SCHEMES)}")
    guidance_scale: float = option(3.5, "guidance that distilled backbones read, such as FLUX.1-dev")
    max_sequence_length: int | None = option(None, "tokens of prompts of transformers; none = those of their pipelines")

    def __post_init__(self) -> None:
        check_shares(self)
        if self.weighting_scheme not in WEIGHTING_SCHEMES:
            raise UserError(
                f"weighting_scheme: got {self.weighting_scheme!r}, expected one of {', '.join(WEIGHTING_SCHEMES)}; "
                "pass one of these"
            )
        if self.weighting_scheme != "logit_normal" and self.logit_mean is not None:
            raise UserError(
                f"logit_mean: has no effect with the weighting_scheme {self.weighting_scheme!r}; leave one of them out"
            )
        if self.logit_std <= 0:
            raise UserError(f"logit_std: got {self.logit_std}, expected a number above 0")

    def check_effects(self, backbone: str, *, flow: bool, distilled: bool, transformer: bool) -> None:
        """Raises for options that have no effect on a backbone.

        Args:
            flow: whether it is trained with flow matching.
            distilled: whether it reads the guidance scale.
            transformer: whether its pipelines can be told how many tokens to read.
        """
        used = {
            "snr_gamma": not flow,
            "weighting_scheme": flow,
            "guidance_scale": distilled,
            "max_sequence_length": transformer,
        }
        for entry in fields(ObjectiveConfig):
            if not used.get(entry.name, True) and getattr(self, entry.name) != entry.default:
                raise UserError(f"{entry.name}: has no effect with {backbone}; leave it out")


@dataclass(frozen=True)
class PairedConfig(ObjectiveConfig):
    """Dropout of the paired task.

    Raises:
        ValueError: a share outside [0, 1], or a number out of its range.
    """

    pair_dropout: float = option(0.1, "share of pairs left out")
    sketch_dropout: float = option(0.1, "share of pairs without their sketch")
    text_dropout: float = option(0.1, "share of pairs without their text")
    global_sketch_dropout: float = option(0.2, "share of global sketches left out, of adapters that read them")
    null_dropout: float = option(0.1, "share of designs as the null condition")
    region_share: float = option(0.7, "share of batches that act in regions only")


@dataclass(frozen=True)
class StyleConfig(ObjectiveConfig):
    """Dropout of the style and reference tasks; the shares are IP-Adapter's (arXiv 2308.06721).

    Raises:
        ValueError: a share outside [0, 1], or a number out of its range.
    """

    caption_dropout: float = option(0.05, "share of empty prompts")
    style_dropout: float = option(0.05, "share of images with the null style")
    joint_dropout: float = option(0.05, "share of images with both")


@dataclass(frozen=True)
class ViewsConfig:
    """The objective of aligned views; the geometry's weight and `min(SNR + 1, gamma) / (SNR + 1)` are MoAI's.

    Raises:
        ValueError: a weight that is negative, or an unknown kind of distillation.
    """

    geometry_weight: float = option(3.0, "weight of the point map's error relative to the image's")
    distillation_weight: float = option(0.1, "weight of the distance of attention maps, for --sharing distilled")
    distillation_kind: str = option("kl", f"its distance: {', '.join(DISTILLATIONS)}")
    snr_gamma: float | None = option(5.0, "min-SNR weighting as in MoAI; none = equal weights")

    def __post_init__(self) -> None:
        for name in ("geometry_weight", "distillation_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: got {getattr(self, name)}, expected a number of at least 0; raise it")
        if self.distillation_kind not in DISTILLATIONS:
            raise UserError(
                f"distillation_kind: got {self.distillation_kind!r}, expected one of {', '.join(DISTILLATIONS)}; pass "
                "one of these"
            )


@dataclass(frozen=True)
class SpatialConfig:
    """Dropout and timesteps of the spatial audio task; the share without conditions is that of Stable-V2A's code.

    Raises:
        ValueError: a share outside [0, 1], or a mean that is not finite.
    """

    condition_dropout: float = option(0.1, "share of audio without any condition and prompt")
    prompt_dropout: float = option(0.2, "share of prompts left out")
    depth_dropout: float = option(0.1, "share of depth left out")
    box_dropout: float = option(0.1, "share of tracks left out")
    envelope_dropout: float = option(0.2, "share of envelopes left out")
    time_mean: float = option(1.2, "mean logit of timesteps; sides are decided at high ones")

    def __post_init__(self) -> None:
        check_shares(self)
        if not math.isfinite(self.time_mean):
            raise UserError(f"time_mean: got {self.time_mean}, expected a finite number; 0 is Stable-V2A's")


def check_shares(config: object) -> None:
    """Raises unless all dropouts and other shares of a config are in [0, 1]."""
    for name, value in vars(config).items():
        if name.endswith(("_dropout", "_share", "noise_offset")) and not 0 <= value <= 1:
            raise UserError(f"{name}: got {value}, expected a share in [0, 1]")
