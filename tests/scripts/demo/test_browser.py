"""The demo in a browser: strokes, texts, results, cancelling, bad files, two users.

It is served by `weftwork demo` itself, on the shipped models. `WEFTWORK_SCREENSHOTS` names a folder for screenshots.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from demo_browser import (
    IMAGE,
    MARKS,
    PHONE,
    STATE,
    WAIT,
    drag,
    fill_settings,
    generate,
    open_tab,
    opened,
    pixels,
    screenshot,
)

from weftwork.datasets.readers.inline_images import from_text
from weftwork.datasets.synthetic.walks.images import frames
from weftwork.datasets.synthetic.walks.scenes import Walk
from weftwork.pipelines.audio.videos import Video
from weftwork.pipelines.core.video_files import write_video
from weftwork.pretrained import available

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

CUT = """tab => [...tab.querySelectorAll("*")].filter(one => one.scrollWidth > one.clientWidth + 1
  && ["auto", "scroll", "hidden"].includes(getComputedStyle(one).overflowX)).map(one => one.className)"""
"""Elements of a tab that show a part of their width only."""
PANELS = (
    "Reference views",
    "Image",
    "Known; striped is generated",
    "Depth: white is near, black far",
    "The view as points, to turn:",
)
UNNAMED = """tab => [...tab.querySelectorAll(".block:has(img)")].filter(one => one.offsetParent
  && !one.querySelector("[data-testid=block-label]")?.innerText.trim()).length"""
"""Panels with images and without a label."""


def test_a_stroke_and_text_change_the_image(page: Any) -> None:
    fill_settings(page, 3)
    before = generate(page)
    drag(page, (0.3, 0.2), (0.7, 0.2), (0.7, 0.5), (0.3, 0.5), (0.3, 0.2))
    page.get_by_label("Text of layer 1").fill("a red striped jacket")
    after = generate(page)
    assert before != after
    assert page.locator(".tabitem:visible .seed textarea, .tabitem:visible .seed input").input_value() == "3"


def open_shipped(page: Any, name: str, model: str) -> None:
    if model not in available():
        pytest.skip(f"{model} is not shipped")
    open_tab(page, name)


def test_a_view_from_another_camera(page: Any) -> None:
    open_shipped(page, "View", "aligned-views")
    fill_settings(page, 0, steps=20)
    before = generate(page)
    page.get_by_label("number input for To the right (degrees)").fill("-20")
    assert generate(page) != before
    tab = page.locator(".tabitem:visible")
    for words in PANELS:
        assert tab.get_by_text(words, exact=True).is_visible()
    assert tab.evaluate(UNNAMED) == 0
    cloud = page.locator("#cloud canvas")
    page.wait_for_timeout(500)
    shown = "canvas => canvas.toDataURL()"
    front = cloud.evaluate(shown)
    for _ in range(4):
        cloud.press("ArrowRight")
    screenshot(page, "view")
    assert cloud.evaluate(shown) != front
    cloud.press("0")
    assert cloud.evaluate(shown) == front
    with page.expect_download() as download:
        page.get_by_role("button", name="Points (PLY)").click()
    assert download.value.suggested_filename.endswith(".ply")


def draw_path(page: Any, *points: tuple[float, float]) -> None:
    """Draws over the Sound page's canvas along points in fractions of it."""
    svg = page.locator("#path svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    for index, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if not index:
            page.mouse.down()
        page.wait_for_timeout(20)
    page.mouse.up()


def test_a_path_is_drawn_over_a_clip(page: Any, tmp_path: Path) -> None:
    open_shipped(page, "Sound", "spatial-audio")
    walk = Walk(np.array([[-1.0, 4.0], [1.0, 4.0]]), np.zeros(0), np.zeros(0), "snow", 1.0)
    clip = write_video(frames(walk, 64, 25.0), 25.0, tmp_path / "clip.mp4")
    below = page.locator("#path image")
    floor = below.get_attribute("href")
    page.get_by_text("Your own clip or track").click()
    page.locator("input[type=file][accept*=mp4]").set_input_files(clip)
    sync_api.expect(below).not_to_have_attribute("href", floor)
    _, first = next(Video.open(clip).frames(1.0))
    shown = np.asarray(from_text(below.get_attribute("href")).resize((64, 64)), float)
    assert np.abs(shown - first).mean() < 4, "the first image of the clip"
    draw_path(page, (0.8, 0.9), (0.5, 0.8), (0.2, 0.8))
    assert page.locator("#path polyline").get_attribute("points") == "0.8,0.9 0.5,0.8 0.2,0.8"
    sync_api.expect(below).not_to_have_attribute("href", floor)
    fill_settings(page, 0, steps=8)
    page.locator(".tabitem:visible button.generate").click()
    page.wait_for_function(f"({STATE}).includes('Done.')", timeout=WAIT)
    page.locator(".tabitem:visible video").wait_for()
    page.wait_for_function("Math.abs(document.querySelector('.result video').duration - 1) < 0.1")


def test_a_drawn_path_generates_audio(page: Any) -> None:
    open_shipped(page, "Sound", "spatial-audio")
    fill_settings(page, 0, steps=8)
    line = page.locator("#path polyline")
    ready = line.get_attribute("points")
    draw_path(page, (0.8, 0.9), *((0.8 - step / 20, 0.8) for step in range(12)))
    drawn = line.get_attribute("points")
    assert drawn.startswith("0.8,0.9") and drawn != ready
    page.get_by_role("button", name="Add a walker").click()
    page.get_by_text("Now draw the path of this walker.").wait_for()
    draw_path(page, (0.2, 0.7), (0.6, 0.7))
    assert line.first.get_attribute("points") == drawn and line.last.get_attribute("points").startswith("0.2,0.7")
    page.locator(".tabitem:visible button.generate").click()
    page.wait_for_function(f"({STATE}).includes('Done.')", timeout=WAIT)
    page.locator(".tabitem:visible video").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Sound (WAV)").click()
    sound, rate = soundfile.read(download.value.path())
    assert sound.shape[1] == 2 and len(sound) == 2 * rate and abs(sound).max() > 0.1, "it is heard"
    screenshot(page, "sound")


def test_clicking_a_sample_selects_its_style(page: Any) -> None:
    open_tab(page, "Style")
    page.locator("#styles-gallery button img").first.click()
    for name, share in (("blueprint", "1"), ("ink", "0")):
        slider = page.locator(".tabitem:visible").get_by_label(f"number input for {name}")
        sync_api.expect(slider).to_have_value(share)


def test_a_running_job_can_be_cancelled(page: Any) -> None:
    fill_settings(page, 1, steps=100)
    tab = page.locator(".tabitem:visible")
    tab.locator("button.generate").click()
    page.wait_for_function(f"({STATE}).includes(' of 100')", timeout=WAIT)
    tab.locator("button.cancel").click()
    tab.get_by_text("Cancelled.").wait_for()
    tab.get_by_label("Steps", exact=True).fill("2")
    generate(page)


def test_a_waiting_job_can_be_cancelled(browser: Any, address: str) -> None:
    with opened(browser, address) as first, opened(browser, address) as middle, opened(browser, address) as last:
        for page, steps in ((first, 100), (middle, 100), (last, 6)):  # the last waits for two long jobs
            fill_settings(page, 1, steps)
        for page in (first, middle, last):
            page.locator(".tabitem:visible button.generate").click()
            page.wait_for_function("document.body.innerText.match(/queue: [0-9]|of 100/)", timeout=WAIT)
        last.locator(".tabitem:visible button.cancel").click()
        last.get_by_text("Cancelled.").wait_for(timeout=WAIT)
        assert not last.evaluate(IMAGE)
        generate(last)


def test_two_users_see_their_own_images(browser: Any, address: str) -> None:
    with opened(browser, address) as first, opened(browser, address) as second:
        pages = (first, second)
        for seed, one in enumerate(pages):
            fill_settings(one, seed)
        for one in pages:
            one.locator(".tabitem:visible button.generate").click()
        seeds = []
        for one in pages:
            one.get_by_text("Done.").wait_for(timeout=WAIT)
            seeds.append(one.locator(".tabitem:visible .seed textarea, .tabitem:visible .seed input").input_value())
        pictures = [pixels(one, one.evaluate(IMAGE)) for one in pages]
    assert seeds == ["0", "1"]
    with opened(browser, address) as alone:
        fill_settings(alone, 1)
        assert pictures[0] != pictures[1] == pixels(alone, generate(alone))


@pytest.mark.parametrize("name", ["Style", "Training"])
def test_a_phone_shows_styles_and_curves_whole(browser: Any, address: str, name: str) -> None:
    with opened(browser, address, **PHONE) as page:
        open_tab(page, name)
        tab = page.locator(".tabitem:visible")
        shown = tab.locator("#styles-gallery img, #curves img")
        shown.nth(2).wait_for()
        boxes = [one.bounding_box() for one in shown.all()]
        assert min(box["height"] for box in boxes) >= (150 if name == "Training" else 80)
        assert max(box["x"] + box["width"] for box in boxes) <= 390
        assert not tab.evaluate(CUT)


def test_the_page_works_with_a_keyboard(page: Any) -> None:
    prompt = page.get_by_label("Prompt", exact=True).first
    fill_settings(page, 2, steps=2)
    prompt.focus()
    page.keyboard.press("Enter")
    page.locator(".tabitem:visible").get_by_text("Done.").wait_for(timeout=WAIT)
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel || ''").strip())
    assert {"Add layer", "Generate"} <= seen
