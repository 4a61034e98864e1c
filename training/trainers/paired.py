"""Train pairs of sketch and text, each with its region of the image (docs/paired.md)."""

from dataclasses import dataclass

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import ObjectiveConfig, option
from weftwork.training.core.trainer import Trainer


@dataclass(frozen=True)
class PairedConfig(ObjectiveConfig):
    """Dropout of the paired task; `ValueError` for a share outside [0, 1], or a number out of its range."""

    pair_dropout: float = option(0.1, "share of pairs left out")
    sketch_dropout: float = option(0.1, "share of pairs without their sketch")
    text_dropout: float = option(0.1, "share of pairs without their text")
    global_sketch_dropout: float = option(0.2, "share of global sketches left out, of adapters that read them")
    null_dropout: float = option(0.1, "share of designs as the null condition")
    region_share: float = option(0.7, "share of batches that act in regions only")


@dataclass(frozen=True)
class PairedModel:
    """Options of a new adapter."""

    layers: str = option("all", "layers of a new adapter: all, decoder, … or a regular expression")
    sketch_encoder: str = option("strokes", "strokes (small, trained) or a frozen vision model's id")
    sketch_patch: int = option(16, "side in pixels of a token's part of the sketch, with strokes", (16, 8, 4, 2))
    skip_blank: bool = option(False, "keep blank parts of sketches out of the pair-former, with strokes")
    text_states: int = option(40, "token states read per description; 0 = pooled")
    token_dim: int = option(128, "width of pair tokens of a new adapter")
    global_sketch: bool = option(False, "add the module for a sketch of the whole")


@dataclass(frozen=True)
class PairedData:
    """Options of pairs."""

    aspect_buckets: bool = option(False, "keep the aspects of own images, about")
    pair_buckets: bool = option(False, "batches of images with equally many pairs: faster")
    ink: str | None = option(None, "strokes of own sketches; none = auto", ("auto", "dark", "light"))
    merged: bool = option(False, "one global sketch with all words: the baseline")
    unnamed_share: float = option(0.0, "share of synthetic images whose words name no object")


class PairedTrainer(Trainer):
    """Trains localized pairs of sketch and text."""

    options = PairedConfig
    model_options = PairedModel
    data_options = PairedData
    preparation = "weftwork.training.tasks.paired:prepare"
    folder = "folder with metadata.jsonl, or the Sketchy dataset"
    synthetic_datasets = ("outfits", "drawings")
    samples = 6_000
    own_only = ("aspect_buckets", "ink", "resolution")
    synthetic_only = ("merged", "unnamed_share")

    def check(self) -> None:
        super().check()
        model = self.read(PairedModel)
        if model.sketch_encoder != "strokes" and model.sketch_patch != PairedModel.sketch_patch:
            raise UserError(
                "sketch_patch: has no effect with --sketch_encoder, whose patches are its own; leave it out"
            )
        if self.arguments.merged and self.arguments.pair_buckets:
            raise UserError("pair_buckets: has no effect with --merged, since images have one pair; leave it out")
        if self.arguments.merged and self.arguments.validation_cases:
            raise UserError(
                "validation_cases: has no effect with --merged, since cases are scored pair by pair; leave it out, and "
                "look at the validation images"
            )
