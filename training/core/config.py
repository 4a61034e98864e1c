"""Options of the training loop: one dataclass for Python, JSON and the command line."""

import argparse
import dataclasses
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Final, get_args

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.optimizers import check_optimizer

SCHEDULES: Final = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
)  # fmt: skip
"""Schedules of `diffusers.optimization.get_scheduler` that need no more options."""


def option(default: Any, text: str) -> Any:
    """Dataclass field with a default and its `--help` text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingConfig:
    """Options of the training loop, named as in diffusers' training scripts.

    Raises:
        ValueError: a number is out of its range.
    """

    output_dir: str = field(metadata={"help": "folder for checkpoints, metrics and the result"})
    max_train_steps: int = option(1000, "number of optimizer steps")
    train_batch_size: int = option(16, "samples per process and micro-batch")
    gradient_accumulation_steps: int = option(1, "micro-batches per optimizer step")
    learning_rate: float = option(1e-4, "peak learning rate")
    optimizer: str = option("adamw", "adamw, adamw8bit, adafactor, prodigy or sgd")
    lr_scheduler: str = option("cosine", ", ".join(SCHEDULES))
    lr_warmup_steps: int = option(100, "optimizer steps of linear warm-up")
    adam_beta1: float = option(0.9, "AdamW")
    adam_beta2: float = option(0.99, "AdamW")
    adam_weight_decay: float = option(1e-2, "AdamW")
    adam_epsilon: float = option(1e-8, "AdamW")
    max_skipped_steps: int = option(0, "consecutive steps whose loss may be infinite or NaN; they update nothing")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    use_ema: bool = option(True, "save an exponential moving average of the weights")
    ema_decay: float = option(0.999, "decay of the average, reached by a warm-up")
    mixed_precision: str = option("no", "no, fp16 or bf16; trained weights stay float32")
    seed: int = option(0, "seeds the order of samples and every random draw")
    checkpointing_steps: int = option(500, "save a checkpoint every this many steps; 0 = never")
    checkpoints_total_limit: int | None = option(2, "keep at most this many checkpoints")
    resume_from_checkpoint: str | None = option(None, "'latest' or the folder of a checkpoint")
    validation_steps: int = option(0, "validate every this many steps; 0 = never")
    dataloader_num_workers: int = option(0, "worker processes that load data")
    report_to: str | None = option("tensorboard", "a tracker of accelerate by name, or none")
    use_cpu: bool = option(False, "use the CPU even if an accelerator is present")

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        for name in ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: got {getattr(self, name)}, expected a number above 0")
        if self.lr_scheduler not in SCHEDULES:
            raise UserError(f"lr_scheduler: got {self.lr_scheduler!r}, expected one of {', '.join(SCHEDULES)}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay: got {self.ema_decay}, expected a number in [0, 1)")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise UserError(f"mixed_precision: got {self.mixed_precision!r}, expected no, fp16 or bf16")


def add_arguments(parser: "argparse._ActionsContainer", config: type[Any], **defaults: Any) -> None:
    """Adds one `--flag` per field of a dataclass; `defaults` replace the dataclass's own."""
    for entry in fields(config):
        default = defaults.get(entry.name, entry.default)
        required = default is dataclasses.MISSING
        shown = entry.default if default is None else default
        text = entry.metadata.get("help", "") + ("" if required else f" (default: {shown})")
        options: dict[str, Any] = {"required": True} if required else {"default": default}
        if entry.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            kinds = [t for t in get_args(entry.type) if t is not NoneType] or [entry.type]
            options["type"] = kinds[0] if kinds[0] is entry.type else _or_none(kinds[0])
        parser.add_argument(f"--{entry.name}", help=text, **options)


def _or_none(kind: Any) -> Any:
    """Argument type: parses "none" as None, everything else as `kind`."""

    def parsed(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    parsed.__name__ = kind.__name__  # argparse shows it in errors
    return parsed


def from_arguments(config: type[Any], arguments: argparse.Namespace) -> Any:
    """Builds the dataclass from parsed arguments."""
    return config(**{entry.name: getattr(arguments, entry.name) for entry in fields(config)})
