"""Training runs killed at random times end with the weights of an uninterrupted run."""

from pathlib import Path

import pytest
from tiny import tiny_pipe

from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bits_of_a_straight_one(tmp_path: Path) -> None:
    from weftwork.scripts.maintenance.check_interruptions import main as check

    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    options = ["--kills", "3", "--output", str(tmp_path / "out"), "--model", str(tmp_path / "model")]
    assert check([*options, "--max_train_steps", "60", "--longest", "12"]) == 0
