"""Trackers of scores and validation images."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import drawn_sketch
from tiny_training import Records, config, make_task

from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.training.core.loop import train
from weftwork.training.core.trackers import tracker


def test_tensorboard_gets_scores_and_images(tmp_path: Path) -> None:
    task = make_task()
    task.validation = [("a b", [SketchTextPair(drawn_sketch(), "a thing")])]
    train(task, Records(task.module), config(tmp_path, max_train_steps=2, validation_steps=2, report_to="tensorboard"))
    events = EventAccumulator(str(tmp_path / "logs" / "training"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert [event.step for event in events.Images("validation")] == [0, 2]
    train(task, Records(task.module), config(tmp_path / "quiet", max_train_steps=1))
    assert not (tmp_path / "quiet" / "logs").exists()


def test_missing_trackers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="report_to: got 'paper', expected none or one of those installed"):
        tracker("paper")
    monkeypatch.setattr("weftwork.training.core.trackers.get_available_trackers", list)
    assert tracker("tensorboard") is None
    with pytest.raises(ValueError, match=r"report_to: got 'wandb', .* installed \(none is installed\)"):
        tracker("wandb")
