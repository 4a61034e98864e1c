"""Tables of errors and their remedies: a wrong call, the words of its error, and the same call as the error advises.

Files for these calls are made in the test's folder by functions of it, which return their path.
"""

import base64
import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.cli import main

Make = Callable[[Path], Any]
Row = tuple[str, Make, Make]
Wrong = tuple[str, str]
"""A command, and words of its error."""


def row(call: Callable[[Any], Any], wrong: Make, words: str, right: Make) -> Row:
    """A function that reads what `wrong` makes, and what `right` makes as the error advises; it writes nothing."""

    def reading(folder: Path) -> Any:
        given = wrong(folder)
        before = sorted(folder.rglob("*"))
        try:
            return call(given)
        finally:
            assert sorted(folder.rglob("*")) == before, "nothing is written"

    return words, reading, lambda folder: call(right(folder))


def table(*rows: Row) -> pytest.MarkDecorator:
    """Runs a test for each row, which it gets as `row`."""
    return pytest.mark.parametrize("row", rows, ids=[f"{index}-{one[0][-24:]}" for index, one in enumerate(rows)])


def check(row: Row, folder: Path, kind: type[Exception] | tuple[type[Exception], ...] = UserError) -> None:
    """The error is of this kind, with these words; after its remedy the call succeeds, in the same folder."""
    words, wrong, right = row
    with pytest.raises(kind, match=f"(?s){words}") as caught:
        wrong(folder)
    assert "Traceback" not in str(caught.value)
    assert right(folder) is not None


def check_call(call: Callable[[Any], Any], wrong: Any, words: str, right: Any) -> None:
    """Does the same for a function of one value that reads no file."""
    check((words, lambda _: call(wrong), lambda _: call(right)), Path())


def check_command(right: str, wrong: list[Wrong], capsys: pytest.CaptureFixture[str]) -> None:
    """All these commands fail, each with its words, and write nothing; the one that all of them advise succeeds."""
    before = sorted(Path().rglob("*"))
    for command, words in wrong:
        assert main(command.split()) == 2, command
        said = capsys.readouterr().err
        assert re.search(words, said) and "Traceback" not in said, said
    assert sorted(Path().rglob("*")) == before
    assert main(right.split()) == 0, capsys.readouterr().err


# What calls are given


def given(value: Any) -> Make:
    return lambda _: value


def nothing(folder: Path) -> Path:
    return folder / "nothing"


def itself(folder: Path) -> Path:
    return folder


def inside(*makes: Make) -> Make:
    """The folder, with files in it."""

    def make(folder: Path) -> Path:
        for one in makes:
            one(folder)
        return folder

    return make


def written(name: str, write: Callable[[Path], object]) -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return path

    return make


def text(content: str, name: str = "file.txt") -> Make:
    return written(name, lambda path: path.write_text(content, encoding="utf-8"))


def as_json(content: Any, name: str) -> Make:
    return text(json.dumps(content), name)


def of_bytes(content: bytes, name: str) -> Make:
    return written(name, lambda path: path.write_bytes(content))


def image(made: Image.Image, cut: int | None = None, name: str = "image.png") -> Make:
    file = BytesIO()
    made.save(file, "PNG")
    return of_bytes(file.getvalue()[:cut], name)


def arrays(**values: Any) -> Make:
    return written("sidecar.npz", lambda path: np.savez(path, **values))


def array(values: Any, name: str = "array.npy") -> Make:
    return written(name, lambda path: np.save(path, values))


def sound(samples: Any, name: str = "sound.wav") -> Make:
    samples = np.asarray(samples, np.float32)
    return written(name, lambda path: soundfile.write(path, samples, 100, subtype="FLOAT"))


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
