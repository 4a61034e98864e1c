"""Train the classifier of people, some images as blurred as generated ones may be.

    python -m weftwork.scripts.maintenance.oracles.train_people --output_dir outputs/people-oracle

Its accuracies are those on people of the validation split. An interrupted run resumes from its last checkpoint.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.evaluation.oracles.people import GROUPS, LABELS, PersonOracle, by_group
from weftwork.scripts.maintenance.oracles.train_designers import DesignerTask, LabelledImages
from weftwork.scripts.maintenance.train_tiny_diffusion import started
from weftwork.training.core.config import TrainingConfig, add_arguments
from weftwork.training.core.loop import train
from weftwork.training.data.people import PeopleImages


def labelled(images: PeopleImages) -> LabelledImages:
    """Images of people with the place of their label in each of `GROUPS`."""
    rows = [(name, *astuple(one)) for name, one in zip(images.expressions, images.people, strict=True)]
    places = [tuple(g.index(one) for g, one in zip(GROUPS.values(), row, strict=True)) for row in rows]
    return LabelledImages(images, places)


class PersonTask(DesignerTask):
    """`DesignerTask` with one cross entropy for each of `GROUPS`."""

    def error(self, images: Float[Tensor, "image 3 height width"], labels: Tensor) -> Float[Tensor, ""]:
        parts = by_group(self.module(images)).values()
        errors = [functional.cross_entropy(part, own) for part, own in zip(parts, labels.T, strict=True)]
        return torch.stack(errors).sum()

    @torch.no_grad()
    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns the accuracy of each group on held-out people."""
        images, labels = self.collate([self.held_out[i] for i in range(len(self.held_out))])
        parts = by_group(self.module(images.float() / 255))
        right = {name: part.argmax(1) == own for (name, part), own in zip(parts.items(), labels.T, strict=True)}
        return {f"{name}_accuracy": one.float().mean().item() for name, one in right.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, default=TARBALLS, help="folder of the tarball with the people's parts")
    parser.add_argument("--images", type=int, default=12_000, help="training images (default: %(default)s)")
    parser.add_argument("--held_out", type=int, default=256, help="validation images (default: %(default)s)")
    parser.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn images")
    defaults = {"max_train_steps": 2000, "train_batch_size": 32, "learning_rate": 3e-3, "validation_steps": 250}
    add_arguments(parser, TrainingConfig, resume_from_checkpoint="latest", **defaults)
    arguments, config = started(parser, argv)
    images, unseen = (
        labelled(PeopleImages(arguments.cache_dir, arguments.people, split, count))
        for split, count in (("train", arguments.images), ("validation", arguments.held_out))
    )
    print(f"oracle: {train(PersonTask(PersonOracle(LABELS), unseen), images, config)}")


if __name__ == "__main__":
    main()
