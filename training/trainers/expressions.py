"""Train expressions of people: names, a bank of codes and an embedder of images (docs/expressions.md)."""

from dataclasses import dataclass

from weftwork.attention_processors.expressions import BANKS
from weftwork.training.core.config import option
from weftwork.training.core.trainer import Trainer
from weftwork.training.trainers.captioned import StyleConfig


@dataclass(frozen=True)
class ExpressionConfig(StyleConfig):
    """Dropout and weights of the losses; all but the shares of dropout are ours: the authors' are not published."""

    style_dropout: float = option(0.05, "share of images with the null expression")
    image_share: float = option(0.5, "share of images whose prior is that of another person's image")
    quantization_weight: float = option(1.0, "weight of the loss of vector quantization")
    divergence_weight: float = option(1.0, "weight of the divergence of images' priors from those of their names")


@dataclass(frozen=True)
class ExpressionModel:
    """Options of a new adapter."""

    layers: str = option("all", "layers of a new adapter: all, decoder, … or a regular expression")
    bank: str = option("nearest", "codes that are read, or none for no bank", BANKS)
    num_codes: int = option(64, "codes of the bank of a new adapter")
    num_tokens: int = option(8, "tokens per expression of a new adapter")
    hidden_dim: int = option(256, "width of the hidden layers of a new adapter")
    prior_dim: int = option(64, "width of the priors of a new adapter")
    embedder_size: int = option(64, "side of the images that the embedder of a new adapter reads")


@dataclass(frozen=True)
class PeopleData:
    """Options of the data."""

    people: str | None = option(None, "folder of the tarball with the people's parts; none = .cache/drawings")


class ExpressionTrainer(Trainer):
    """Trains expressions on people whose expression is known."""

    options = ExpressionConfig
    options_title = "objective, dropout and losses"
    model_options = ExpressionModel
    data_options = PeopleData
    preparation = "weftwork.training.tasks.expressions:prepare"
    synthetic_datasets = ("people",)
    sources = ("synthetic",)
    samples = 12_000
    without_effect = ("resolution", "validation_prompt")
