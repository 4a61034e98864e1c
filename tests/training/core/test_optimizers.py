"""Optimizers by name."""

from pathlib import Path

import pytest
from tiny_training import Records, config, make_task, run

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.loop import train


@pytest.mark.parametrize("name", ["adafactor", "sgd"])
def test_other_optimizers_train_too(name: str, tmp_path: Path) -> None:
    task = make_task()
    before = state_sha256(task.module)
    train(task, Records(task.module), config(tmp_path, optimizer=name, max_train_steps=2, lr_warmup_steps=0))
    assert state_sha256(task.module) != before


def test_missing_optimizers_name_their_package(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="optimizer: got 'adam', expected one of adamw, adamw8bit"):
        config(tmp_path, optimizer="adam")
    with pytest.raises(UserError, match="needs prodigyopt, which is not installed; pip install prodigyopt"):
        run(tmp_path, optimizer="prodigy")
