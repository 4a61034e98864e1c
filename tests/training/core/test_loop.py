"""The training loop on tiny real components."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Records, config, losses, make_task, run

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.paired.adapter import PairedAdapter
from weftwork.scripts.cli import main
from weftwork.training.core.loop import train
from weftwork.training.tasks.paired import PairedConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_training_changes_the_adapter_and_not_the_backbone(tmp_path: Path) -> None:
    task = make_task()
    before = state_sha256(task.pipe.unet)
    start = {n: p.clone() for n, p in task.module.named_parameters()}
    folder = train(task, Records(task.module), config(tmp_path))
    assert state_sha256(task.pipe.unet) == before
    trained = PairedAdapter.from_pretrained(folder)
    for name, parameter in trained.named_parameters():
        assert not torch.equal(parameter, start[name]), name


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    task = make_task()
    task.loss = lambda *_: torch.tensor(float("nan"), requires_grad=True)  # pyright: ignore
    before = state_sha256(task.module)
    with pytest.raises(FloatingPointError, match="step 1, so nothing was updated"):
        train(task, Records(task.module), config(tmp_path))
    assert state_sha256(task.module) == before


def test_steps_without_a_number_are_skipped_and_counted(tmp_path: Path) -> None:
    task = make_task()
    original, seen = task.loss, []

    def loss(*arguments: Any) -> Any:
        seen.append(1)
        return original(*arguments) * (float("nan") if len(seen) in (3, 7, 9) else 1.0)

    task.loss = loss  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        FloatingPointError, match=r"at step 5, so nothing was updated \(last checkpoint: checkpoint-4\)"
    ):
        train(task, Records(task.module), config(tmp_path, max_skipped_steps=1, checkpointing_steps=1))
    assert [name for name, loss in losses(tmp_path).items() if loss is None] == [2, 4]
    weights = [load_file(tmp_path / f"checkpoint-{step}/{WEIGHTS}") for step in (3, 4)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset: got 10 samples, expected at least one batch of 64"):
        run(tmp_path, train_batch_size=64)
    with pytest.raises(ValueError, match=r"resume_from_checkpoint: got 'nowhere', expected 'latest' or one of: none"):
        run(tmp_path, resume_from_checkpoint="nowhere")
    with pytest.raises(ValueError, match=r"learning_rate: got 0, expected a number above 0"):
        config(tmp_path, learning_rate=0)
    with pytest.raises(ValueError, match=r"pair_dropout: got 1.5, expected a share"):
        PairedConfig(pair_dropout=1.5)


def test_further_scores_are_logged(tmp_path: Path) -> None:
    task, seen = make_task(), []

    def evaluate(sheet: Path) -> dict[str, float]:
        seen.append((task.module.training, sheet.name))
        return {"color_accuracy": 0.25}

    train(task, Records(task.module), config(tmp_path, max_train_steps=3, validation_steps=2), evaluate)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("color_accuracy") for row in rows] == [0.25, None, 0.25, 0.25]
    assert seen == [(False, f"00000{step}-cases.png") for step in (0, 2, 3)]


def test_sharded_saving_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    task = make_task()
    with pytest.raises(ValueError, match=r"accelerate: got DeepSpeed, .*launch with --multi_gpu"):
        train(task, Records(task.module), config(tmp_path / "run"))
    assert main(["train", "paired", "--synthetic", "outfits", "--output_dir", str(tmp_path / "run")]) == 2
    assert "accelerate: got DeepSpeed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
