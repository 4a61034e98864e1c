"""Train an IP-Adapter: reference images, read through a frozen image encoder (docs/reference.md)."""

from dataclasses import dataclass

from weftwork.attention_processors.reference import PROJECTIONS
from weftwork.training.core.config import option
from weftwork.training.trainers.captioned import CaptionedTrainer


@dataclass(frozen=True)
class ReferenceModel:
    """Options of the image encoder and of a new adapter."""

    image_encoder: str | None = option(None, "folder or Hub id of the frozen encoder")
    projection: str = option("basic", "of a new adapter", PROJECTIONS)
    num_tokens: int = option(4, "tokens per image of a new adapter")
    layers: str = option("all", "layers of a new adapter: all, decoder, … or an expression")


class ReferenceTrainer(CaptionedTrainer):
    """Trains an IP-Adapter; every image is its own reference."""

    model_options = ReferenceModel
    also_with_init_from = ("image_encoder",)
    preparation = "weftwork.training.tasks.reference:prepare"
    folder = "folder of images with metadata.jsonl: text"
    synthetic_datasets = ("drawings",)
