"""Files in folders that are links, as caches of models have them, are seen."""

from pathlib import Path

import numpy as np
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
