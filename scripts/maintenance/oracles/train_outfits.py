"""Train the oracle of outfits on renders of the training split."""

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from weftwork.datasets.readers.errors import NotFiniteError, UserError
from weftwork.datasets.synthetic.outfits import SLOTS
from weftwork.evaluation.oracles.outfits import Oracle, OracleLogits
from weftwork.scripts.maintenance.oracles.outfit_data import OracleExamples, augment, render_examples
from weftwork.training.core.config import add_arguments, from_arguments, option

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OracleTraining:
    """Options of the training; an interrupted run resumes from its checkpoint."""

    output_dir: str = option("outputs/oracle", "folder for the checkpoint and the oracle")
    init_from: str = option("", "folder of an oracle to go on from; empty for new weights")
    seed: int = option(0, "seeds weights, order, augmentation and the renders")
    renders: int = option(8000, "images of the training split to learn from")
    styled_share: float = option(0.0, "share of them in the styles of the creatures")
    max_train_steps: int = option(3600, "number of optimizer steps")
    train_batch_size: int = option(16, "images per step")
    learning_rate: float = option(4e-3, "peak learning rate of one cycle")
    adam_weight_decay: float = option(1e-2, "AdamW")
    slot_weight: float = option(6.0, "weight of the loss on outlines beside those on kinds, colours and patterns")
    checkpointing_steps: int = option(200, "save a checkpoint every this many steps")

    def __post_init__(self) -> None:
        for name in ("renders", "max_train_steps", "train_batch_size", "checkpointing_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, expected at least 1; pass a positive number")


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


def train(config: OracleTraining) -> Oracle:
    """Renders, trains and saves; returns the trained oracle in evaluation mode."""
    torch.manual_seed(config.seed)
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    (output / "training.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    examples = render_examples("train", config.renders, seed=1 + config.seed, styled_share=config.styled_share)
    oracle = Oracle.from_pretrained(config.init_from) if config.init_from else Oracle()
    oracle.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(oracle.parameters(), config.learning_rate, weight_decay=config.adam_weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.max_train_steps, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(config.seed)
    state: dict[str, Any] = {"oracle": oracle, "optimizer": optimizer, "schedule": schedule}
    first = _resume(output / "checkpoint.pt", state, generator)
    started = time.monotonic()
    for step in range(first, config.max_train_steps):
        loss = _step(oracle, optimizer, examples, config, generator)
        schedule.step()
        if (step + 1) % config.checkpointing_steps == 0 or step + 1 == config.max_train_steps:
            seconds = time.monotonic() - started
            logger.info("step %d of %d, loss %.4f, %.0f s", step + 1, config.max_train_steps, loss, seconds)
            save_checkpoint(output / "checkpoint.pt", state, generator, step + 1)
    oracle.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    oracle.register_to_config(_name_or_path="")  # keeps local paths out of the saved config
    oracle.save_pretrained(output, safe_serialization=True)
    return oracle.eval()


def _step(
    oracle: Oracle,
    optimizer: torch.optim.Optimizer,
    examples: OracleExamples,
    config: OracleTraining,
    generator: torch.Generator,
) -> float:
    oracle.train()
    rows = torch.randint(len(examples.images), (config.train_batch_size,), generator=generator)
    images, shown = augment(examples.take(rows), generator)
    row, column = torch.randint(8, (2,), generator=generator).tolist()
    logits = oracle(images.contiguous(memory_format=torch.channels_last))
    loss = oracle_loss(logits, shown, (row, column), config.slot_weight)
    if not loss.isfinite():
        raise NotFiniteError(f"loss: got {loss.item()}, expected a finite number; lower learning_rate")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(oracle.parameters(), 2.0)
    optimizer.step()
    return float(loss.detach())


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


def save_checkpoint(path: Path, state: dict[str, Any], generator: torch.Generator, step: int) -> None:
    """Saves the state that `train` needs to resume after this step."""
    parts = {name: part.state_dict() for name, part in state.items()}
    torch.save({**parts, "generator": generator.get_state(), "step": step}, path)


def _resume(path: Path, state: dict[str, Any], generator: torch.Generator) -> int:
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    for name, part in state.items():
        part.load_state_dict(saved[name])
    generator.set_state(saved["generator"])
    logger.info("resumed at step %d from %s", saved["step"], path)
    return saved["step"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, OracleTraining)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(from_arguments(OracleTraining, parser.parse_args(argv)))


if __name__ == "__main__":
    main()
