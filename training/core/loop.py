"""The training loop of backbones and adapters; a `Task` provides the module and its loss.

The order of samples is a function of (seed, epoch), and every random draw of a micro-batch a function of (seed, number
of the micro-batch over all processes). A run that was interrupted and resumed is therefore bit-identical to an
uninterrupted one, and n processes give the weights of one process that accumulates n times as many micro-batches.
A checkpoint is the module's loadable folder (`config.json` and safetensors, averaged weights with `use_ema`) and
`state/`, which only resuming reads.
"""

import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from weftwork.datasets.readers.atomic import write_errors
from weftwork.datasets.readers.errors import NotFiniteError
from weftwork.training.core.batches import Batches
from weftwork.training.core.checkpoints import (
    atomic_folder,
    checkpoint_to_resume,
    checkpoints,
    only_run,
    truncate_metrics,
)
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.cpu_attention import explicit_attention
from weftwork.training.core.early_stopping import EarlyStopping, check_early_stopping
from weftwork.training.core.gradients import average_gradients, broadcast_parameters
from weftwork.training.core.interruptions import Terminated, deferred_signals, terminable
from weftwork.training.core.optimizers import build_optimizer
from weftwork.training.core.sharding import sharding, unsharded
from weftwork.training.core.state import TrainingState, averaged
from weftwork.training.core.task import AnyTask, BatchT, SampleT, Task
from weftwork.training.core.trackers import log_images, peak_memory, tracker
from weftwork.training.core.validation import Evaluate, Part, Validation

logger = logging.getLogger(__name__)


def train(
    task: Task[Any, SampleT, BatchT],
    dataset: Dataset[SampleT],
    config: TrainingConfig,
    evaluate: Evaluate | None = None,
    held_out: Part[SampleT] | None = None,
) -> Path:
    """Trains `task.module` on `dataset` and returns the folder of the result.

    On any error, Ctrl-C and SIGTERM included, a checkpoint of the last complete step is saved before it is raised.

    Args:
        dataset: samples, with `buckets` where only some may share a batch (`BatchOrder`), or a stream (`Batches`).
        evaluate: further scores of the task's module, computed at every validation.
        held_out: samples of the validation loss, of `split`.

    Raises:
        ValueError: the dataset is smaller than one batch, the checkpoint to resume from is not found, the folder holds
            another run and no checkpoint to resume from is given, or early stopping without held-out samples.
        FloatingPointError: the loss was not finite.
    """
    check_early_stopping(config, held_out=held_out is not None)
    return _Run(task, dataset, config, evaluate, held_out).run()


