"""Checkpoints and metrics: a resumed run is bit-identical to an uninterrupted one."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny import paired_adapter, tiny_pipe
from tiny_training import Records, config, losses, make_task, run

from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.datasets.readers.images import read_image
from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.training.core.batches import BatchOrder
from weftwork.training.core.checkpoints import checkpoints
from weftwork.training.core.loop import train
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.paired import PairedConfig, PairedTask

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result of an uninterrupted run."""
    return run(tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_steps")
    run(folder, checkpointing_steps=2, max_train_steps=2)
    return folder


@pytest.fixture
def begun(two_steps: Path, tmp_path: Path) -> Path:
    """Folder of a run of two steps, with a checkpoint of the second."""
    return shutil.copytree(two_steps, tmp_path / "run")


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("stop", [2, 3])
def test_a_resumed_run_is_bit_identical(straight: Path, tmp_path: Path, stop: int) -> None:
    """5 micro-batches per epoch, 2 per step: both stops are inside an epoch."""
    run(tmp_path / "broken", checkpointing_steps=stop)
    for later in checkpoints(tmp_path / "broken")[1:]:
        later.rename(tmp_path / later.name)
    (tmp_path / "broken" / "metrics.jsonl").unlink()
    resumed = run(tmp_path / "broken", resume_from_checkpoint="latest")
    assert same_weights(straight, resumed)
    whole, rest = losses(straight.parent), losses(tmp_path / "broken")
    assert rest == {step: loss for step, loss in whole.items() if step > stop}


def test_a_checkpoint_is_a_loadable_adapter(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, checkpoints_total_limit=1)
    (folder,) = checkpoints(tmp_path)
    assert folder.name == "checkpoint-4"
    assert isinstance(PairedAdapter.from_pretrained(folder), PairedAdapter)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_data_leave_a_checkpoint(straight: Path, tmp_path: Path, workers: int) -> None:
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
    assert same_weights(straight, run(tmp_path, resume_from_checkpoint="latest"))


def test_a_full_disk_leaves_the_last_checkpoint(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task, written, save = make_task(), [], safetensors.torch.save_file

    def save_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.append(path)
        if len(written) > 2:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save(tensors, path)

    monkeypatch.setattr("weftwork.training.core.state.save_file", save_file)
    with pytest.raises(OSError, match="No space left"):
        train(task, Records(task.module), config(tmp_path, checkpointing_steps=2))
    assert [kept.name for kept in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert not list(tmp_path.glob(".*partial*")), "what was half-written takes no room"
    words = r"stopped at step 4; the checkpoint could not be written: .*checkpoint-4: cannot be written .*; make room"
    assert re.search(words, caplog.text)
    monkeypatch.undo()
    assert same_weights(straight, run(tmp_path, resume_from_checkpoint="latest"))


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


def options(folder: Path) -> dict[str, Any]:
    """Options of the optimizer in the last checkpoint of a run."""
    state = torch.load(checkpoints(folder)[-1] / "state/optimizer.pt", weights_only=True)
    return state["optimizer"]["param_groups"][0]


def test_changed_rates_and_decays_are_obeyed(tmp_path: Path) -> None:
    constant = {"lr_scheduler": "constant", "checkpointing_steps": 2}
    run(tmp_path, **constant, max_train_steps=2)
    changed = {"learning_rate": 1e-5, "adam_weight_decay": 0.5, "adam_beta1": 0.8, "adam_epsilon": 1e-6}
    run(tmp_path, **constant, **changed, max_train_steps=4, resume_from_checkpoint="latest")
    found = options(tmp_path)
    assert found["lr"] == 1e-5 and found["weight_decay"] == 0.5 and found["eps"] == 1e-6
    assert tuple(found["betas"]) == (0.8, 0.99)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows] == [1e-3, 1e-3, 1e-5, 1e-5]
    assert json.loads((tmp_path / "training.json").read_text())["learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer: got 'sgd' for a run of 'adamw', which cannot change; pass 'adamw'"),
        ({"use_ema": False}, "use_ema: got False for a run of True"),
        ({"seed": 5}, "seed: got 5 for a run of 0"),
        ({"train_batch_size": 1}, "train_batch_size: got 1 for a run of 2"),
    ],
)
def test_what_cannot_change_is_refused_by_name(begun: Path, changed: dict[str, Any], message: str) -> None:
    before = (begun / "training.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        run(begun, resume_from_checkpoint="latest", max_train_steps=4, **changed)
    assert (begun / "training.json").read_bytes() == before


def test_weights_of_other_sizes_are_refused(begun: Path) -> None:
    task = make_task()
    wider = paired_adapter(task.pipe.unet, token_dim=64)
    task = PairedTask(wider, tiny_pipe(ConditionedStableDiffusionPipeline), PairedConfig())
    with pytest.raises(ValueError, match=r"resume_from_checkpoint: got \S+ of shape .* expected"):
        train(task, Records(wider), config(begun, resume_from_checkpoint="latest"))


def test_a_checkpoint_is_found_by_its_name(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, max_train_steps=4)
    run(tmp_path, resume_from_checkpoint="checkpoint-2", max_train_steps=5)
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5]


def test_results_are_not_replaced(tmp_path: Path) -> None:
    run(tmp_path, max_train_steps=2)
    with pytest.raises(ValueError, match="which holds the result of another run; pass another folder"):
        run(tmp_path, max_train_steps=2)
    with pytest.raises(ValueError, match="which holds the result of another run; pass another folder"):
        run(tmp_path, max_train_steps=2, resume_from_checkpoint="latest")


HOLD = """
import sys
from pathlib import Path
from weftwork.training.core.checkpoints import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_write_to_one_folder(begun: Path) -> None:
    options = {"max_train_steps": 4, "resume_from_checkpoint": "latest"}
    with Popen([sys.executable, "-c", HOLD, str(begun)], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=r"output_dir: got .*, to which another run writes; pass another folder"):
            run(begun, **options)
        other.kill()
    assert sorted(losses(begun)) == [1, 2]
    run(begun, **options)
    assert sorted(losses(begun)) == [1, 2, 3, 4]


def test_a_complete_run_stays_as_it_is(begun: Path) -> None:
    files = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    run(begun, resume_from_checkpoint="latest", max_train_steps=2, learning_rate=1.0)
    with pytest.raises(ValueError, match="max_train_steps: got 1 for a run of 2 steps; pass more"):
        run(begun, resume_from_checkpoint="latest", max_train_steps=1)
    assert {path: path.read_bytes() for path in files} == files
    run(begun, resume_from_checkpoint="latest", max_train_steps=3)
    assert sorted(losses(begun)) == [1, 2, 3]
