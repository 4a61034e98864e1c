"""State of a training run beside its loadable folder: weights in full precision, optimizer, schedule and average."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import TrainingConfig

FIXED: Final = ("optimizer", "use_ema", "train_batch_size", "seed", "mixed_precision")
"""Options that a resumed run cannot change."""


@dataclass(frozen=True)
class TrainingState:
    """The parts of a run that a checkpoint saves and restores."""

    module: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    scaler: GradScaler | None
    """Gradient scaler of fp16, else None."""
    ema: EMAModel | None

    def write(self, folder: Path, progress: Mapping[str, object], config: TrainingConfig) -> None:
        """Writes the state to a new folder; `progress` is returned by `read`."""
        folder.mkdir()
        save_file(
            {
                **{n: p.detach().cpu().contiguous() for n, p in self.module.named_parameters() if p.requires_grad},
                **{n: b.cpu().contiguous() for n, b in self.module.named_buffers()},  # batch normalization's statistics
            },
            folder / "weights.safetensors",
        )
        if self.ema is not None:
            shadow = {str(i): p.detach().cpu().contiguous() for i, p in enumerate(self.ema.shadow_params)}
            save_file(shadow, folder / "average.safetensors")
        torch.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": {} if self.scaler is None else self.scaler.state_dict(),
            },
            folder / "optimizer.pt",
        )
        options = {name: getattr(config, name) for name in FIXED}
        (folder / "progress.json").write_text(json.dumps({**progress, "options": options}) + "\n")

    def read(self, checkpoint: Path, config: TrainingConfig) -> dict[str, Any]:
        """Restores the state of a checkpoint and returns its progress; rates and decays are those of `config`.

        Raises:
            ValueError: more steps than `config` asks for, an option that cannot change, or weights of other shapes, by
                name; nothing is changed.
        """
        folder = checkpoint / "state"
        progress = json.loads((folder / "progress.json").read_text())
        if progress["step"] > config.max_train_steps:
            raise UserError(
                f"max_train_steps: got {config.max_train_steps} for a run of {progress['step']} steps; pass more, or "
                "another folder"
            )
        for name, before in progress.get("options", {}).items():
            if getattr(config, name) != before:
                raise UserError(
                    f"{name}: got {getattr(config, name)!r} for a run of {before!r}, which cannot change; pass "
                    f"{before!r}, or start a new run in another folder with --init_from {checkpoint}"
                )
        weights = load_file(folder / "weights.safetensors")
        own = dict([*self.module.named_parameters(), *self.module.named_buffers()])
        for name, tensor in weights.items():
            if name not in own or own[name].shape != tensor.shape:
                here = tuple(own[name].shape) if name in own else "none"
                raise UserError(
                    f"resume_from_checkpoint: got {name} of shape {tuple(tensor.shape)} in {checkpoint}, expected "
                    f"{here}; resume with the options of the adapter that the run began with"
                )
        self.module.load_state_dict(weights, strict=False)
        saved = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
        self._load_optimizer(saved["optimizer"], saved["schedule"])
        if self.scaler is not None:
            self.scaler.load_state_dict(saved["scaler"])
        if self.ema is not None:
            shadow = load_file(folder / "average.safetensors")
            for i, parameter in enumerate(self.ema.shadow_params):
                parameter.copy_(shadow[str(i)])
            self.ema.optimization_step = progress["average_steps"]
        return progress

    def _load_optimizer(self, optimizer: dict[str, Any], schedule: dict[str, Any]) -> None:
        """Restores moments and the place in the schedule, with the rates and decays of this run."""
        for saved, group in zip(optimizer["param_groups"], self.optimizer.param_groups, strict=True):
            saved.update({name: value for name, value in group.items() if name in OPTIONS})
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state_dict({**schedule, "base_lrs": self.schedule.base_lrs})
        rates = [
            rate * factor(self.schedule.last_epoch)
            for rate, factor in zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.schedule._last_lr = rates


OPTIONS: Final = ("initial_lr", "weight_decay", "betas", "eps", "momentum")


@contextmanager
def averaged(module: nn.Module, average: EMAModel | None) -> Iterator[None]:
    """Averaged weights, if any, and evaluation mode inside the block, live weights and mode outside."""
    parameters, training = [p for p in module.parameters() if p.requires_grad], module.training
    module.eval()
    if average is not None:
        average.store(parameters)
        average.copy_to(parameters)
    try:
        yield
    finally:
        if average is not None:
            average.restore(parameters)
        module.train(training)
