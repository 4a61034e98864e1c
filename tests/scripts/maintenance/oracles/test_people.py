"""The classifier of people trains on a few, and opens again."""

import json
from pathlib import Path

import pytest
import torch
from tiny_people import people_folder

from weftwork.evaluation.oracles.people import GROUPS, PersonOracle
from weftwork.scripts.maintenance.oracles.train_people import main


def test_the_classifier_trains_on_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = people_folder(tmp_path, monkeypatch)
    options = {"people": folder, "cache_dir": tmp_path / "cache", "output_dir": tmp_path / "run"}
    options |= {"images": 16, "held_out": 4, "max_train_steps": 2, "train_batch_size": 8, "validation_steps": 2}
    main([*(f"--{name}={value}" for name, value in options.items()), "--use_cpu", "--report_to=none"])
    oracle = PersonOracle.from_pretrained(tmp_path / "run/final").eval()
    [reading] = oracle.read_people(torch.rand(1, 3, 128, 128))
    assert sorted(reading.expressions) == sorted(GROUPS["expression"])
    assert reading.person.skin in GROUPS["skin"] and reading.person.hair in GROUPS["hair"]
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert all(0 <= row[f"{name}_accuracy"] <= 1 for name in GROUPS)
