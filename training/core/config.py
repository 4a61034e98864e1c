"""Options of the training loop and of denoising: dataclasses for Python, JSON and the command line."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin

from weftwork.datasets.readers.errors import UserError, check_choice
from weftwork.training.core.optimizers import check_optimizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound="DataclassInstance")

SCHEDULES: Final = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
)  # fmt: skip
"""Schedules of `diffusers.optimization.get_scheduler` that need no more options."""


def option(default: T, text: str, choices: Sequence[object] | None = None) -> T:
    """Dataclass field with a default, its `--help` text and its choices on the command line, if not any value."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class TrainingConfig:
    """Options of the training loop, named as in diffusers' scripts; `ValueError` for a number out of its range."""

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
    validation_steps: int = option(0, "validate before the first step and every this many steps; 0 = never")
    early_stopping_patience: int = option(
        0, "stop after this many validations without a new lowest validation loss; the result is of the lowest; 0 = off"
    )
    dataloader_num_workers: int = option(0, "worker processes that load data")
    report_to: str | None = option("tensorboard", "a tracker of accelerate by name, or none")
    use_cpu: bool = option(False, "use the CPU even if an accelerator is present")

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        for name in ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: got {getattr(self, name)}, expected a number above 0")
        if self.early_stopping_patience < 0:
            raise UserError(
                f"early_stopping_patience: got {self.early_stopping_patience}, expected 0 or more; change it"
            )
        check_choice("lr_scheduler", self.lr_scheduler, SCHEDULES)
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay: got {self.ema_decay}, expected a number in [0, 1)")
        check_choice("mixed_precision", self.mixed_precision, ("no", "fp16", "bf16"))


WEIGHTING_SCHEMES: Final = ("logit_normal", "mode", "sigma_sqrt", "cosmap", "none")
"""Timestep sampling and loss weighting of flow matching, as in diffusers' training scripts."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The denoising objective of an adapter; `ValueError` for a number out of its range."""

    caption_dropout: float = option(0.15, "share of empty prompts")
    snr_gamma: float | None = option(None, "min-SNR weighting, for example 5")
    noise_offset: float = option(0.0, "share of noise that is constant per channel, for darker and lighter images")
    logit_mean: float | None = option(
        None, "mean logit of timesteps, below 0 = less noise; none = uniform, or 0 with flow matching"
    )
    logit_std: float = option(1.4, "standard deviation of that logit; 1 with flow matching and no --logit_mean")
    weighting_scheme: str = option("logit_normal", f"with flow matching: {', '.join(WEIGHTING_SCHEMES)}")
    guidance_scale: float = option(3.5, "guidance that distilled backbones read, such as FLUX.1-dev")
    max_sequence_length: int | None = option(None, "tokens of prompts of transformers; none = as in generation")

    def __post_init__(self) -> None:
        check_ranges(self)
        check_choice("weighting_scheme", self.weighting_scheme, WEIGHTING_SCHEMES)
        if self.weighting_scheme != "logit_normal" and self.logit_mean is not None:
            raise UserError(
                f"logit_mean: has no effect with the weighting_scheme {self.weighting_scheme!r}; leave one of them out"
            )
        if self.logit_std <= 0:
            raise UserError(f"logit_std: got {self.logit_std}, expected a number above 0")

    def check_effects(self, backbone: str, *, flow: bool, distilled: bool, transformer: bool) -> None:
        """Raises for options that have no effect on a backbone.

        Args:
            flow: whether it is trained with flow matching.
            distilled: whether it reads the guidance scale.
            transformer: whether its pipelines take a number of tokens (`max_sequence_length`).
        """
        used = {
            "snr_gamma": not flow,
            "weighting_scheme": flow,
            "guidance_scale": distilled,
            "max_sequence_length": transformer,
        }
        for entry in fields(ObjectiveConfig):
            if not used.get(entry.name, True) and getattr(self, entry.name) != entry.default:
                raise UserError(f"{entry.name}: has no effect with {backbone}; leave it out")


def check_ranges(config: object) -> None:
    """Raises unless all dropouts and other shares of a config are in [0, 1], and weights at least 0."""
    for name, value in vars(config).items():
        if name.endswith(("_dropout", "_share", "noise_offset")) and not 0 <= value <= 1:
            raise UserError(f"{name}: got {value}, expected a share in [0, 1]; correct it")
        if name.endswith("_weight") and not value >= 0:
            raise UserError(f"{name}: got {value}, expected a number of at least 0; raise it")


def add_arguments(parser: "argparse._ActionsContainer", config: "type[DataclassInstance]", **defaults: object) -> None:
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
            several = get_origin(entry.type) is tuple
            options["type"] = kinds[0] if several or kinds[0] is entry.type else _or_none(kinds[0])
            options |= {"nargs": "*"} if several else {"choices": entry.metadata.get("choices")}
        parser.add_argument(f"--{entry.name}", help=text, **options)


def _or_none(kind: Callable[[str], T]) -> Callable[[str], T | None]:
    """Argument type: parses "none" as None, everything else as `kind`."""

    def parsed(text: str) -> T | None:
        return None if text.lower() == "none" else kind(text)

    parsed.__name__ = kind.__name__  # argparse shows it in errors
    return parsed


def from_arguments(config: type[ConfigT], arguments: argparse.Namespace) -> ConfigT:
    """Builds the dataclass from parsed arguments."""
    return config(**{entry.name: getattr(arguments, entry.name) for entry in fields(config)})
