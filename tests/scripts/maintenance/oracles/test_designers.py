"""The classifier of designers learns the sets of a few drawings, and opens again."""

import json
from pathlib import Path

import torch

from weftwork.datasets.drawings.collection import Drawings
from weftwork.evaluation.oracles.designers import DesignerOracle
from weftwork.scripts.maintenance.oracles.train_designers import main

ROOT = Path(__file__).parents[4]


def test_the_classifier_trains_on_drawings(tmp_path: Path) -> None:
    few = Drawings.read(ROOT / "examples/drawings")
    few.only(["noto", "twemoji"], list(few.subjects)[::6]).save(tmp_path / "drawings")
    options = {"drawings": tmp_path / "drawings", "cache_dir": tmp_path / "cache", "output_dir": tmp_path / "run"}
    options |= {"scenes": 16, "held_out": 4, "max_train_steps": 2, "train_batch_size": 8, "validation_steps": 2}
    main([*(f"--{name}={value}" for name, value in options.items()), "--use_cpu", "--report_to=none"])
    oracle = DesignerOracle.from_pretrained(tmp_path / "run/final").eval()
    images = torch.rand(2, 3, 128, 128)
    assert set(oracle.read(images)) <= {"noto", "twemoji"}
    assert torch.allclose(oracle(images)[:1], oracle(images[:1]), atol=1e-5)
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert 0 <= rows[-1]["accuracy"] <= 1
