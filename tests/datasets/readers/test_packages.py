"""Remedies in errors of packages that are not installed and of counts."""

from collections.abc import Callable
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remedies import check, check_call

from weftwork.datasets.drawings.rendering import render
from weftwork.datasets.readers.errors import UserError, check_counts, check_installed
from weftwork.pipelines.audio.videos import Video
from weftwork.pipelines.views.turning import save_video

FRAMES = [np.zeros((16, 16, 3), np.uint8)] * 2
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="4" height="4"/></svg>'


@pytest.mark.parametrize(
    ("user", "package", "call"),
    [
        ("video", "av", lambda folder: save_video(folder / "a.mp4", FRAMES)),
        ("video", "av", lambda folder: Video.open(save_video(folder / "b.mp4", FRAMES))),
        ("drawings", "resvg_py", lambda _: render(SVG, 8)),
        ("demo", "gradio", lambda _: [check_installed("demo", "gradio")]),
        ("curve", "matplotlib", lambda _: [check_installed("curve", "matplotlib")]),
    ],
)
def test_the_package_to_install_has_the_module(
    user: str, package: str, call: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")

    def without(folder: Path) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("weftwork.datasets.readers.errors.find_spec", lambda name: None)
            return call(folder)

    check((f"{user}: needs {package}, which is not installed; pip install {package}$", without, call), tmp_path)
    assert distribution(package).read_text("RECORD")


def test_packages_are_named_in_order() -> None:
    with pytest.raises(UserError, match="it: needs no_such_package, "):
        check_installed("it", "numpy", "no_such_package")


def test_the_remedy_of_counts() -> None:
    words = "rounds: got 0, expected at least 1; raise it"
    check_call(lambda count: [check_counts(limit=1, rounds=count)], 0, words, 1)
