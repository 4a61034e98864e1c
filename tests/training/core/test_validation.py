"""Held-out samples, their loss, baselines and targets of validation images, and early stopping."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import drawn_sketch
from tiny_training import Records, config, make_task
from torch import nn
from torch.utils.data import TensorDataset

from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.training.core.checkpoints import checkpoints
from weftwork.training.core.early_stopping import EarlyStopping
from weftwork.training.core.loop import train
from weftwork.training.core.task import Task
from weftwork.training.core.validation import Part, held_out, held_out_loss, split


class Grouped(TensorDataset):
    groups = tuple("aabbccdd")
    buckets = tuple(range(8))


class Weight(nn.Module):
    """One number, trained towards 1."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        folder.mkdir(parents=True)
        save_file({"value": self.value.detach().clone()}, folder / "weight.safetensors")


class Numbers(Task[Weight, tuple[torch.Tensor], torch.Tensor]):
    """The loss is the squared distance of the weight from the mean of a batch."""

    def __init__(self) -> None:
        self.module = Weight()

    def collate(self, samples: list[tuple[torch.Tensor]]) -> torch.Tensor:
        return torch.stack([one for (one,) in samples]).float()

    def loss(self, batch: torch.Tensor, generator: torch.Generator, micro: int) -> torch.Tensor:
        return (batch - self.module.value).square().mean()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(folder: Path, held_out: float = 0.3, **changes: Any) -> float:
    """Trains the number towards 1; returns that of the result."""
    options = {"max_train_steps": 20, "early_stopping_patience": 2, "checkpointing_steps": 1, **changes}
    fixed = {
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler": "constant",
        "use_ema": False,
        "max_grad_norm": 10.0,
        "adam_weight_decay": 0.0,
    }
    settings = config(folder, validation_steps=1, gradient_accumulation_steps=1, **fixed, **options)
    rest = Part(TensorDataset(torch.full((3,), held_out)), range(3))
    result = train(Numbers(), TensorDataset(torch.ones(8)), settings, held_out=rest)
    return float(load_file(result / "weight.safetensors")["value"])


def test_the_split_depends_on_the_length_and_keeps_groups_together(caplog: pytest.LogCaptureFixture) -> None:
    plain = TensorDataset(torch.arange(20))
    with caplog.at_level("INFO", logger="weftwork"):
        data, rest = split(plain, 0.1)
    assert len(data) == 18 and len(rest) == 2
    assert sorted(int(one[0]) for part in (data, rest) for one in part) == list(range(20))
    assert list(rest.indices) == held_out(plain, 0.1)
    named = ", ".join(str(index + 1) for index in rest.indices)
    assert f"2 of 20 samples, number {named}" in caplog.text
    data, rest = split(Grouped(torch.arange(8)), 0.2)
    assert len({Grouped.groups[index] for index in rest.indices}) == 1 and len(rest) == 2
    assert rest.buckets == list(rest.indices) and data.buckets == list(data.indices)
    with pytest.raises(ValueError, match=r"validation_split: got 0.9 of 1 samples, which leaves none to train on"):
        split(TensorDataset(torch.arange(1)), 0.9)


def test_a_validation_loss_is_of_equal_draws() -> None:
    task = make_task()
    _, rest = split(Records(task.module), 0.3)
    device = torch.device("cpu")
    with torch.no_grad():
        once = held_out_loss(task, rest, 2, device)
        torch.manual_seed(5)
        assert held_out_loss(task, rest, 2, device) == once
        for parameter in task.module.parameters():
            parameter.add_(0.1)
        assert held_out_loss(task, rest, 2, device) != once


def test_every_held_out_sample_counts_alike() -> None:
    values = [0.0, 3, 4, 5, 7]
    ragged = Part(TensorDataset(torch.tensor(values)), range(5))
    for ragged.buckets in (None, [0, 0, 1, 1, 1]):
        loss = held_out_loss(Numbers(), ragged, 3, torch.device("cpu"))
        assert loss == pytest.approx(sum(value**2 for value in values) / 5)


def test_the_first_row_of_the_metrics_is_before_training(tmp_path: Path) -> None:
    run(tmp_path, max_train_steps=2)
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [0, 1, 2]
    assert "loss" not in found[0] and found[0]["validation_loss"] == pytest.approx(0.09)


def test_early_stopping_returns_to_the_lowest_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="weftwork"):
        result = run(tmp_path, checkpointing_steps=0, checkpoints_total_limit=1)
    losses = {row["step"]: row["validation_loss"] for row in rows(tmp_path)}
    assert list(losses) == [0, 1, 2, 3, 4] and min(losses, key=losses.__getitem__) == 2
    assert result == pytest.approx(1 - 0.8**2) and losses[2] == pytest.approx((result - 0.3) ** 2)
    assert f"{losses[2]:.4f} at step 2 is the lowest; the result is of that step" in caplog.text
    assert [one.name for one in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert run(tmp_path / "worse", held_out=-1) == 0, "the start was the best"
    assert run(tmp_path / "off", early_stopping_patience=0) == pytest.approx(1 - 0.8**20)


def test_an_interrupted_run_goes_on_with_its_patience(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", max_train_steps=3)
    assert run(tmp_path / "cut", resume_from_checkpoint="latest") == whole
    assert rows(tmp_path / "cut")[-1]["step"] == rows(tmp_path / "whole")[-1]["step"] == 4


def test_a_lowest_loss_without_its_checkpoint_is_left_out(tmp_path: Path) -> None:
    losses = [{"step": 0, "validation_loss": 3.0}, {"step": 1}, {"step": 2, "validation_loss": 1.0}]
    losses += [{"step": 4, "validation_loss": float("nan")}, {"step": 6, "validation_loss": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in losses))
    (tmp_path / "checkpoint-2").mkdir()
    read = EarlyStopping.read(1, tmp_path, 4)
    assert (read.best, read.exhausted) == (2, True)
    assert EarlyStopping.read(2, tmp_path, 6).losses == {0: 3.0, 2: 1.0, 4: float("inf")}
    (tmp_path / "checkpoint-2").rmdir()
    assert EarlyStopping.read(1, tmp_path, 6).best is None


def test_early_stopping_without_a_validation_loss_is_refused(tmp_path: Path) -> None:
    task = make_task()
    with pytest.raises(ValueError, match=r"early_stopping_patience: got 2 .*; pass --validation_split"):
        train(task, Records(task.module), config(tmp_path, early_stopping_patience=2, validation_steps=1))
    with pytest.raises(ValueError, match=r"early_stopping_patience: got -1, expected 0 or more"):
        config(tmp_path, early_stopping_patience=-1)


def test_images_are_below_their_target_and_those_of_step_0(tmp_path: Path) -> None:
    task = make_task()
    red = Image.new("RGB", (40, 40), "red")
    task.validation, task.targets = [("a b", [SketchTextPair(drawn_sketch(), "a thing")])] * 2, [red]
    train(
        task,
        Records(task.module),
        config(tmp_path, max_train_steps=2, validation_steps=2, learning_rate=1.0, use_ema=False),
    )
    first, last = (np.asarray(Image.open(tmp_path / f"validation/{step:06d}.png")) for step in (0, 2))
    side = first.shape[1] // 2
    assert (first.shape[0], last.shape[0]) == (3 * side, 4 * side)
    assert (last[side : 2 * side, :side] == (255, 0, 0)).all() and (last[side : 2 * side, side:] == 255).all()
    assert (last[2 * side : 3 * side] == first[2 * side :]).all()
    assert (last[3 * side :] != first[2 * side :]).any()
