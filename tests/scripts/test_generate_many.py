"""`weftwork generate --input`: many designs, of which existing images are kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import drawn_sketch
from tiny_designs import generate, read, write

from weftwork.attention_processors import PairedAdapter
from weftwork.pipelines.designs.files import stored_in, write_images
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
    assert "1 of 2 designs were there, 1 to make" in capsys.readouterr().out
    assert (folder / "many/000002.png").stat().st_mtime_ns == kept and (folder / "many/one.png").is_file()


def test_a_folder_of_other_images_is_left_alone(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_many(folder, FEW[0])
    assert many(folder, models) == 0
    before = (folder / "many/one.png").read_bytes()
    write_many(folder, {**FEW[0], "prompt": "other"})
    assert many(folder, models) == 2
    assert "one.png: got an image of another design" in capsys.readouterr().err
    assert (folder / "many/one.png").read_bytes() == before


def test_images_of_versions_that_stored_paths_are_known(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, {"name": "one", **FEW[1]})
    assert many(folder, models) == 0
    path = folder / "many/one.png"
    record = stored_in(path)
    assert record is not None and record["design"]["conditions"]["paired"] != PAIRS
    for pairs, code in ((PAIRS, 0), ([{**PAIRS[0], "text": "e"}], 2)):
        record["design"]["conditions"]["paired"] = pairs
        with Image.open(path) as image:
            write_images({path: (image.copy(), json.dumps(record))})
        before = path.read_bytes()
        assert many(folder, models) == code and path.read_bytes() == before
    assert "one.png: got an image of another design" in capsys.readouterr().err


def test_images_with_a_lora_are_known_from_another_working_directory(
    folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models / "lora", folder / "lora")
    (folder / "elsewhere").mkdir()
    write_many(folder, {"name": "one", **FEW[1], "loras": [{"lora": "lora"}]})
    model = ["--model", str(models / "model"), "--adapter", f"paired={models / 'paired'}"]
    monkeypatch.chdir(folder)
    assert main(["generate", "--input", "all.jsonl", "--output", "many", *model]) == 0
    record = stored_in(folder / "many/one.png")
    assert record is not None and record["design"]["loras"] == [{"lora": "../lora"}]
    monkeypatch.chdir(folder / "elsewhere")
    assert many(folder, models) == 0
    assert "1 of 1 designs were there, 0 to make" in capsys.readouterr().out
    for place, code in (("many", 0), (".", 2)):
        (folder / place / "again.jsonl").write_text(json.dumps({"name": "again", **record["design"]}) + "\n")
        assert main(["generate", "--input", f"../{place}/again.jsonl", "--output", "made", *model]) == code
    assert np.array_equal(read(folder / "elsewhere/made/again.png")[0], read(folder / "many/one.png")[0])
    assert "lora: got nothing at '../../lora', expected a file or folder" in capsys.readouterr().err


def test_every_wrong_line_is_told_and_nothing_is_made(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, FEW[0], {"promt": "a"}, {"name": "../x", "prompt": "a"}, {"name": "one", "prompt": "a"})
    assert many(folder, models) == 2
    said = capsys.readouterr().err
    assert all(f"line {number}: " in said for number in (2, 3, 4)) and "line 1: " not in said
    assert not (folder / "many").exists()
    write_many(folder, *FEW)
    assert many(folder, models, "--num_images", "0") == 2
    assert main(["generate"]) == 2 and main(["generate", "a.json", "--input", "b"]) == 2


def test_one_image_that_fails_keeps_no_other_from_being_made(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, {"name": "bad", "prompt": "a", "conditions": {"nothing": [{"text": "d"}]}}, FEW[0])
    assert many(folder, models) == 2
    assert "1 could not be made" in capsys.readouterr().err
    assert {p.name for p in (folder / "many").iterdir()} == {"one.png"}


Change = Callable[[Path, Path], tuple[str, ...]]


def edited_sketch(folder: Path, models: Path) -> tuple[str, ...]:
    drawn_sketch(3).save(folder / "jacket.png")
    return ()


def trained_adapter(folder: Path, models: Path) -> tuple[str, ...]:
    shutil.copytree(models / "paired", folder / "trained")
    adapter = PairedAdapter.from_pretrained(folder / "trained")
    with torch.no_grad():
        next(adapter.parameters()).add_(1.0)
    adapter.save_pretrained(folder / "trained")
    return ("--adapter", f"paired={folder / 'trained'}")


def other_model(folder: Path, models: Path) -> tuple[str, ...]:
    shutil.copytree(models / "model", folder / "other")
    index = folder / "other/scheduler/scheduler_config.json"
    index.write_text(index.read_text().replace("epsilon", "v_prediction"))
    return ("--model", str(folder / "other"))


@pytest.mark.parametrize(
    ("change", "thing"),
    [
        (edited_sketch, "conditions"),
        (trained_adapter, "adapter paired"),
        (other_model, "model"),
        (lambda *_: ("--image_encoder", "owner/encoder"), "image_encoder"),
    ],
)
def test_images_made_with_other_things_are_named(
    change: Change, thing: str, folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, FEW[1])
    assert many(folder, models) == 0
    capsys.readouterr()
    more = change(folder, models)
    given = {"--model": str(models / "model"), "--adapter": f"paired={models / 'paired'}"}
    given |= dict([more] if more else [])
    command = ["generate", "--input", str(folder / "all.jsonl"), "--output", str(folder / "many")]
    assert main([*command, *(word for option in given.items() for word in option)]) == 2
    assert f"000001.png: got an image made with other {thing}" in capsys.readouterr().err


def test_paths_are_checked_when_nothing_is_missing(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, FEW[1])
    assert many(folder, models) == 0
    command = ["generate", "--input", str(folder / "all.jsonl"), "--output", str(folder / "many")]
    assert main([*command, "--model", str(models / "model"), "--adapter", "paired=nowhere"]) == 2
    assert "adapter paired: got 'nowhere', where nothing is" in capsys.readouterr().err


def test_an_image_that_is_cut_short_is_made_again(folder: Path, models: Path) -> None:
    write_many(folder, FEW[0])
    assert many(folder, models) == 0
    whole = (folder / "many/one.png").read_bytes()
    (folder / "many/one.png").write_bytes(whole[: len(whole) // 2])
    assert many(folder, models) == 0
    assert (folder / "many/one.png").read_bytes() == whole


def test_texts_with_other_line_separators_are_one_line(folder: Path, models: Path) -> None:
    line = json.dumps({**FEW[0], "prompt": "a\u2028b\u0085c"}, ensure_ascii=False)
    (folder / "all.jsonl").write_text("\ufeff" + line + "\n", encoding="utf-8")
    assert many(folder, models) == 0
    assert read(folder / "many/one.png")[1]["design"]["prompt"] == "a\u2028b\u0085c"


def test_several_images_and_their_maps(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_many(folder, {**FEW[1], "name": "look.v2.png"})
    options = ("--num_images", "2", "--maps")
    assert many(folder, models, *options) == 0
    names = ["look.v2-0-maps.png", "look.v2-0.png", "look.v2-1-maps.png", "look.v2-1.png"]
    assert sorted(p.name for p in (folder / "many").iterdir()) == names
    write(folder, {**FEW[1], "seed": 0})
    assert generate(folder, models, *options) == 0
    for number in (0, 1):
        for maps in ("", "-maps"):
            single = read(folder / f"out/picture-{number}{maps}.png")
            together = read(folder / f"many/look.v2-{number}{maps}.png")
            assert np.array_equal(single[0], together[0]) and together[1]["seed"] == number
    capsys.readouterr()
    assert many(folder, models, *options) == 0
    assert "1 of 1 designs were there, 0 to make" in capsys.readouterr().out
    (folder / "many/look.v2-1-maps.png").unlink()
    assert many(folder, models, *options) == 0
    said = capsys.readouterr().out
    assert "replaced: " in said and "0 of 1 designs were there, 1 to make" in said


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("a", "a-maps"), ("--maps",), "name: got 'a' and 'a-maps', which both write a-maps.png; rename one"),
        (("a", "a.png"), (), "line 2: got the name 'a' again, expected each once; rename one"),
        ((".a",), (), "line 1: got the name '.a', expected up to 100 letters, digits, -, _ and dots, none in front"),
        (("..",), (), "line 1: got the name '..', expected"),
    ],
)
def test_names_that_cannot_be_files_are_refused(
    names: Any, options: Any, message: str, folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, *({**FEW[1], "name": name} for name in names))
    assert many(folder, models, *options) == 2
    assert message in capsys.readouterr().err and not (folder / "many").exists()


def test_an_output_of_one_image_is_refused(folder: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_many(folder, *FEW)
    (folder / "file").write_text("kept")
    for name in ("many.png", "file"):
        assert many(folder, models, "--output", str(folder / name)) == 2
        assert f"{name}', expected a folder for all images; choose another name" in capsys.readouterr().err
    assert not (folder / "many.png").exists()


def test_maps_of_a_design_without_conditions_are_refused(
    folder: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_many(folder, *FEW)
    assert many(folder, models, "--maps") == 2
    assert "one: maps: got a design without conditions" in capsys.readouterr().err
