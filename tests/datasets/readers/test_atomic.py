"""Atomic writes."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from weftwork.datasets.readers.atomic import WriteError, atomic_path, write_errors


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


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
LIBRARIES = [
    FULL,
    SafetensorError("I/O error"),
    RuntimeError("[enforce fail] . unexpected pos 64 vs 12"),
    OSError("9 requested and 5 written"),
]


@pytest.mark.parametrize("error", LIBRARIES, ids=lambda one: type(one).__name__)
def test_a_full_disk_is_an_error_that_names_the_path_once(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "a.txt"
    with pytest.raises(WriteError) as raised, write_errors(tmp_path), atomic_path(target) as partial:
        partial.write_text("half")
        raise error
    assert str(raised.value).startswith(f"{target}: cannot be written (")
    assert str(raised.value).count("make room, or choose another place") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [RuntimeError("shape"), FileNotFoundError(errno.ENOENT, "none", "b.txt"), ValueError()]
)
def test_other_errors_are_left_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, atomic_path(tmp_path / "a.txt"):
        raise error
    assert raised.value is error
