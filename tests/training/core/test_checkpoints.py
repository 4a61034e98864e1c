"""Checkpoints and metrics: a resumed run is bit-identical to an uninterrupted one."""

import errno
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file
from tiny_training import Records, config, losses, make_task, run

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.datasets.readers.images import read_image
from weftwork.training.core.batches import BatchOrder
from weftwork.training.core.checkpoints import checkpoints
from weftwork.training.core.loop import train
from weftwork.training.data.pairs import PairRecord

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("stop", [2, 3])
def test_a_resumed_run_is_bit_identical(tmp_path: Path, stop: int) -> None:
    """5 micro-batches per epoch, 2 per step: both stops are inside an epoch."""
    straight = run(tmp_path / "straight")
    run(tmp_path / "broken", checkpointing_steps=stop)
    for later in checkpoints(tmp_path / "broken")[1:]:
        later.rename(tmp_path / later.name)
    (tmp_path / "broken" / "metrics.jsonl").unlink()
    resumed = run(tmp_path / "broken", resume_from_checkpoint="latest")
    one, other = load_file(straight / WEIGHTS), load_file(resumed / WEIGHTS)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    whole, rest = losses(tmp_path / "straight"), losses(tmp_path / "broken")
    assert rest == {step: loss for step, loss in whole.items() if step > stop}


def test_a_checkpoint_is_a_loadable_adapter(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, checkpoints_total_limit=1)
    (folder,) = checkpoints(tmp_path)
    assert folder.name == "checkpoint-4"
    assert isinstance(PairedAdapter.from_pretrained(folder), PairedAdapter)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_data_leave_a_checkpoint(tmp_path: Path, workers: int) -> None:
    damaged = list(BatchOrder((0,) * 10, 2, seed=0))[3][0]  # in the second step

    class Damaged(Records):
        def __getitem__(self, index: int) -> PairRecord:
            if index == damaged:
                os._exit(1) if workers else read_image(tmp_path)
            return super().__getitem__(index)

    task = make_task()
    with pytest.raises(RuntimeError if workers else ValueError):
        train(task, Damaged(task.module), config(tmp_path, dataloader_num_workers=workers))
    (kept,) = checkpoints(tmp_path)
    assert kept.name in (["checkpoint-0", "checkpoint-1"] if workers else ["checkpoint-1"])
    resumed = load_file(run(tmp_path, resume_from_checkpoint="latest") / WEIGHTS)
    straight = load_file(run(tmp_path / "straight") / WEIGHTS)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, written, save = make_task(), [], safetensors.torch.save_file

    def save_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.append(path)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(tensors, path)

    monkeypatch.setattr("weftwork.training.core.loop.save_file", save_file)
    with pytest.raises(OSError, match="No space left"):
        train(task, Records(task.module), config(tmp_path, checkpointing_steps=2))
    assert [kept.name for kept in checkpoints(tmp_path)] == ["checkpoint-2"]
    monkeypatch.undo()
    resumed = load_file(run(tmp_path, resume_from_checkpoint="latest") / WEIGHTS)
    straight = load_file(run(tmp_path / "straight") / WEIGHTS)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, max_train_steps=4)
    for path in checkpoints(tmp_path)[1:]:
        path.rename(tmp_path / f"away-{path.name}")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    run(tmp_path, resume_from_checkpoint="latest", max_train_steps=4)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_a_log_of_a_run_that_left_no_checkpoint_starts_anew(tmp_path: Path) -> None:
    tmp_path.joinpath("metrics.jsonl").write_text('{"step": 1, "loss": 0.0}\n{"step": 2, "loss": 0.0}\n')
    run(tmp_path, resume_from_checkpoint="latest", max_train_steps=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(row["loss"] > 0 for row in rows)


def test_checkpoints_of_another_run_are_left_alone(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, max_train_steps=4)
    kept = [path.name for path in checkpoints(tmp_path)]
    with pytest.raises(ValueError, match=r"output_dir: got .* holds checkpoint-4 of another run; resume .* latest"):
        run(tmp_path, checkpointing_steps=1)
    assert [path.name for path in checkpoints(tmp_path)] == kept and len(losses(tmp_path)) == 4
