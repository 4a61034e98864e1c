"""Regions, photographs, settings and styles of the demo's canvas page in a browser."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_browser import MARKS, drag, generate, opened, screenshot
from PIL import Image, ImageDraw

from weftwork.datasets.readers.inline_images import from_text
from weftwork.datasets.readers.strokes import stroke_region

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

PAGE = "document.querySelector('#design .canvas-page')"
GROUND = "document.querySelector('#design .paper canvas')"
SQUARE = ((0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.3))


@pytest.fixture(scope="module")
def shared(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as shown:
        shown.get_by_text("Settings", exact=True).first.click()
        shown.get_by_text("Style", exact=True).last.click()
        yield shown


@pytest.fixture
def page(shared: Any, tmp_path: Path) -> Any:
    """The page of this module with an empty design."""
    (tmp_path / "empty.json").write_text(json.dumps({"prompt": "a person", "num_inference_steps": 2}))
    take(shared, tmp_path / "empty.json")
    shared.get_by_text("Opened empty.json.").wait_for()
    if (remove := shared.get_by_label("Remove the background")).is_visible():
        remove.click()
    shared.locator("[data-tool=draw]").first.click()
    return shared


def take(page: Any, path: Path) -> None:
    page.locator("#design input[type=file]").set_input_files(path)


def design(page: Any) -> dict[str, Any]:
    return page.evaluate(f"{PAGE}.design()")


def pairs(page: Any) -> list[dict[str, Any]]:
    return design(page)["conditions"].get("paired", [])


def painted(page: Any) -> Any:
    """Returns where the lowest canvas, of the background and of the region, is not empty."""
    data = page.evaluate(f"{GROUND}.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        return np.asarray(image.resize((64, 64)).getchannel("A")) > 12


def wait_for_paint(page: Any, *, empty: bool = False, rows: str = "height") -> None:
    """Waits until the lowest canvas is painted or, with `empty`, is not: it follows a frame after the click."""
    page.wait_for_function(f"""() => {{
      const {{width, height}} = {GROUND};
      const {{data}} = {GROUND}.getContext("2d").getImageData(0, 0, width, {rows});
      return data.some((one, i) => i % 4 === 3 && one) !== {str(empty).lower()};
    }}""")


def test_the_region_of_strokes_is_shown_as_it_acts(page: Any) -> None:
    drag(page, *SQUARE)
    wait_for_paint(page)
    area = stroke_region(from_text(pairs(page)[0]["sketch"]).convert("L"))
    expected = np.asarray(Image.fromarray(area).resize((64, 64))) > 0.5
    assert np.mean(painted(page) == expected) > 0.95
    screenshot(page, "region")
    page.get_by_role("button", name="All", exact=True).click()
    wait_for_paint(page, empty=True)


def test_a_region_is_brushed_and_erased(page: Any) -> None:
    page.get_by_label("Text of layer 1").fill("a red jacket")
    page.get_by_role("button", name="Brush", exact=True).click()
    page.get_by_label("Brush size").fill("60")
    drag(page, (0.2, 0.25), (0.8, 0.25))
    drag(page, (0.2, 0.75), (0.8, 0.75))
    mask = np.asarray(from_text(pairs(page)[0]["region"]).convert("L")) > 127
    assert mask.shape == (512, 512) and mask[128, 110:400].all() and mask[384, 110:400].all() and not mask[256].any()
    assert "sketch" not in pairs(page)[0]
    page.locator("[data-tool=erase]").first.click()
    drag(page, (0.1, 0.75), (0.9, 0.75))
    (pair,) = pairs(page)
    mask = np.asarray(from_text(pair["region"]).convert("L")) > 127
    assert mask[128, 110:400].all() and not mask[384].any()
    made = generate(page)
    assert made and pairs(page) == [pair]
    page.get_by_role("button", name="Open design").click()
    assert pairs(page) == [pair]
    page.locator("[data-tool=region]").first.click()
    drag(page, (0.5, 0.5), (0.5, 0.9))
    mask = np.asarray(from_text(pairs(page)[0]["region"]).convert("L")) > 127
    assert mask[128, 110:400].all() and mask[400, 256]


def photograph(path: Path) -> None:
    """Writes a disc that is lighter than its ground, both with a gradient."""
    tones = np.linspace(40, 140, 200)[:, None].repeat(200, 1)
    disc = Image.new("L", (200, 200))
    ImageDraw.Draw(disc).ellipse((50, 50, 150, 150), fill=80)
    Image.fromarray((tones + np.asarray(disc)).astype(np.uint8)).save(path)


def test_lines_are_taken_from_a_photograph(page: Any, tmp_path: Path) -> None:
    photograph(tmp_path / "disc.png")
    take(page, tmp_path / "disc.png")
    page.get_by_role("button", name="Lines").click()
    page.wait_for_function(f"{PAGE}.design().conditions.paired?.length == 1")
    ink = np.asarray(from_text(pairs(page)[0]["sketch"]).convert("L")) < 128
    rows, columns = np.nonzero(ink)
    radius = np.hypot(rows - 256, columns - 256)
    assert len(rows) > 500 and (abs(radius - 128) < 16).all()
    assert np.unique(np.degrees(np.arctan2(rows - 256, columns - 256)).round() // 10).size >= 36


def test_a_photograph_lies_below_the_layers_to_be_traced(page: Any, tmp_path: Path) -> None:
    photograph(tmp_path / "disc.png")
    take(page, tmp_path / "disc.png")
    page.get_by_role("button", name="Background to trace").click()
    wait_for_paint(page)
    drag(page, *SQUARE)
    assert painted(page).all()
    np.testing.assert_array_equal(np.unique(np.asarray(from_text(pairs(page)[0]["sketch"]))[:128]), [255])
    screenshot(page, "background")
    page.get_by_label("Remove the background").click()
    wait_for_paint(page, empty=True, rows="8")


def test_settings_are_in_the_design(page: Any) -> None:
    page.get_by_label("Sampler").select_option("dpm++")
    page.get_by_role("button", name="3:4").click()
    page.get_by_label("Negative prompt").fill("a hat")
    expected = {"sampler": "dpm++", "width": 112, "height": 144, "negative_prompt": "a hat"}
    assert expected.items() <= design(page).items()
    generate(page)
    size = (
        "(() => { const one = document.querySelector('#viewer img'); return [one.naturalWidth, one.naturalHeight]; })()"
    )
    page.wait_for_function(f"{size}[0] > 0")
    assert page.evaluate(size) == [112, 144]


def test_styles_are_chosen_from_their_samples(page: Any) -> None:
    page.get_by_role("button", name="Style ink").click()
    page.get_by_role("button", name="Style neon").click()
    page.get_by_role("slider", name="neon").fill("0.4")
    sync_api.expect(page.get_by_role("button", name="Style neon")).to_have_attribute("aria-pressed", "true")
    assert design(page)["conditions"]["style"][0]["style"] == {"ink": 1, "neon": 0.4}
    screenshot(page, "styles")
    page.get_by_role("button", name="Style ink").click()
    assert design(page)["conditions"]["style"][0]["style"] == {"neon": 0.4}
