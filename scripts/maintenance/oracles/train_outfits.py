"""Train the oracle of outfits on renders of the training split; an interrupted run resumes from its last checkpoint."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from weftwork.datasets.synthetic.outfits import SLOTS
from weftwork.evaluation.oracles.outfits import Oracle, OracleLogits
from weftwork.scripts.maintenance.oracles.outfit_data import OracleExamples, augment, render_examples
from weftwork.scripts.maintenance.train_tiny_diffusion import started
from weftwork.training.core.config import TrainingConfig, add_arguments
from weftwork.training.core.loop import train
from weftwork.training.core.task import Task
from weftwork.training.recipes.backbone import strip_paths


class OutfitOracleTask(Task[Oracle, tuple[Tensor, ...], OracleExamples]):
    """Trains the oracle on augmented renders.

    Args:
        slot_weight: weight of the loss on outlines beside those on kinds, colours and patterns.
    """

    def __init__(self, module: Oracle, slot_weight: float = 6.0) -> None:
        self.module, self.slot_weight = module, slot_weight

    def collate(self, samples: list[tuple[Tensor, ...]]) -> OracleExamples:
        return OracleExamples(*map(torch.stack, zip(*samples, strict=True)))

    def loss(self, batch: OracleExamples, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        images, shown = augment(batch, generator)
        row, column = torch.randint(8, (2,), generator=generator).tolist()
        logits = self.module(images.contiguous(memory_format=torch.channels_last))
        return oracle_loss(logits, shown, (row, column), self.slot_weight)


def oracle_loss(
    logits: OracleLogits, examples: OracleExamples, offset: tuple[int, int], slot_weight: float = 6.0
) -> Float[Tensor, ""]:
    """Cross entropy per pixel, plus cross entropy of the logits averaged over each garment.

    Args:
        offset: which pixel of each cell of the coarser logits is its truth; drawn anew each step.
    """
    row, column = offset
    slots = examples.slots.long()
    loss = slot_weight * functional.cross_entropy(logits.slot, slots)
    for index, (plane, weight) in enumerate(((logits.kind, 2.0), (logits.color, 1.0), (logits.pattern, 1.0))):
        values, cell = examples.attributes[:, :, index], slots.shape[-1] // plane.shape[-1]
        coarse = slots[:, row % cell :: cell, column % cell :: cell]
        padded = functional.pad(values, (1, 0), value=-1)
        loss = loss + 0.5 * functional.cross_entropy(plane, _at_pixels(padded, coarse), ignore_index=-1)
        loss = loss + weight * _pooled_loss(plane, coarse, values)
    return loss


def _at_pixels(values: Int[Tensor, "batch slot"], slots: Int[Tensor, "batch h w"]) -> Int[Tensor, "batch h w"]:
    """Returns the attribute of each pixel's slot."""
    return values.gather(1, slots.flatten(1)).view_as(slots)


def _pooled_loss(
    plane: Float[Tensor, "batch value h w"], slots: Int[Tensor, "batch h w"], targets: Int[Tensor, "batch slot"]
) -> Float[Tensor, ""]:
    """Cross entropy of the logits averaged over each garment; garments without pixels are ignored."""
    members = functional.one_hot(slots, 1 + len(SLOTS))[..., 1:].to(plane.dtype)
    pixels = members.sum(dim=(1, 2))
    sums = torch.einsum("bvhw,bhws->bsv", plane, members)
    pooled = sums / pixels.clamp(min=1)[..., None]
    seen = torch.where(pixels > 0, targets, -1)
    return functional.cross_entropy(pooled.flatten(0, 1), seen.flatten(), ignore_index=-1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init_from", type=Path, help="folder of an oracle to go on from")
    parser.add_argument("--renders", type=int, default=8000, help="training images (default: %(default)s)")
    parser.add_argument("--styled_share", type=float, default=0.0, help="share of them in the eight styles")
    parser.add_argument("--slot_weight", type=float, default=6.0, help="weight of the outlines (default: %(default)s)")
    add_arguments(
        parser,
        TrainingConfig,
        output_dir="outputs/oracle",
        max_train_steps=3600,
        learning_rate=4e-3,
        lr_warmup_steps=540,
        adam_beta2=0.999,
        max_grad_norm=2.0,
        use_ema=False,
        resume_from_checkpoint="latest",
    )
    arguments, config = started(parser, argv)
    examples = render_examples("train", arguments.renders, seed=1 + config.seed, styled_share=arguments.styled_share)
    oracle = Oracle.from_pretrained(arguments.init_from) if arguments.init_from else Oracle()
    task = OutfitOracleTask(oracle, arguments.slot_weight)
    folder = train(task, TensorDataset(*examples), config)
    strip_paths(folder)
    print(f"oracle: {folder}")


if __name__ == "__main__":
    main()