class _Run:
    def __init__(
        self,
        task: AnyTask,
        dataset: Dataset[Any],
        config: TrainingConfig,
        evaluate: Evaluate | None,
        held_out: Part[Any] | None,
    ) -> None:
        self.task, self.module, self.config = task, task.module, config
        self.validation = Validation(task, evaluate, held_out, config.train_batch_size)
        self.early_stopping = EarlyStopping(config.early_stopping_patience)
        self.folder = Path(config.output_dir)
        self.sharded = sharding() is not None
        with unsharded():
            self.accelerator = Accelerator(
                mixed_precision=config.mixed_precision,
                cpu=config.use_cpu,
                log_with=tracker(config.report_to),
                project_dir=str(self.folder / "logs"),
            )
        self.source = checkpoint_to_resume(config.resume_from_checkpoint, self.folder)
        set_seed(config.seed)
        self.batches = Batches(
            dataset,
            task.collate,
            batch_size=config.train_batch_size,
            seed=config.seed,
            workers=config.dataloader_num_workers,
            process=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        parameters = self._trainable()
        optimizer = build_optimizer(config, parameters)
        self.schedule = get_scheduler(  # one step per optimizer step for any number of processes
            config.lr_scheduler,
            optimizer,
            num_warmup_steps=config.lr_warmup_steps,
            num_training_steps=config.max_train_steps,
        )
        task.module = self.accelerator.prepare_model(self.module, evaluation_mode=True)  # _update averages gradients
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        broadcast_parameters(parameters)
        self.ema = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True) if config.use_ema else None
        self.step, self.skipped, self.place = 0, 0, (0, 0)  # place: (epoch, batches) after the last complete step
        self.complete = True  # False during an update
        self.unwritten: dict[str, float | None] = {}  # scores of the last complete step

    # -- the loop ------------------------------------------------------------------------------------------

    def run(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if self.accelerator.is_main_process:
                stack.enter_context(only_run(self.folder))
            stack.enter_context(terminable())
            stack.enter_context(write_errors(self.folder))
            return self._run()

    def _run(self) -> Path:
        config, accelerator = self.config, self.accelerator
        result = self.folder / "final"
        self._resume()
        if self.step == config.max_train_steps and result.exists():
            logger.warning("all %d steps were done before, so %s stays as it is", self.step, result)
            return result
        if accelerator.is_main_process:
            (self.folder / "training.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
        accelerator.init_trackers("training")
        if accelerator.is_main_process:
            truncate_metrics(self.folder / "metrics.jsonl", self.step)
        self.drawn = self.batches.to(accelerator.device)
        progress = tqdm(
            total=config.max_train_steps,
            initial=self.step,
            desc="training",
            disable=not accelerator.is_main_process,
            mininterval=1.0,
        )
        if config.validation_steps and self.source is None:
            self._validate()
            self._write()
            self._keep_best()
        try:
            while self.step < config.max_train_steps and not self.early_stopping.exhausted:
                started = time.perf_counter()
                loss = self._optimizer_step()
                self.unwritten["seconds"] = time.perf_counter() - started
                self._after_step(loss, progress)
        except (KeyboardInterrupt, Terminated, Exception) as error:
            self._keep(error)
            raise
        finally:
            progress.close()
        self._restore_best()
        self._save(result)
        accelerator.end_training()
        return result

    def _keep(self, error: BaseException) -> None:
        """Saves a checkpoint of the last complete step, if possible; not with several processes or after a bad loss."""
        if self.accelerator.num_processes > 1 or not self.complete or isinstance(error, FloatingPointError):
            return
        try:
            with deferred_signals():
                self._write()
                self._save_checkpoint()
        except OSError as full:
            logger.error("stopped at step %d; the checkpoint could not be written: %s", self.step, full)
        else:
            logger.warning("stopped at step %d; continue with --resume_from_checkpoint latest", self.step)

    def _optimizer_step(self) -> float:
        config, accelerator = self.config, self.accelerator
        total = 0.0
        self.module.train()
        for part in range(config.gradient_accumulation_steps):
            batch = next(self.drawn)
            micro = self.step * config.gradient_accumulation_steps + part
            here = micro * accelerator.num_processes + accelerator.process_index
            seed = (config.seed << 40) + (here << 8)
            generator = torch.Generator().manual_seed(seed)
            on_cpu = accelerator.device.type == "cpu" and config.mixed_precision == "bf16"
            with explicit_attention(wanted=on_cpu):
                with accelerator.autocast():
                    loss = self.task.training_loss(batch, generator, micro)
                accelerator.backward(loss / config.gradient_accumulation_steps)
            total += loss.item() / config.gradient_accumulation_steps
        with (
            deferred_signals() if accelerator.num_processes == 1 else nullcontext()
        ):  # collectives must stay interruptible
            self._update(total)
        return total

    def _update(self, loss: float) -> None:
        self.complete = False
        if self._usable(loss):
            average_gradients(self._trainable())
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.max_grad_norm)
            self.optimizer.step()
            if self.ema is not None:
                self.ema.step(self._trainable())
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.place = self.batches.epoch, self.batches.drawn
        self.unwritten = {
            "loss": loss if math.isfinite(loss) else None,
            "learning_rate": float(self.schedule.get_last_lr()[0]),
        }
        self.complete = True

    def _usable(self, loss: float) -> bool:
        """Returns True if the loss is finite on all processes; other steps are counted but update nothing.

        Raises:
            FloatingPointError: more consecutive steps without a finite loss than `max_skipped_steps`.
        """
        finite = torch.tensor(float(math.isfinite(loss)), device=self.accelerator.device)
        if bool(self.accelerator.reduce(finite, "sum") == self.accelerator.num_processes):
            self.skipped = 0
            return True
        self.skipped += 1
        if self.skipped > self.config.max_skipped_steps:
            kept = checkpoints(self.folder)
            raise NotFiniteError(
                f"loss: got {loss} at step {self.step + 1}, so nothing was updated "
                f"(last checkpoint: {kept[-1].name if kept else 'none'}); lower --learning_rate or check the data"
            )
        logger.warning("loss: got %s at step %d, so nothing was updated", loss, self.step + 1)
        return False

    def _after_step(self, loss: float, progress: "tqdm[Any]") -> None:
        config, rate = self.config, self.unwritten["learning_rate"]
        progress.update()
        progress.set_postfix(loss=f"{loss:.4f}", rate=f"{rate:.1e}", memory=peak_memory(), refresh=False)
        last = self.step == config.max_train_steps
        if config.validation_steps and (self.step % config.validation_steps == 0 or last):
            self._validate()
        with deferred_signals():
            self._write()
        if config.checkpointing_steps and self.step % config.checkpointing_steps == 0:
            self._save_checkpoint()
        else:
            self._keep_best()

    def _write(self) -> None:
        """Writes the pending scores of the last complete step to the log and the trackers."""
        if not self.unwritten:
            return
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": self.step, **self.unwritten}) + "\n")
        self.accelerator.log(self.unwritten, step=self.step)
        self.unwritten = {}

    def _validate(self) -> None:
        """Adds the scores of a validation to those to be written."""
        if self.accelerator.is_main_process:
            self.unwritten.update(self._validated(self.folder / "validation"))
        elif self.sharded:
            with tempfile.TemporaryDirectory() as unseen:
                self.unwritten.update(self._validated(Path(unseen)))
        if self.early_stopping.patience:
            (loss,) = broadcast_object_list([self.unwritten.get("validation_loss")])
            self.early_stopping.add(self.step, loss)

    def _validated(self, folder: Path) -> dict[str, float]:
        with averaged(self.module, self.ema), torch.no_grad():
            scores = self.validation.scores(self.step, folder, self.accelerator)
        log_images(self.accelerator, folder, self.step)
        return scores

    # -- weights and checkpoints ---------------------------------------------------------------------------

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _save(self, folder: Path, extra: Mapping[str, object] | None = None) -> Path:
        """Writes the loadable folder atomically."""
        if self.accelerator.is_main_process:
            with atomic_folder(folder) as partial:
                with averaged(self.module, self.ema):
                    self.module.save_pretrained(partial, safe_serialization=True)
                if extra is not None:
                    self._state().write(partial / "state", extra, self.config)
        self.accelerator.wait_for_everyone()
        return folder

    def _save_checkpoint(self) -> None:
        steps = 0 if self.ema is None else self.ema.optimization_step
        places = gather_object([self.place])  # streams may be distributed unequally
        extra = {"step": self.step, "average_steps": steps, "places": places}
        self._save(self.folder / f"checkpoint-{self.step}", extra)
        if self.accelerator.is_main_process and self.config.checkpoints_total_limit:
            for old in checkpoints(self.folder)[: -self.config.checkpoints_total_limit]:
                if old.name != f"checkpoint-{self.early_stopping.best}":
                    shutil.rmtree(old)

    def _keep_best(self) -> None:
        """Saves a checkpoint of the step with the lowest validation loss, which early stopping returns to."""
        if self.early_stopping.best == self.step:
            self._save_checkpoint()

    def _restore_best(self) -> None:
        """Restores the weights of the lowest validation loss, with early stopping."""
        best = self.early_stopping.best
        if best is None:
            return
        losses = self.early_stopping.losses
        logger.info("validation_loss: %.4f at step %d is the lowest; the result is of that step", losses[best], best)
        if best != self.step:
            self._state().read(self.folder / f"checkpoint-{best}", self.config)
        if training := getattr(self.task.module, "config", {}).get("training"):
            self.task.module.register_to_config(training={**training, "steps": best})

    def _state(self) -> TrainingState:
        scaler = self.accelerator.scaler
        return TrainingState(self.module, self.optimizer, self.schedule, scaler, self.ema)

    def _resume(self) -> None:
        if self.source is None:
            if self.config.resume_from_checkpoint:
                logger.warning("no checkpoint in %s: starting from step 0", self.folder)
            return
        progress = self._state().read(self.source, self.config)
        self.step = progress["step"]
        self.early_stopping = EarlyStopping.read(self.config.early_stopping_patience, self.folder, self.step)
        places = progress["places"]
        self.place = places[min(self.accelerator.process_index, len(places) - 1)]
        self.batches.place(*self.place)
