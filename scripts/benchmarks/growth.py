"""Cost of training on pairs by number of pairs, image size, data and processes.

Steps are forward and backward passes of the shipped small model; memory is the size of tensors saved for the backward
pass. Rows of processes run `weftwork train`, one thread each.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from weftwork.attention_processors.encoders.latents import encode_latents
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.attention_processors.paired.batch import PairedBatch
from weftwork.attention_processors.paired.samples import pairs
from weftwork.datasets.synthetic.outfits import sample
from weftwork.evaluation.core.images import as_tensor
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import shipped
from weftwork.scripts.benchmarks.timing import interleaved
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.adapter import TrainingBatch
from weftwork.training.tasks.paired import PairedConfig, PairedTask

COUNTS: Final[Mapping[str, tuple[int, ...]]] = {"full": (1, 2, 4, 8, 16), "tiny": (1, 4)}
SIDES: Final[Mapping[str, tuple[int, ...]]] = {"full": (128, 192, 256, 384), "tiny": (64, 128)}
PROCESSES: Final[Mapping[str, tuple[int, ...]]] = {"full": (1, 2), "tiny": ()}
BATCH: Final = 4
PAIRS: Final = 4
"""Default number of pairs."""
STEPS: Final = 8


def measure(size: str, rounds: int) -> dict[str, dict[str, float]]:
    """Returns the rows of the report."""
    torch.manual_seed(0)
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(shipped("tiny-diffusion"))
    task = PairedTask(PairedAdapter.from_pretrained(shipped("outfits-paired")), pipe, PairedConfig())
    batches = {f"pairs_{count}": _batch(task, count, 128) for count in COUNTS[size]}
    batches |= {f"side_{side}": _batch(task, PAIRS, side) for side in SIDES[size]}
    seconds = interleaved(rounds, **{name: lambda batch=batch: _step(task, batch) for name, batch in batches.items()})
    rows = {
        name: {"ms_per_picture": 1000 * statistics.median(seconds[name]) / BATCH, "held_mb": _held(task, batch)}
        for name, batch in batches.items()
    }
    rows["data"] = _data(task)
    with tempfile.TemporaryDirectory() as cache:  # the first run fills it
        for count in PROCESSES[size]:
            rows[f"processes_{count}"] = {"ms_per_picture": _trained(count, cache)}
    return rows


def _batch(task: PairedTask, count: int, side: int) -> TrainingBatch[PairedBatch]:
    latents = side // task.pipe.vae_scale_factor
    shown = [sample("train", row, count=PAIRS) for row in range(BATCH)]
    records = []
    for outfit in shown:
        given = (pairs(outfit, region=None) * count)[:count]
        prepared = tuple(map(task.module.prepare, given))
        noise = torch.randn(task.pipe.unet.config["in_channels"], latents, latents)
        records.append(PairRecord(noise, prepared, (outfit.caption,)))
    return task.collate(records)


def _step(task: PairedTask, batch: TrainingBatch[PairedBatch]) -> None:
    task.loss(batch, torch.Generator().manual_seed(0), 0).backward()
    task.module.zero_grad(set_to_none=True)


def _held(task: PairedTask, batch: TrainingBatch[PairedBatch]) -> float:
    """Megabytes saved for the backward pass of a step; each storage once, without weights."""
    weights = {p.untyped_storage().data_ptr() for p in (*task.pipe.unet.parameters(), *task.module.parameters())}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _step(task, batch)
    return sum(held.values()) / 1e6


@torch.no_grad()
def _data(task: PairedTask) -> dict[str, float]:
    """Time per image to encode it with its pairs, and the size of its cache."""
    shown = [sample("train", row, count=PAIRS) for row in range(8)]
    images = as_tensor([outfit.image for outfit in shown]) * 2 - 1
    started = time.perf_counter()
    latents = encode_latents(task.pipe.vae, images, scaled=False).half()
    with tempfile.TemporaryDirectory() as folder:
        task.cache_features(Path(folder))
        records = [
            PairRecord(latent.float(), tuple(map(task.module.prepare, pairs(outfit))), (outfit.caption,))
            for latent, outfit in zip(latents, shown, strict=True)
        ]
        task.module.features(task.collate(records).conditions, task.encoders)
        task.prompts([outfit.caption for outfit in shown], (images.shape[-2], images.shape[-1]))
        seconds = time.perf_counter() - started
        kept = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    kept += latents.numel() * latents.element_size()
    return {"ms_per_picture": 1000 * seconds / len(shown), "kept_kb": kept / len(shown) / 1e3}


def _trained(processes: int, cache: str) -> float:
    """Milliseconds per image of `weftwork train paired`, without the first two steps."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, *launch, "-m", "weftwork.scripts.cli", "train", "paired", "--synthetic", "outfits",
            "--samples", "32", "--cache_dir", cache, "--output_dir", f"{folder}/out", "--max_train_steps", str(STEPS),
            "--train_batch_size", str(BATCH), "--validation_steps", "0", "--checkpointing_steps", "0", "--use_cpu",
        ]  # fmt: skip
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError(f"weftwork train: {done.stderr.strip()[-2000:]}")
        lines = [json.loads(line) for line in Path(folder, "out", "metrics.jsonl").read_text().splitlines()]
    return 1000 * statistics.median(line["seconds"] for line in lines[2:]) / (BATCH * processes)
