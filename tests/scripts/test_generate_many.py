"""`weftwork generate --input`: many designs, of which existing images are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_designs import generate, read, write

from weftwork.scripts.cli import main


def many(folder: Path, models: Path, *options: str) -> int:
    model = ["--model", str(models / "model"), "--adapter", f"paired={models / 'paired'}"]
    return main(["generate", "--input", str(folder / "all.jsonl"), "--output", str(folder / "many"), *model, *options])


def write_many(folder: Path, *records: Any) -> None:
    (folder / "all.jsonl").write_text("\n".join(json.dumps(one) for one in records) + "\n")


PAIRS = [{"sketch": "jacket.png", "text": "d"}]
FEW = (
    {"name": "one", "prompt": "a b", "num_inference_steps": 2, "seed": 3},
    {"prompt": "c", "num_inference_steps": 2, "conditions": {"paired": PAIRS}},
)


def test_many_designs_are_the_single_ones_and_none_is_made_twice(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, *FEW)
    assert many(folder, models) == 0
    assert {p.name for p in (folder / "many").iterdir()} == {"one.png", "000002.png"}
    write(folder, {key: value for key, value in FEW[1].items()} | {"seed": 1})
    assert generate(folder, models) == 0
    single, together = read(folder / "out/picture.png"), read(folder / "many/000002.png")
    assert np.array_equal(single[0], together[0]) and together[1]["seed"] == 1
    (folder / "many/one.png").unlink()
    kept = (folder / "many/000002.png").stat().st_mtime_ns
    capsys.readouterr()
    assert many(folder, models) == 0
    assert "1 of 2 images were there, 1 to make" in capsys.readouterr().out
    assert (folder / "many/000002.png").stat().st_mtime_ns == kept and (folder / "many/one.png").is_file()


def test_a_folder_of_other_images_is_left_alone(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_many(folder, FEW[0])
    assert many(folder, models) == 0
    before = (folder / "many/one.png").read_bytes()
    write_many(folder, {**FEW[0], "prompt": "other"})
    assert many(folder, models) == 2
    assert "one.png: got an image of another design" in capsys.readouterr().err
    assert (folder / "many/one.png").read_bytes() == before


def test_every_wrong_line_is_told_and_nothing_is_made(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, FEW[0], {"promt": "a"}, {"name": "../x", "prompt": "a"}, {"name": "one", "prompt": "a"})
    assert many(folder, models) == 2
    said = capsys.readouterr().err
    assert all(f"line {number}: " in said for number in (2, 3, 4)) and "line 1: " not in said
    assert not (folder / "many").exists()
    write_many(folder, *FEW)
    assert many(folder, models, "--maps") == 2 and many(folder, models, "--num_images", "2") == 2
    assert main(["generate"]) == 2 and main(["generate", "a.json", "--input", "b"]) == 2


def test_one_picture_that_fails_keeps_no_other_from_being_made(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, {"name": "bad", "prompt": "a", "conditions": {"nothing": [{"text": "d"}]}}, FEW[0])
    assert many(folder, models) == 2
    assert "1 could not be made" in capsys.readouterr().err
    assert {p.name for p in (folder / "many").iterdir()} == {"one.png"}
