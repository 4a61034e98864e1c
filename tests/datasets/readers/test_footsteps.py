"""Folders of recorded footsteps: surfaces, splits by recording, credits."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from weftwork.datasets.readers.footsteps import SPLITS, FootstepFolder, surface_of


def write(folder: Path, names: Sequence[str]) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).standard_normal(800) * 0.1
        soundfile.write(folder / name, noise, 16_000)
    return folder


def test_surfaces_are_those_of_folders_names_or_credits(tmp_path: Path) -> None:
    folder = write(tmp_path, ["Gravel/one.wav", "wood_2.wav", "snow1.flac", "odd/three.ogg"])
    (folder / "footsteps.json").write_text(json.dumps({"odd/three.ogg": {"surface": "ice", "license": "CC0-1.0"}}))
    found = {one.path.name: one for one in FootstepFolder(folder).recordings}
    assert {name: one.surface for name, one in found.items()} == {
        "one.wav": "gravel",
        "wood_2.wav": "wood",
        "snow1.flac": "snow",
        "three.ogg": "ice",
    }
    assert found["three.ogg"].license == "CC0-1.0" and found["one.wav"].license == ""
    assert surface_of("a/b/Metal/x.wav") == "metal"


def test_recordings_are_split_once_and_names_do_not_matter(tmp_path: Path) -> None:
    counts = {"one": 1, "two": 2, "three": 3, "ten": 10}
    names = [f"{surface}/{i}.wav" for surface, count in counts.items() for i in range(count)]
    folder = FootstepFolder(write(tmp_path, names))
    splits = {split: folder.of(split) for split in SPLITS}
    sizes = {split: {surface: len(some) for surface, some in found.items()} for split, found in splits.items()}
    assert sizes["train"] == {"one": 1, "ten": 6, "three": 1, "two": 1}
    assert sizes["validation"] == {"ten": 2, "three": 1} and sizes["test"] == {"ten": 2, "three": 1, "two": 1}
    every = [one.path for found in splits.values() for some in found.values() for one in some]
    assert sorted(every) == sorted(tmp_path / name for name in names)
    held = {one.path.read_bytes() for one in splits["test"]["ten"]}
    digest = folder.digest
    for i in range(10):
        (tmp_path / f"ten/{i}.wav").rename(tmp_path / f"ten/renamed{9 - i}.wav")
    again = FootstepFolder(tmp_path)
    assert {one.path.read_bytes() for one in again.of("test")["ten"]} == held and again.digest == digest


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no footsteps, expected <surface>/<name> that ends in"):
        FootstepFolder(tmp_path)
    folder = write(tmp_path, ["wood/one.wav"])
    with pytest.raises(ValueError, match="split: got 'tset', expected one of train, validation, test"):
        FootstepFolder(folder).of("tset")
    with pytest.raises(ValueError, match="got no recordings for the test split, expected three or more"):
        FootstepFolder(folder).of("test")
    (folder / "footsteps.json").write_text(json.dumps({"wood/two.wav": {}}))
    with pytest.raises(ValueError, match=r"got 'wood/two\.wav', which is not in the folder; remove its entry"):
        FootstepFolder(folder)
    (folder / "footsteps.json").write_text(json.dumps({"wood/one.wav": {"floor": "wood"}}))
    with pytest.raises(ValueError, match="expected texts named author, license, source, surface; correct the entry"):
        FootstepFolder(folder)
    (folder / "footsteps.json").write_text('{"wood/one.wav": {"license": "a"}, "wood/one.wav": {"license": "b"}}')
    with pytest.raises(ValueError, match=r"not JSON \(a key given twice among wood/one\.wav"):
        FootstepFolder(folder)
    (folder / "footsteps.json").unlink()
    with pytest.raises(ValueError, match=r"7\.wav: got no surface, expected <surface>/<name> or .*; rename it"):
        FootstepFolder(write(tmp_path / "numbered", ["7.wav"]))
    (folder / "wood/two.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match=r"two\.wav: got a file that cannot be read"):
        FootstepFolder(folder)
