"""The base of trainers on captioned images: folders with metadata.jsonl, and image–text datasets."""

from dataclasses import dataclass, fields
from typing import ClassVar

from weftwork.training.core.config import ObjectiveConfig, option
from weftwork.training.core.trainer import Trainer

COLUMN = "of own data; none = the one column that can hold {}s"


@dataclass(frozen=True)
class StyleConfig(ObjectiveConfig):
    """Dropout of the style and reference tasks; the shares are IP-Adapter's (arXiv 2308.06721)."""

    caption_dropout: float = option(0.05, "share of empty prompts")
    style_dropout: float = option(0.05, "share of images with the null style")
    joint_dropout: float = option(0.05, "share of images with both")


@dataclass(frozen=True)
class CaptionedData:
    """Options of captioned images."""

    dataset_name: str | None = option(None, "an image–text dataset of Hugging Face datasets, by name or path")
    image_column: str | None = option(None, COLUMN.format("image"))
    caption_column: str | None = option(None, COLUMN.format("caption"))
    aspect_buckets: bool = option(False, "keep the aspects of own images, about")


class CaptionedTrainer(Trainer):
    """Trains on captioned images, each with a latent image and a prompt."""

    options = StyleConfig
    data_options: ClassVar[type[CaptionedData]] = CaptionedData
    samples = 12_000
    sources = ("train_data_dir", "dataset_name", "synthetic")
    own_only = ("aspect_buckets", "image_column", "caption_column", "resolution")

    def column_options(self) -> dict[str, str | None]:
        """Returns the columns of user data by option."""
        names = [one.name for one in fields(self.data_options) if one.name.endswith("_column")]
        return {name: getattr(self.arguments, name) for name in names}
