"""Train the classifier of designers on scenes of real drawings, some as blurred as generated images may be.

    python -m weftwork.scripts.maintenance.oracles.train_designers --output_dir outputs/drawings-oracle

Its accuracy is that on scenes of subjects that it never saw. An interrupted run resumes from its last checkpoint.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.datasets.drawings.splits import VALIDATION_SEED
from weftwork.evaluation.oracles.designers import DesignerOracle
from weftwork.scripts.maintenance.oracles.outfit_data import gaussian_blur
from weftwork.scripts.maintenance.train_tiny_diffusion import started
from weftwork.training.core.config import TrainingConfig, add_arguments
from weftwork.training.core.loop import train
from weftwork.training.core.task import Task
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.image_cache import DrawnImages

Labelled = tuple[Tensor, int | tuple[int, ...]]
"""An image with its label, or with one of each group."""
Batch = tuple[UInt8[Tensor, "image 3 height width"], Int[Tensor, "image *group"]]
REACH = 8  # pixels
BLURRED = 0.5  # share of batches


class LabelledImages(Dataset[Labelled]):
    """Images, channels first, with their labels."""

    def __init__(self, images: DrawnImages, labels: Sequence[int | tuple[int, ...]]) -> None:
        self.images, self.labels = images.images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Labelled:
        return torch.from_numpy(np.array(self.images[index])).permute(2, 0, 1), self.labels[index]


class DesignerTask(Task[DesignerOracle, Labelled, Batch]):
    """Training task of the classifier: cross entropy on mirrored, shifted and blurred images."""

    def __init__(self, module: DesignerOracle, held_out: LabelledImages) -> None:
        self.module, self.held_out = module, held_out

    def collate(self, samples: list[Labelled]) -> Batch:
        images, labels = zip(*samples, strict=True)
        return torch.stack(images), torch.tensor(labels)

    def loss(self, batch: Batch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        images, labels = batch
        if torch.rand((), generator=generator) < 0.5:
            images = images.flip(-1)
        row, column = torch.randint(-REACH, REACH + 1, (2,), generator=generator).tolist()
        images = images.roll((row, column), (2, 3)).float() / 255
        if torch.rand((), generator=generator) < BLURRED:
            images = gaussian_blur(images, 0.3 + 0.5 * float(torch.rand((), generator=generator)))
        return self.error(images, labels)

    def error(self, images: Float[Tensor, "image 3 height width"], labels: Tensor) -> Float[Tensor, ""]:
        return functional.cross_entropy(self.module(images), labels)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns the accuracy on held-out scenes."""
        images, labels = self.collate([self.held_out[i] for i in range(len(self.held_out))])
        seen, styles = self.module.read(images.float() / 255), self.module.config["styles"]
        right = [name == styles[label] for name, label in zip(seen, labels.tolist(), strict=True)]
        return {"accuracy": float(np.mean(right))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawings", type=Path, default=TARBALLS, help="npm tarballs, or SVG files")
    parser.add_argument("--scenes", type=int, default=20_000, help="training scenes (default: %(default)s)")
    parser.add_argument("--held_out", type=int, default=256, help="validation scenes (default: %(default)s)")
    parser.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn images")
    defaults = {"max_train_steps": 4000, "train_batch_size": 32, "learning_rate": 3e-3, "validation_steps": 250}
    add_arguments(parser, TrainingConfig, resume_from_checkpoint="latest", **defaults)
    arguments, config = started(parser, argv)
    drawings = open_rendered(arguments.drawings, arguments.cache_dir)
    styles = sorted({cell.key for cell in drawings.cells})
    scenes = SceneImages(arguments.cache_dir, drawings, "train", arguments.scenes)
    unseen = SceneImages(arguments.cache_dir, drawings, "subjects", arguments.held_out, VALIDATION_SEED)
    images, held_out = (LabelledImages(one, [styles.index(key) for key in one.keys]) for one in (scenes, unseen))
    print(f"oracle: {train(DesignerTask(DesignerOracle(styles), held_out), images, config)}")


if __name__ == "__main__":
    main()
