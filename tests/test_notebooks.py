"""The notebooks: they run with one step, and the site has a page of each."""

import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from weftwork.attention_processors import StyleAdapter
from weftwork.pretrained import available

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "examples").is_dir():
    pytest.skip("not in a checkout", allow_module_level=True)
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))
pytestmark = pytest.mark.skipif("outfits-style" not in available(), reason="the shipped models are not installed")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the examples, and one step for all runs."""
    shutil.copytree(ROOT / "examples/outfit", tmp_path / "examples/outfit")
    shutil.copytree(ROOT / "examples/finetuning", tmp_path / "examples/finetuning")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_pairs(room: Path) -> None:
    names = runpy.run_path(str(ROOT / "examples/notebooks/pairs.py"))
    inside, everywhere = names["maps"], names["maps_without_regions"]
    assert inside.shape == everywhere.shape == (3, names["image"].height, names["image"].width)
    assert (inside == 0).any() and (everywhere > 0).all()
    assert (np.asarray(names["image"]) != np.asarray(names["image_without_regions"])).any()


def test_style(room: Path) -> None:
    names = runpy.run_path(str(ROOT / "examples/notebooks/style.py"))
    adapter = StyleAdapter.from_pretrained(names["output"] / "final")
    assert "chalk" in adapter.config["styles"]
    plain, chalk = (np.stack([np.asarray(one) for one in names[kind]]) for kind in ("plain", "chalk"))
    assert plain.shape == chalk.shape and (plain != chalk).any()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_cells_and_a_page(path: Path) -> None:
    cells = re.findall(r"^# %%(.*)\n", path.read_text(), re.MULTILINE)
    assert cells[0] == " [markdown]" and set(cells) == {" [markdown]", ""}
    assert f"notebooks/{path.name}" in (ROOT / "docs" / "hooks.py").read_text()
