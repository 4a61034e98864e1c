"""Train image and geometry of new views: places seen by several cameras, with depth (docs/instillation.md)."""

from dataclasses import dataclass
from typing import Final

from weftwork.attention_processors.views import SHARINGS
from weftwork.datasets.readers.errors import check_choice
from weftwork.training.core.config import check_ranges, option
from weftwork.training.core.trainer import Trainer

DISTILLATIONS: Final = ("kl", "mse", "logits")
"""Distances between attention maps; see `attention_distillation`."""


@dataclass(frozen=True)
class ViewsConfig:
    """Objective of aligned views; the geometry's weight and `min(SNR + 1, gamma) / (SNR + 1)` are MoAI's."""

    geometry_weight: float = option(3.0, "weight of the point map's error relative to the image's")
    distillation_weight: float = option(0.1, "weight of the distance of attention maps, for --sharing distilled")
    distillation_kind: str = option("kl", f"its distance: {', '.join(DISTILLATIONS)}")
    snr_gamma: float | None = option(5.0, "min-SNR weighting as in MoAI; none = equal weights")

    def __post_init__(self) -> None:
        check_ranges(self)
        check_choice("distillation_kind", self.distillation_kind, DISTILLATIONS)


@dataclass(frozen=True)
class ViewsModel:
    """Options of new modules."""

    rank: int = option(16, "of the LoRAs of new modules")
    sharing: str = option("instillation", "attention of the image that the geometry gets", SHARINGS)
    layers: str = option("self", "layers that share: self, … or a regular expression")
    gradient: str = option("live", "of the geometry into the image", ("live", "detach"))


@dataclass(frozen=True)
class ViewsData:
    """Options of clips."""

    margin: int | None = option(None, "frames from one reference to the other; none = 30, or fewer in shorter clips")


class ViewsTrainer(Trainer):
    """Trains image and geometry of a new view."""

    options = ViewsConfig
    options_title = "objective"
    model_options = ViewsModel
    data_options = ViewsData
    preparation = "weftwork.training.tasks.views:prepare"
    folder = "folder of clips with cameras and depth"
    backbone = "tiny-rooms"
    synthetic_datasets = ("rooms",)
    samples = 2_000
    without_effect = ("cache_features", "class_designs", "validation_prompt")
    shards = False
