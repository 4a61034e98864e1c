"""Helpers of the tests of `weftwork generate`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from weftwork.scripts.cli import main

PAIR: dict[str, Any] = {"sketch": "jacket.png", "text": "a red jacket", "region": "sketch"}
DESIGN: dict[str, Any] = {"prompt": "a person", "seed": 3, "num_inference_steps": 2, "conditions": {"paired": [PAIR]}}


def write(folder: Path, record: Any) -> Path:
    path = folder / "design.json"
    path.write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
    return path


def generate(folder: Path, models: Path, *options: str) -> int:
    model = ["--model", str(models / "model"), "--adapter", f"paired={models / 'paired'}"]
    output = ["--output", str(folder / "out" / "picture.png")]
    return main(["generate", str(folder / "design.json"), *model, *output, *options])


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels and stored design of a written image."""
    with Image.open(path) as image:
        return np.asarray(image, np.int16), json.loads(image.info["weftwork"])


def refused(code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a run that must have failed cleanly."""
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    assert not list((folder / "out").glob("*") if (folder / "out").exists() else ())
    (line,) = [line for line in text.splitlines() if line.startswith("weftwork: ")]
    return line
