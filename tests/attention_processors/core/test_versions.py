"""The range of diffusers' versions."""

import logging
import tomllib
from pathlib import Path

import pytest
from tiny import tiny_unet

from weftwork.attention_processors.core import versions
from weftwork.attention_processors.core.processor import install


@pytest.mark.parametrize(
    ("version", "warns"), [("0.41.0", False), ("0.42.1", False), ("0.43.0.dev0", True), ("1.0", True)]
)
def test_other_versions_are_warned_about_once(
    version: str, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("diffusers.__version__", version)
    versions.warn_of_untested_diffusers.cache_clear()
    with caplog.at_level(logging.WARNING):
        install(tiny_unet())
        install(tiny_unet())
    text = f"diffusers {version} is untested, expected 0.41 to 0.42"
    assert [one.message.partition(";")[0] for one in caplog.records] == [text] * warns
    versions.warn_of_untested_diffusers.cache_clear()


def test_the_oldest_version_is_required() -> None:
    project = Path(versions.__file__).parents[2] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("not in a checkout")
    needed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert "diffusers>={}.{}".format(*versions.OLDEST) in needed
