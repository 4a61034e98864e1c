"""Train spatial audio: boxes, depth, prompts and envelopes over time (docs/spatial_audio.md)."""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from weftwork.attention_processors.audio import PROJECTIONS, TIME_CODES
from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import check_ranges, option
from weftwork.training.core.trainer import Groups, Trainer


@dataclass(frozen=True)
class SpatialConfig:
    """Dropout and timesteps of spatial audio; the share without conditions is that of Stable-V2A's code."""

    condition_dropout: float = option(0.1, "share of audio without any condition and prompt")
    prompt_dropout: float = option(0.2, "share of prompts left out")
    depth_dropout: float = option(0.1, "share of depth left out")
    box_dropout: float = option(0.1, "share of tracks left out; walks without boxes are heard in the middle")
    envelope_dropout: float = option(0.2, "share of envelopes left out")
    time_mean: float = option(1.2, "mean logit of timesteps; sides are decided at high ones")

    def __post_init__(self) -> None:
        check_ranges(self)
        if not math.isfinite(self.time_mean):
            raise UserError(f"time_mean: got {self.time_mean}, expected a finite number; 0 is Stable-V2A's")


@dataclass(frozen=True)
class SpatialModel:
    """Options of new modules, and the encoder of audio prompts."""

    seconds: float | None = option(None, "length of the pieces that audio is cut into; none = 2")
    time_code: str = option("sinusoidal", "code of tokens' times", TIME_CODES)
    projections: str = option("frozen", "keys and values: the layers' own, or copies", PROJECTIONS)
    control: str = option("envelope", "of the ControlNet; boxes has both", ("envelope", "boxes"))
    num_layers: int | None = option(None, "blocks of the ControlNet; none = a fifth")
    audio_encoder: str | None = option(
        None, "CLAP's folder or Hub id, for prompts; none = statistics of the autoencoder's latents"
    )


@dataclass(frozen=True)
class SpatialData:
    """Options of the data."""

    prompt: str | None = option(
        None, "prompt of all samples; none = that of the synthetic dataset, with --footsteps varied ones"
    )


class AudioTrainer(Trainer):
    """Trains stereo audio that follows boxes, depth and loudness."""

    options = SpatialConfig
    options_title = "dropout"
    model_options = SpatialModel
    also_with_init_from = ("audio_encoder",)
    data_options = SpatialData
    preparation = "weftwork.training.tasks.audio:prepare"
    folder = "folder of audio files, with boxes and depth beside them"
    synthetic_only = ("footsteps",)
    backbone = "tiny-audio"
    synthetic_datasets = ("walks",)
    samples = 8_000
    own_only = ("seconds", "audio_encoder")
    without_effect = ("cache_features", "class_designs", "resolution", "validation_prompt")
    shards = False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, groups: Groups) -> None:
        super().add_arguments(parser, groups)
        groups.data.add_argument("--footsteps", type=Path, help="folder of recorded footsteps for --synthetic walks")

    def check(self) -> None:
        super().check()
        if self.arguments.footsteps:
            from weftwork.datasets.readers.footsteps import FootstepFolder

            FootstepFolder(self.arguments.footsteps)
