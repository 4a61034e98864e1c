"""Atomic writes."""

import os
from pathlib import Path

import pytest

from weftwork.datasets.readers.atomic import atomic_path


def test_a_file_appears_with_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "deep" / "a.txt") as partial:
            partial.write_text("new")
            assert partial.name == "a.txt" and not (tmp_path / "deep" / "a.txt").exists()
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path: Path, fails: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    try:
        with atomic_path(tmp_path / "out") as partial:
            partial.mkdir()
            (partial / "new").touch()
            if fails:
                raise OSError("disk full")
    except OSError:
        assert fails
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old" if fails else "new"]
