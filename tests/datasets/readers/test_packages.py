"""What errors of packages that are not installed advise: a package of that name has the module."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remedies import check

from weftwork.datasets.drawings.rendering import render
from weftwork.datasets.readers.errors import UserError, check_installed
from weftwork.pipelines.audio.videos import Video
from weftwork.pipelines.views.turning import save_video

FRAMES = [np.zeros((16, 16, 3), np.uint8)] * 2
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="4" height="4"/></svg>'
LINE = "[[0.2, 0.9, 0], [0.8, 0.9, 1]]"


def audio(*values: Any) -> Any:
    pytest.importorskip("gradio")
    return import_module("weftwork.scripts.demo.audio").audio_request(*values)


@pytest.mark.parametrize(
    ("user", "package", "call"),
    [
        ("video", "av", lambda folder: save_video(folder / "a.mp4", FRAMES)),
        ("video", "av", lambda folder: Video.open(save_video(folder / "b.mp4", FRAMES))),
        ("drawings", "resvg_py", lambda _: render(SVG, 8)),
        ("Sound", "av", lambda _: audio(LINE, "wood", 1.0, None, None)),
        ("demo", "gradio", lambda _: [check_installed("demo", "gradio")]),
        ("curve", "matplotlib", lambda _: [check_installed("curve", "matplotlib")]),
    ],
)
def test_the_package_to_install_has_the_module(
    user: str, package: str, call: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)

    def without(folder: Path) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr("weftwork.datasets.readers.errors.find_spec", lambda name: None)
            return call(folder)

    check((f"{user}: needs {package}, which is not installed; pip install {package}$", without, call), tmp_path)
    assert distribution(package).read_text("RECORD")


def test_packages_are_named_in_order() -> None:
    with pytest.raises(UserError, match="it: needs no_such_package, "):
        check_installed("it", "numpy", "no_such_package")
