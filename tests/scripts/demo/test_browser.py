"""The demo in a browser: strokes, texts, results, cancelling, bad files, two users.

It is served by `weftwork demo` itself, on the shipped models. `WEFTWORK_SCREENSHOTS` names a folder for screenshots.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image

from weftwork.pretrained import available

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
serve = pytest.importorskip("weftwork.scripts.maintenance.check_demo_load", reason="not in the wheel").serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; Debian: apt install chromium"),
]
IMAGE = "[...document.querySelectorAll('.result img')].filter(e => e.offsetParent)[0]?.src ?? ''"
STATE = "[...document.querySelectorAll('.state')].filter(e => e.offsetParent)[0]?.innerText ?? ''"
WAIT = 90_000
"""Milliseconds for an image, on two cores."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, address = serve(2, tmp_path_factory.mktemp("demo"))
    try:
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as shown:
        yield shown


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
    shown = context.new_page()
    shown.goto(address)
    shown.wait_for_selector("#prompt textarea, #prompt input")
    shown.get_by_label("Brush Size").first.wait_for()  # the canvases are there
    yield shown
    context.close()


def seeded(page: Any, seed: int, steps: int = 6) -> None:
    """Sets seed and steps of the open tab."""
    tab = page.locator(".tabitem:visible")
    tab.get_by_role("button", name="Settings").click()
    tab.get_by_label("Seed (optional)").fill(str(seed))
    tab.get_by_label("number input for Steps").fill(str(steps))


def generate(page: Any) -> str:
    """Generates an image and returns its address."""
    before = page.evaluate(IMAGE)
    page.locator(".tabitem:visible button.generate").click()
    page.wait_for_function(f"before => ({IMAGE}) != before && ({STATE}).includes('Done.')", arg=before, timeout=WAIT)
    return page.evaluate(IMAGE)


def pressed(page: Any, button: str, effect: str) -> None:
    """Press until it acts: while a page still settles, a button moves away under the pointer."""
    for _ in range(3):
        page.locator(button).click()
        with suppress(sync_api.TimeoutError):
            page.wait_for_function(effect, timeout=WAIT / 3)
            return
    raise AssertionError(f"{button} did not act")


def stroke(page: Any, index: int = 0) -> None:
    """Draws a zigzag in the middle of a canvas."""
    box = page.locator(f"#sketch-{index} canvas").first.bounding_box()
    left, top, side = box["x"] + box["width"] / 2 - 60, box["y"] + box["height"] / 2 - 60, 120
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((1, 0), (1, 1), (0, 1), (0, 0), (1, 1)):
        page.mouse.move(left + x * side, top + y * side, steps=6)
    page.mouse.up()


def screenshot(page: Any, name: str) -> None:
    folder = os.environ.get("WEFTWORK_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_stroke_and_text_change_the_image(page: Any) -> None:
    seeded(page, 3)
    before = generate(page)
    stroke(page)
    page.locator("#words-0 textarea, #words-0 input").fill("a red striped jacket")
    page.locator("#composed img").wait_for()
    after = generate(page)
    assert before != after
    assert page.locator(".tabitem:visible .seed textarea, .tabitem:visible .seed input").input_value() == "3"


def test_the_design_of_an_example_reproduces_its_bits(page: Any, tmp_path: Path) -> None:
    pressed(page, "#example-three", "document.querySelector('#words-2 textarea, #words-2 input')?.value")
    page.wait_for_timeout(1500)
    seeded(page, 7)
    tab = page.locator(".tabitem:visible")
    tab.get_by_label("Show attention maps").check()
    generate(page)
    screenshot(page, "outfit")
    assert tab.locator(".grid-wrap img").count() == 3
    files = {}
    for name, button in (("picture.png", "Image (PNG)"), ("design.json", "Design (JSON)")):
        with page.expect_download() as download:
            tab.get_by_role("button", name=button).click()
        files[name] = tmp_path / name
        download.value.save_as(files[name])
    command = [sys.executable, "-m", "weftwork.scripts.cli", "generate", str(files["design.json"])]
    subprocess.run([*command, "--output", str(tmp_path / "again.png")], check=True, capture_output=True)
    with Image.open(files["picture.png"]) as one, Image.open(tmp_path / "again.png") as other:
        assert one.tobytes() == other.tobytes()
    assert json.loads(files["design.json"].read_text())["seed"] == 7


def opened_tab(page: Any, name: str, model: str) -> None:
    if model not in available():
        pytest.skip(f"{model} is not shipped")
    page.get_by_role("tab", name=name).click()


def test_a_view_from_another_camera(page: Any) -> None:
    opened_tab(page, "View", "aligned-views")
    seeded(page, 0, steps=20)
    before = generate(page)
    page.get_by_label("number input for To the right (degrees)").fill("-20")
    assert generate(page) != before
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


def test_a_drawn_path_generates_audio(page: Any) -> None:
    opened_tab(page, "Sound", "spatial-audio")
    seeded(page, 0, steps=8)
    line = page.locator("#path polyline")
    ready = line.get_attribute("points")
    box = page.locator("#path svg").bounding_box()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.9 * box["height"])
    page.mouse.down()
    for step in range(12):
        page.mouse.move(box["x"] + (0.8 - step / 20) * box["width"], box["y"] + 0.8 * box["height"])
        page.wait_for_timeout(20)
    page.mouse.up()
    drawn = line.get_attribute("points")
    assert drawn.startswith("0.8,0.9") and drawn != ready
    page.locator(".tabitem:visible button.generate").click()
    page.wait_for_function(f"({STATE}).includes('Done.')", timeout=WAIT)
    page.locator(".tabitem:visible video").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Sound (WAV)").click()
    sound, rate = soundfile.read(download.value.path())
    assert sound.shape[1] == 2 and len(sound) == 2 * rate
    screenshot(page, "sound")


