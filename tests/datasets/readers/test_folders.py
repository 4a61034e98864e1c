"""Files in folders that are links, as caches of models have them, are seen."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from weftwork.datasets.readers.audio_folder import AudioFolder
from weftwork.datasets.readers.folders import files_below
from weftwork.datasets.readers.footsteps import FootstepFolder
from weftwork.pipelines.designs.identity import path_digest
from weftwork.scripts.inspect_folder import describe


def test_files_below_links(tmp_path: Path) -> None:
    inside, around = tmp_path / "elsewhere", tmp_path / "folder"
    (inside / "deeper").mkdir(parents=True)
    around.mkdir()
    for path in (inside / "deeper/b", inside / "a", around / "c"):
        path.write_text("x")
    for link, to in ((around / "one", inside), (around / "two", inside), (inside / "back", around)):
        link.symlink_to(to)
    (around / "nowhere").symlink_to("missing")
    found = [path.relative_to(around).as_posix() for path in files_below(around)]
    assert found == ["c", "one/a", "one/deeper/b", "two/a", "two/deeper/b"]
    assert files_below(tmp_path / "missing") == []


def test_linked_folders_are_read_and_are_part_of_identity(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    soundfile.write(tmp_path / "kept/0.wav", np.full(800, 0.1), 8000)
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps/grass").symlink_to(tmp_path / "kept")
    assert FootstepFolder(tmp_path / "steps").surfaces == ("grass",)
    assert len(AudioFolder(tmp_path / "steps", 0.05)) == 2
    before = path_digest(tmp_path / "steps", "model")
    (tmp_path / "kept/unet.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert path_digest(tmp_path / "steps", "model") != before
    assert describe(tmp_path / "steps")["path"] == str(tmp_path / "steps")


def test_boxes_of_no_audio_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "a walk.2.wav", np.full(800, 0.1), 8000)
    for name in ("a walk.2.boxes", "a_walk.2.boxes", "a walk.depth"):
        values = {"times": [0.0], "boxes": [[0.1, 0.1, 0.5, 0.9]], "depth": np.ones((1, 2, 2)), "metric": True}
        np.savez(tmp_path / f"{name}.npz", **values)
    assert len(AudioFolder(tmp_path, 0.1)[0].boxes) == 1
    assert [Path(one.getMessage().partition(": got")[0]).name for one in caplog.records] == [
        "a walk.depth.npz",
        "a_walk.2.boxes.npz",
    ]


def test_two_sidecar_files_of_one_kind_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "walk.wav", np.full(800, 0.1), 8000)
    (tmp_path / "walk.boxes.json").write_text('{"times": [0], "boxes": [[0, 0, 1, 1]]}')
    assert len(AudioFolder(tmp_path, 0.1)[0].boxes) == 1
    np.savez(tmp_path / "walk.boxes.npz", times=[0.0], boxes=[[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"walk\.boxes\.npz: got walk\.boxes\.json beside it, expected one of them"):
        AudioFolder(tmp_path, 0.1)
