"""The demo's canvas in a browser: layers, tools, files, undo, reload, a phone, dark colors and a keyboard."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_browser import MARKS, design, drag, fill_settings, generate, ink, opened, pairs, pixels, screenshot, tool
from PIL import Image

from weftwork.datasets.readers.inline_images import from_text
from weftwork.pipelines.designs.files import write_images
from weftwork.pipelines.designs.identity import content_digest
from weftwork.pipelines.designs.reader import as_design, read_design
from weftwork.pipelines.designs.run import stored

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

NARROW = {"width": 390, "height": 844}
OUTFIT = Path(__file__).resolve().parents[3] / "examples" / "outfit"


def words(page: Any, index: int) -> Any:
    return page.get_by_label(f"Text of layer {index + 1}", exact=True)


def dropped(page: Any, path: Path) -> None:
    page.locator("#design input[type=file]").set_input_files(path)


def test_layers_become_the_pairs_that_were_drawn(page: Any) -> None:
    drag(page, (0.3, 0.2), (0.7, 0.2), (0.7, 0.5), (0.3, 0.5), (0.3, 0.2))
    words(page, 0).fill("a red striped jacket")
    page.get_by_role("button", name="Add layer").click()
    drag(page, (0.4, 0.6), (0.6, 0.9))
    words(page, 1).fill("blue trousers")
    first, second = pairs(page)
    assert (first["text"], second["text"]) == ("a red striped jacket", "blue trousers")
    assert first["region"] == second["region"] == "sketch"
    np.testing.assert_allclose(ink(first), [0.3, 0.2, 0.7, 0.5], atol=0.02)
    np.testing.assert_allclose(ink(second), [0.4, 0.6, 0.6, 0.9], atol=0.02)
    sketch = from_text(first["sketch"])
    assert sketch.size == (512, 512) and sketch.getpixel((0, 0)) == (255, 255, 255)
    tool(page, "move")
    drag(page, (0.5, 0.75), (0.6, 0.65))
    np.testing.assert_allclose(ink(pairs(page)[1]), [0.5, 0.5, 0.7, 0.8], atol=0.02)
    assert pairs(page)[0] == first
    drag(page, (0.3, 0.3), (0.2, 0.3))  # the strokes under the pointer, of the other layer
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.2, 0.2, 0.6, 0.5], atol=0.02)
    screenshot(page, "canvas")


def test_a_box_is_dragged_and_moves_with_its_layer(page: Any) -> None:
    words(page, 0).fill("a red jacket")
    tool(page, "box")
    drag(page, (0.25, 0.1), (0.75, 0.6))
    (pair,) = pairs(page)
    assert pair == {"text": "a red jacket", "weight": 1, "region": pytest.approx([0.25, 0.1, 0.75, 0.6], abs=0.01)}
    drag(page, (0.5, 0.3), (0.6, 0.5))  # inside of it
    assert pairs(page)[0]["region"] == pytest.approx([0.35, 0.3, 0.85, 0.8], abs=0.01)
    page.get_by_role("button", name="All", exact=True).click()
    assert "region" not in pairs(page)[0]
    page.locator("[data-do=undo]").click()
    assert pairs(page)[0]["region"] == pytest.approx([0.35, 0.3, 0.85, 0.8], abs=0.01)
    tool(page, "draw")
    drag(page, (0.4, 0.4), (0.6, 0.6))
    tool(page, "move")
    drag(page, (0.5, 0.5), (0.4, 0.4))
    assert pairs(page)[0]["region"] == pytest.approx([0.25, 0.2, 0.75, 0.7], abs=0.02)


def test_strokes_are_erased_and_undone(page: Any) -> None:
    drag(page, (0.2, 0.3), (0.8, 0.3))
    drag(page, (0.2, 0.7), (0.8, 0.7))
    both = pairs(page)
    tool(page, "erase")
    page.get_by_label("Brush size").fill("40")
    drag(page, (0.1, 0.7), (0.9, 0.7))
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.2, 0.3, 0.8, 0.3], atol=0.02)
    page.keyboard.press("Control+z")
    assert pairs(page) == both
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert pairs(page) == [] and page.locator("[data-do=undo]").is_disabled()
    for _ in range(3):
        page.keyboard.press("Control+Shift+z")
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.2, 0.3, 0.8, 0.3], atol=0.02)


def test_layers_are_hidden_copied_ordered_and_deleted(page: Any) -> None:
    words(page, 0).fill("first")
    page.get_by_label("Weight").first.fill("0.5")
    page.get_by_label("ends").first.fill("0.6")
    page.get_by_label("Duplicate").locator("visible=true").click()
    words(page, 1).fill("second")
    page.get_by_label("Move up").locator("visible=true").click()
    assert pairs(page) == [{"text": text, "weight": 0.5, "end": 0.6} for text in ("second", "first")]
    page.get_by_label("Hide layer").first.click()
    assert [one["text"] for one in pairs(page)] == ["first"]
    page.get_by_label("Show layer").click()
    page.get_by_label("Delete layer").locator("visible=true").click()
    assert [one["text"] for one in pairs(page)] == ["first"]


def test_a_page_that_was_left_and_goes_on_keeps_its_last_change(page: Any) -> None:
    kept = "Object.keys(localStorage).some(one => one.startsWith('weftwork'))"
    words(page, 0).fill("first")
    page.evaluate("dispatchEvent(new Event('pagehide'))")  # as before the page comes back from the browser's cache
    assert page.evaluate(kept)
    words(page, 0).fill("second")
    page.wait_for_function(f"!{kept}")
    page.reload()
    sync_api.expect(words(page, 0)).to_have_value("second")


def test_a_design_comes_back_from_an_image_and_after_a_reload(page: Any, tmp_path: Path) -> None:
    page.get_by_role("button", name="Example: three garments").click()
    sync_api.expect(words(page, 2)).to_have_value("black pinstriped boots")
    fill_settings(page, 7)
    page.get_by_label("Show attention maps").check()
    before = pixels(page, generate(page))
    screenshot(page, "outfit")
    assert page.get_by_label("Attention maps").get_by_role("button").count() == 3
    made = design(page)
    assert made["seed"] == 7 and [one["region"] for one in made["conditions"]["paired"]] == ["sketch"] * 3
    for name, button in (("made.png", "Image (PNG)"), ("design.json", "Design (JSON)")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / name)
    page.reload()
    page.locator("#design .layer").nth(2).wait_for()
    assert design(page) == made
    page.get_by_label("Delete layer").locator("visible=true").click()
    assert design(page) != made
    dropped(page, tmp_path / "made.png")
    page.get_by_text("Opened made.png.").wait_for()
    assert {key: value for key, value in design(page).items() if value is not None} == {**made, "guidance_scale": 3}
    assert pixels(page, generate(page)) == before
    command = [sys.executable, "-m", "weftwork.scripts.cli", "generate", str(tmp_path / "design.json")]
    subprocess.run([*command, "--output", str(tmp_path / "again.png")], check=True, capture_output=True)
    assert Image.open(tmp_path / "again.png").convert("RGB").tobytes() == before


def test_the_design_of_a_file_with_paths_opens_from_its_image(page: Any, tmp_path: Path) -> None:
    made = read_design(OUTFIT / "styled.json")
    write_images({tmp_path / "made.png": (Image.new("RGB", (8, 8)), stored(made))})
    dropped(page, tmp_path / "made.png")
    page.get_by_text("Opened made.png.").wait_for()
    opened = as_design(design(page), from_text).conditions
    assert {name: content_digest(some) for name, some in opened.items()} == {
        name: content_digest(some) for name, some in made.conditions.items()
    }


def test_files_that_cannot_be_opened_are_reported(page: Any, tmp_path: Path) -> None:
    notes = page.locator("#design .notes")
    (tmp_path / "bad.png").write_bytes(b"this is no image")
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "none.json").write_text("[1]")
    pair = {"sketch": "jacket.png", "text": "a"}
    (tmp_path / "path.json").write_text(json.dumps({"prompt": "a", "conditions": {"paired": [pair]}}))
    for name, text in (
        ("bad.png", "Sketch: got a file that is not an image"),
        ("bad.json", "Design: got a file that is not JSON"),
        ("none.json", "Design: got a file that holds none"),
        ("path.json", "Design: got the path jacket.png, which a page cannot read"),
    ):
        dropped(page, tmp_path / name)
        sync_api.expect(notes).to_contain_text(text)
    assert pairs(page) == []


def test_an_image_becomes_a_sketch(page: Any, tmp_path: Path) -> None:
    sketch = np.full((100, 200), 255, np.uint8)
    sketch[20:80, 50:150] = 0
    Image.fromarray(sketch).save(tmp_path / "sketch.png")
    Image.fromarray(255 - sketch).save(tmp_path / "light.png")
    for name in ("sketch.png", "light.png"):
        dropped(page, tmp_path / name)
        sync_api.expect(page.get_by_role("button", name="Sketch", exact=True)).to_be_focused()
        page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#design .canvas-page').design().conditions.paired?.length == 2")
    for pair in pairs(page):
        np.testing.assert_allclose(ink(pair), [0.25, 0.35, 0.75, 0.65], atol=0.02)
    dropped(page, tmp_path / "sketch.png")
    page.get_by_role("button", name="Reference", exact=True).click()
    page.wait_for_function("document.querySelector('#design .canvas-page').design().conditions.reference?.length == 1")
    middle = np.asarray(from_text(design(page)["conditions"]["reference"][0]["image"]).convert("L"))
    assert middle.shape == (512, 512) and not middle[256, 8:-8].any() and (middle[64] == 255).all()


def test_words_are_suggested_and_unknown_ones_are_marked(page: Any) -> None:
    words(page, 0).press_sequentially("a red str")
    page.locator(".hints button", has_text="striped").wait_for()
    words(page, 0).press("Tab")
    sync_api.expect(words(page, 0)).to_have_value("a red striped ")
    words(page, 0).press_sequentially("kimono jacket")
    sync_api.expect(page.locator(".unknown").first).to_have_text("Unknown to this model: kimono")


def test_a_mixture_of_styles_is_in_the_design(page: Any) -> None:
    page.get_by_text("Style", exact=True).last.click()
    page.get_by_role("slider", name="ink", exact=True).fill("0.5")
    page.get_by_role("slider", name="pastel").fill("1")
    expected = [{"style": {"ink": 0.5, "pastel": 1}, "weight": 1, "start": 0, "end": 1}]
    assert design(page)["conditions"] == {"style": expected}


def test_width_and_height_share_a_line(page: Any) -> None:
    page.locator("#design .settings summary").click()
    width, height = (page.locator(f"#design [data-setting={name}]").bounding_box() for name in ("width", "height"))
    assert width["y"] == height["y"] and width["x"] < height["x"]


def test_the_canvas_works_with_a_keyboard(page: Any, tmp_path: Path) -> None:
    sketch = np.full((100, 100), 255, np.uint8)
    sketch[40:60, 40:60] = 0
    Image.fromarray(sketch).save(tmp_path / "sketch.png")
    dropped(page, tmp_path / "sketch.png")
    page.get_by_role("group", name="Use of the image").wait_for()
    page.keyboard.press("Enter")  # sketch
    page.wait_for_function("document.querySelector('#design .canvas-page').design().conditions.paired?.length == 1")
    page.locator("#design .paper").focus()
    page.keyboard.press("v")
    for _ in range(5):
        page.keyboard.press("Shift+ArrowRight")
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.5, 0.4, 0.7, 0.6], atol=0.01)
    for _ in range(14):
        page.keyboard.press("+")
    np.testing.assert_allclose(ink(pairs(page)[0]), [0.4, 0.3, 0.8, 0.7], atol=0.02)
    page.keyboard.press("Control+z")
    page.keyboard.press("Delete")
    assert pairs(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_holds_the_page(browser: Any, address: str, scheme: str) -> None:
    options = {"viewport": NARROW, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with opened(browser, address, **options) as page:
        page.get_by_role("button", name="Example: three garments").click()
        sync_api.expect(words(page, 2)).to_have_value("black pinstriped boots")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        button = page.locator(".tabitem:visible button.generate").bounding_box()
        assert button["y"] + button["height"] <= NARROW["height"] and button["width"] >= 150
        drag(page, (0.1, 0.1), (0.9, 0.1))
        assert ink(pairs(page)[0])[1] == pytest.approx(0.1, abs=0.02)
        shown = Image.open(io.BytesIO(page.locator("#design .side").screenshot())).convert("L")
        assert (np.median(np.asarray(shown)) < 128) == (scheme == "dark")
        screenshot(page, f"narrow-{scheme}")