def test_clicking_a_sample_selects_its_style(page: Any) -> None:
    page.get_by_role("tab", name="Style").click()
    page.locator("#styles-gallery button img").first.click()
    for name, share in (("blueprint", "1"), ("ink", "0")):
        slider = page.locator(".tabitem:visible").get_by_label(f"number input for {name}")
        sync_api.expect(slider).to_have_value(share)


def test_objects_are_added_moved_and_removed(page: Any) -> None:
    def words(index: int) -> Any:
        return page.locator(f"#words-{index} textarea, #words-{index} input")

    words(0).fill("first")
    words(1).fill("second")
    page.locator("#up-1").click()
    page.wait_for_function("document.querySelector('#words-0 textarea, #words-0 input').value == 'second'")
    assert words(1).input_value() == "first"
    page.locator("#add").click()
    words(2).wait_for()
    page.locator("#remove-0").click()
    page.wait_for_function("document.querySelector('#words-0 textarea, #words-0 input').value == 'first'")
    words(2).wait_for(state="hidden")


def test_a_running_job_can_be_cancelled(page: Any) -> None:
    seeded(page, 1, steps=100)
    tab = page.locator(".tabitem:visible")
    tab.locator("button.generate").click()
    page.wait_for_function(f"({STATE}).includes(' of 100')", timeout=WAIT)
    tab.locator("button.cancel").click()
    tab.get_by_text("Cancelled.").wait_for()
    tab.get_by_label("number input for Steps").fill("2")
    generate(page)


def test_a_waiting_job_can_be_cancelled(browser: Any, address: str) -> None:
    with opened(browser, address) as first, opened(browser, address) as middle, opened(browser, address) as last:
        for page, steps in ((first, 100), (middle, 100), (last, 6)):  # the last waits for two long jobs
            seeded(page, 1, steps)
        for page in (first, middle, last):
            page.locator(".tabitem:visible button.generate").click()
            page.wait_for_function("document.body.innerText.match(/queue: [0-9]|of 100/)", timeout=WAIT)
        last.locator(".tabitem:visible button.cancel").click()
        last.get_by_text("Cancelled.").wait_for(timeout=WAIT)
        assert not last.evaluate(IMAGE)
        generate(last)


def test_unreadable_files_are_reported_in_one_line(page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "white").save(tmp_path / "good.png")
    page.locator("#sketch-0 input[type=file]").set_input_files(tmp_path / "good.png")
    page.wait_for_timeout(1500)
    assert not page.get_by_text("got a file that is not an image").count()
    (tmp_path / "bad.png").write_bytes(b"this is no image")
    page.locator("#sketch-0 input[type=file]").set_input_files(tmp_path / "bad.png")
    page.get_by_text("Sketch: got a file that is not an image").first.wait_for(timeout=WAIT)
    assert "Traceback" not in page.content() and "preprocess" not in page.content()


def test_an_invalid_box_is_reported(page: Any) -> None:
    page.locator("#words-0 textarea, #words-0 input").fill("a red jacket")
    page.locator("#thing-0").get_by_label("Region", exact=True).click()
    page.get_by_role("option", name="in a box").click()
    page.locator("#thing-0").get_by_label("Box: left, top, right, bottom").fill("0.5, 0.1, 0.2, 0.9")
    page.locator(".tabitem:visible button.generate").click()
    page.get_by_text("region:").first.wait_for(timeout=WAIT)
    assert "Traceback" not in page.content()


def test_two_users_see_their_own_images(browser: Any, address: str) -> None:
    def picture(page: Any) -> bytes:
        return page.request.get(page.evaluate(IMAGE)).body()

    with opened(browser, address) as first, opened(browser, address) as second:
        pages = (first, second)
        for seed, one in enumerate(pages):
            seeded(one, seed)
        for one in pages:
            one.locator(".tabitem:visible button.generate").click()
        seeds = []
        for one in pages:
            one.get_by_text("Done.").wait_for(timeout=WAIT)
            seeds.append(one.locator(".tabitem:visible .seed textarea, .tabitem:visible .seed input").input_value())
        pictures = [picture(one) for one in pages]
    assert seeds == ["0", "1"]
    with opened(browser, address) as alone:
        seeded(alone, 1)
        generate(alone)
        assert pictures[0] != pictures[1] == picture(alone)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_holds_the_page(browser: Any, address: str, scheme: str) -> None:
    narrow = {"width": 390, "height": 844}
    with opened(browser, address, viewport=narrow, color_scheme=scheme) as page:
        page.wait_for_timeout(1000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        screenshot(page, f"narrow-{scheme}")


def test_the_page_works_with_a_keyboard(page: Any) -> None:
    prompt = page.locator("#prompt textarea, #prompt input")
    seeded(page, 2, steps=2)
    prompt.focus()
    page.keyboard.press("Enter")
    page.locator(".tabitem:visible").get_by_text("Done.").wait_for(timeout=WAIT)
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel || ''").strip())
    assert "Add an object" in seen or "Generate" in seen
