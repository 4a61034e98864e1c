"""Training of expressions: names, and images of other people, condition a frozen denoiser."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.expressions.adapter import ExpressionAdapter, ExpressionBatch
from weftwork.attention_processors.expressions.conditions import Expression
from weftwork.attention_processors.expressions.embedder import divergence, sampled
from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.datasets.people.dataset import caption
from weftwork.datasets.people.parts import EXPRESSIONS
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.core.denoisers import denoiser_of
from weftwork.training.core.trainer import Prepared
from weftwork.training.data.image_cache import cached_latents
from weftwork.training.data.people import ExpressionRecord, ExpressivePeople, PeopleImages
from weftwork.training.tasks.adapter import AdapterTask, TrainingBatch
from weftwork.training.tasks.captioned import dropped
from weftwork.training.trainers.expressions import ExpressionConfig, ExpressionModel, ExpressionTrainer

SHOWN = 4


def prepare(trainer: ExpressionTrainer, pipe: ConditionedPipelineMixin) -> Prepared:
    """Returns the task and the data of a trainer's options."""
    arguments, denoiser = trainer.arguments, denoiser_of(pipe)
    if arguments.init_from:
        adapter = ExpressionAdapter.from_pretrained(arguments.init_from)
    else:
        width, sizes = base_description(denoiser)["context_dim"], asdict(trainer.read(ExpressionModel))
        adapter = ExpressionAdapter.for_denoiser(denoiser, expressions=list(EXPRESSIONS), token_dim=width, **sizes)
    folder = Path(arguments.people or TARBALLS)
    images = PeopleImages(arguments.cache_dir, folder, "train", arguments.samples)
    people = ExpressivePeople(images, cached_latents(arguments.cache_dir, pipe.vae, images))
    shown = PeopleImages(arguments.cache_dir, folder, "validation", SHOWN)
    task = ExpressionTask(adapter, pipe, trainer.read(ExpressionConfig), shown)
    return Prepared(task, people, {"data": trainer.data_name})


@dataclass(frozen=True, eq=False)
class ExpressionTrainingBatch(TrainingBatch[ExpressionBatch]):
    """Latents, captions and expressions of people.

    Args:
        others: images of other people with the same expressions.
    """

    others: Float[Tensor, "design 3 size size"]


class ExpressionTask(AdapterTask[ExpressionAdapter, ExpressionRecord, ExpressionTrainingBatch]):
    """Trains latents of people with captions that leave out their expression.

    Args:
        validation: people who are shown with the expression of their neighbour, by name and by image.

    Raises:
        ValueError: an adapter without an embedder, or without the names of the data.
    """

    def __init__(
        self,
        module: ExpressionAdapter,
        pipe: ConditionedPipelineMixin,
        config: ExpressionConfig,
        validation: PeopleImages | None = None,
    ) -> None:
        lacking = [name for name in EXPRESSIONS if name not in module.config["expressions"]]
        if lacking or module.embedder is None:
            what = f"the expression {lacking[0]}" if lacking else "an embedder"
            raise UserError(f"init_from: got an adapter without {what}; leave it out, which makes a new one")
        super().__init__(module, pipe, "expressions", config)
        self.config, self.validation = config, validation

    def collate(self, samples: list[ExpressionRecord]) -> ExpressionTrainingBatch:
        conditions = self.module.collate([[Expression(one.expression)] for one in samples])
        size = self.module.config["embedder_size"]
        others = F.interpolate(
            torch.stack([one.other for one in samples]), (size, size), mode="bilinear", antialias=True
        )
        return ExpressionTrainingBatch.of(samples, conditions=conditions, others=others)

    def loss(self, batch: ExpressionTrainingBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        captions, null = dropped(self.config, batch.captions, generator)
        seen = torch.rand(len(captions), generator=generator) < self.config.image_share
        assert self.module.embedder is not None
        mean, log_variance = self.module.embedder(batch.others)
        named = self.module.mixed(batch.conditions)[:, 0]
        prior = torch.where(seen.to(named.device)[:, None], sampled(mean, log_variance, generator), named)
        prior = prior.masked_fill(null.to(named.device)[:, None], 0)
        encoded, quantization = self.module.encoded(batch.conditions, prior[:, None])
        loss = self.denoising_loss(self.denoiser(encoded), batch.latents, captions, generator)
        loss = loss + self.config.quantization_weight * quantization
        return loss + self.config.divergence_weight * divergence(mean, log_variance, named)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Writes people of unseen looks with expressions by name and by image, below the people who show these."""
        if self.validation is not None:
            shown = [Image.fromarray(one) for one in self.validation.images]
            people, names = self.validation.people, self.validation.expressions
            prompts = [caption(one) for one in (*people[1:], people[0])]
            by_name: Sequence[Sequence[Expression]] = [[Expression(name)] for name in names]
            by_image = [[Expression(prior=self.module.prior(image))] for image in shown]
            self.sheet(folder / f"{step:06d}-names.png", prompts, by_name, shown)
            self.sheet(folder / f"{step:06d}-images.png", prompts, by_image, shown)
        return {}
