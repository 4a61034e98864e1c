"""Ctrl-C leaves a checkpoint of a complete step."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import Records, config, losses, make_task, run

from weftwork.training.core.checkpoints import checkpoints
from weftwork.training.core.gradients import average_gradients
from weftwork.training.core.loop import train

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_ctrl_c_saves_a_checkpoint(tmp_path: Path) -> None:
    task = make_task()
    original, seen = task.loss, []

    def loss(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    task.loss = loss  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KeyboardInterrupt):
        train(task, Records(task.module), config(tmp_path))
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-3"]
    whole = run(tmp_path / "whole")
    resumed = run(tmp_path, resume_from_checkpoint="latest")
    one, other = load_file(whole / WEIGHTS), load_file(resumed / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Lets SIGINT raise, even in a process started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_an_update_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[int] = []

    def interrupted(parameters: list[torch.nn.Parameter]) -> None:
        updates.append(1)
        if len(updates) == 3:
            signal.raise_signal(signal.SIGINT)
        average_gradients(parameters)

    monkeypatch.setattr("weftwork.training.core.loop.average_gradients", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-3"]
    assert sorted(losses(tmp_path)) == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_saves_a_checkpoint(tmp_path: Path) -> None:
    """As clusters send it; the exit code is that of a terminated process."""
    task = make_task()
    original, seen = task.loss, []

    def loss(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 7:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    task.loss = loss  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SystemExit) as stopped:
        train(task, Records(task.module), config(tmp_path))
    assert stopped.value.code == 143
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-3"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
