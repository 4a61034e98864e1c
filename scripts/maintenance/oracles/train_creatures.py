"""Train the oracle of creatures on styled and neutral renders of the training split.

Left and right are part of the labels, so images are shifted but never mirrored.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.synthetic.creatures import NEUTRAL, CreatureSample, sample
from weftwork.evaluation.core.images import as_tensor
from weftwork.evaluation.oracles.creatures import ATTRIBUTES, CreatureLogits, CreatureOracle
from weftwork.evaluation.scores.creatures import score_creatures
from weftwork.scripts.maintenance.oracles.outfit_data import compressed, degraded
from weftwork.scripts.maintenance.train_tiny_diffusion import started
from weftwork.training.core.config import TrainingConfig, add_arguments
from weftwork.training.core.loop import train
from weftwork.training.core.task import Task
from weftwork.training.data.image_cache import DrawnImages, Pixels

REACH: Final = 6  # pixels
MASK_WEIGHT: Final = 2.0
Batch = tuple[UInt8[Tensor, "batch 4 height width"], Int[Tensor, "batch attribute"]]


class MaskedCreatures(DrawnImages[dict[str, str]], Dataset[tuple[Tensor, Tensor]]):
    """First `styled` creatures of the training split in all styles, and first `neutral` ones in the neutral style.

    `images[i]` has the mask as a fourth channel, 0 or 255; an item is an image, channels first, with the index
    of each of its `ATTRIBUTES` among the options.
    """

    def __init__(self, folder: Path, styled: int, neutral: int, seed: int) -> None:
        if styled < 1 or neutral < 0:
            raise UserError(f"styled, neutral: got {styled} and {neutral}, expected at least 1 and 0; draw more images")
        jobs = [(i, seed, None) for i in range(styled)] + [(i, seed, NEUTRAL) for i in range(neutral)]
        super().__init__(folder, f"creatures-masked-train-{seed}-{styled}-{neutral}", _draw, jobs)
        places = [[ATTRIBUTES[name].index(row[name]) for name in ATTRIBUTES] for row in self.truth]
        self.places: Int[Tensor, "image attribute"] = torch.tensor(places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.array(self.images[index])).permute(2, 0, 1), self.places[index]


class CreatureOracleTask(Task[CreatureOracle, tuple[Tensor, Tensor], Batch]):
    """Trains mask and attributes on augmented images; it is scored on `held_out` creatures meanwhile."""

    def __init__(self, module: CreatureOracle, held_out: Sequence[CreatureSample] = ()) -> None:
        self.module, self.held_out = module, held_out

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> Batch:
        images, places = zip(*samples, strict=True)
        return torch.stack(images), torch.stack(places)

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        renders, places = batch
        images, masks = augment(renders, generator)
        return oracle_loss(self.module(images.contiguous(memory_format=torch.channels_last)), masks, places)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        if not self.held_out:
            return {}
        images = as_tensor([creature.image for creature in self.held_out])
        return asdict(score_creatures(self.held_out, self.module.read(images)))


def augment(
    images: UInt8[Tensor, "batch 4 height width"], generator: torch.Generator
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch height width"]]:
    """Returns degraded images in [0, 1], each shifted by a few pixels, and their masks."""
    size = images.shape[2:]
    planes = torch.cat([compressed(images[:, :3], generator), images[:, 3:]], dim=1).float() / 255
    padded = functional.pad(planes, (REACH,) * 4, mode="replicate")
    steps = torch.randint(2 * REACH + 1, (len(images), 2), generator=generator).tolist()
    shifted = torch.stack(
        [
            one[:, row : row + size[0], column : column + size[1]]
            for one, (row, column) in zip(padded, steps, strict=True)
        ]
    )
    return degraded(shifted[:, :3], generator), shifted[:, 3]


def oracle_loss(
    logits: CreatureLogits, masks: Float[Tensor, "batch height width"], places: Int[Tensor, "batch attribute"]
) -> Float[Tensor, ""]:
    """Cross entropy of all attributes and of the mask."""
    loss = MASK_WEIGHT * functional.binary_cross_entropy_with_logits(logits.mask, masks)
    for index, name in enumerate(ATTRIBUTES):
        loss = loss + functional.cross_entropy(logits.attributes[name], places[:, index])
    return loss


def _draw(arguments: tuple[int, int, str | None]) -> tuple[Pixels, dict[str, str]]:
    index, seed, style = arguments
    drawn = sample("train", index, seed=seed, style=style)
    mask = np.uint8(255) * drawn.mask.astype(np.uint8)
    return np.dstack([drawn.image, mask]), {"style": drawn.style, **asdict(drawn.creature)}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; an interrupted run resumes from its last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--styled", type=int, default=12000, help="styled training images (default: %(default)s)")
    parser.add_argument("--neutral", type=int, default=2000, help="neutral training images (default: %(default)s)")
    parser.add_argument("--held_out", type=int, default=200, help="validation images (default: %(default)s)")
    parser.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="cache of images")
    add_arguments(
        parser,
        TrainingConfig,
        output_dir="outputs/creature-oracle",
        max_train_steps=4000,
        train_batch_size=32,
        learning_rate=3e-3,
        resume_from_checkpoint="latest",
        validation_steps=500,
    )
    arguments, config = started(parser, argv)
    images = MaskedCreatures(arguments.cache_dir, arguments.styled, arguments.neutral, 1 + config.seed)
    held_out = [sample("validation", index) for index in range(arguments.held_out)]
    print(f"oracle: {train(CreatureOracleTask(CreatureOracle(), held_out), images, config)}")


if __name__ == "__main__":
    main()
