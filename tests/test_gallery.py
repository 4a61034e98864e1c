"""The gallery: its designs open in the demo, its images are those of its designs, and its page shows and links all."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_studio

from weftwork.pipelines.designs.files import stored_in
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import stored
from weftwork.pretrained import DEFAULT_MODEL, available

DOCS = Path(__file__).resolve().parent.parent / "docs"
if not DOCS.is_dir():
    pytest.skip("not in a checkout", allow_module_level=True)
DESIGNS = sorted((DOCS / "gallery").glob("*.json"))
MAX_BYTES = 400_000


@pytest.mark.parametrize("path", DESIGNS, ids=lambda path: path.stem)
def test_an_image_is_that_of_its_design(path: Path) -> None:
    design = read_design(path)
    assert design.seed == 0
    assert stored_in(path.with_suffix(".png")) == json.loads(stored(design))


def test_the_demo_opens_the_designs() -> None:
    studio = tiny_studio()
    for path in DESIGNS:
        studio.model = json.loads(path.read_text())["model"]
        assert studio.design(json.loads(path.read_text())).record() == read_design(path).record()


def test_the_page_shows_each_image_with_a_link_to_its_design() -> None:
    shown = re.findall(
        r"\[!\[[^\]]{10,}\]\(gallery/([\w-]+)\.png\)\]\(gallery/([\w-]+)\.json\)", (DOCS / "gallery.md").read_text()
    )
    images = list((DOCS / "gallery").glob("*.png"))
    assert sorted(shown) == sorted((path.stem, path.stem) for path in DESIGNS)
    assert {image.stem for image in images} == {path.stem for path in DESIGNS}
    assert sum(image.stat().st_size for image in images) <= MAX_BYTES


@pytest.mark.slow
@pytest.mark.skipif(DEFAULT_MODEL not in available(), reason="the shipped models are not installed")
def test_the_shipped_models_draw_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = pytest.importorskip("weftwork.scripts.maintenance.gallery_images")
    shutil.copytree(DOCS / "gallery", tmp_path / "gallery", ignore=shutil.ignore_patterns("*.png"))
    monkeypatch.setattr("sys.argv", ["gallery_images", str(tmp_path / "gallery")])
    gallery.main()
    for path in DESIGNS:
        with (
            Image.open(path.with_suffix(".png")) as shown,
            Image.open(tmp_path / "gallery" / f"{path.stem}.png") as again,
        ):
            assert np.abs(np.asarray(again, float) - np.asarray(shown, float)).mean() < 1, path.stem
