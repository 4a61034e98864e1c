"""Fetching of recorded footsteps, and those that are shipped."""

import hashlib
import json
from pathlib import Path

import pytest
from remedies import check

from weftwork.datasets.readers.footsteps import FootstepFolder
from weftwork.scripts.maintenance.fetch_footsteps import FREE, PACKAGES, Package, fetch, notice

SHIPPED = Path(__file__).parents[3] / "examples/footsteps"


def test_shipped_footsteps_are_free_and_credited() -> None:
    folder = FootstepFolder(SHIPPED)
    assert len(folder.recordings) == 20 and len(folder.surfaces) == 6
    assert {one.license for one in folder.recordings} == set(FREE)
    assert all(one.author and PACKAGES[0].version in one.source for one in folder.recordings)
    assert (SHIPPED / "NOTICE").read_text() == notice(json.loads((SHIPPED / "footsteps.json").read_text()))
    assert set(folder.of("test")) == set(folder.surfaces) == set(folder.of("validation"))


def test_the_remedy_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, path = Package("steps", "1", hashlib.sha256(b"whole").hexdigest(), "", ()), tmp_path / "steps_1_all.deb"
    monkeypatch.setattr("subprocess.run", lambda *_, **__: path.write_bytes(b"whole"))
    path.write_bytes(b"other")
    words = "steps_1_all.deb: got SHA-256 .*; remove the file and fetch it again"
    check(
        (words, lambda folder: fetch(package, folder), lambda folder: path.unlink() or fetch(package, folder)), tmp_path
    )
