"""Train styles by name: images of each, with captions of what they show (docs/style.md)."""

from dataclasses import dataclass

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import option
from weftwork.training.trainers.captioned import COLUMN, CaptionedData, CaptionedTrainer


@dataclass(frozen=True)
class StyleModel:
    """Options of a new adapter."""

    layers: str = option("decoder", "layers of a new adapter: all, decoder, … or a regular expression")
    fusion: str = option("additive", "additive, gated, concat, exclusive or affine")
    num_tokens: int = option(4, "tokens per style of a new adapter")
    style_dim: int = option(128, "width of a style's row of a new adapter")
    rank: int = option(0, "rank of keys and values of a new adapter; 0 = full")


@dataclass(frozen=True)
class StyleData(CaptionedData):
    """Options of images with the names of their styles."""

    style_column: str | None = option(None, COLUMN.format("style"))
    style: str | None = option(None, "the name of the one style, where the data have no style column")
    streaming: bool = option(False, "read --dataset_name row by row; nothing is kept")
    styles: tuple[str, ...] = option((), "with --streaming, the names in the style column")


class StyleTrainer(CaptionedTrainer):
    """Trains styles by name."""

    model_options = StyleModel
    data_options = StyleData
    preparation = "weftwork.training.tasks.style:prepare"
    folder = "folder of images with metadata.jsonl: text and style"
    synthetic_datasets = ("outfits", "drawings")
    own_only = (*CaptionedTrainer.own_only, "style", "style_column")

    def check(self) -> None:
        super().check()
        arguments = self.arguments
        if arguments.styles and not arguments.streaming:
            raise UserError("styles: has no effect without --streaming, since all rows are read; leave it out")
        if arguments.streaming and (arguments.dataset_name is None or arguments.aspect_buckets):
            raise UserError(
                "streaming: got it without --dataset_name or with --aspect_buckets; stream a dataset, in squares"
            )
