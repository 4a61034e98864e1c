"""The results of the demo's canvas page in a browser: batches, seeds, variations, comparison, history."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_browser import MARKS, drag, fill_settings, finished, generate, opened, pixels, screenshot

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

IMAGES = (
    "[...document.querySelectorAll('#viewer .sheet > img:not(.map)')].filter(one => !one.hidden).map(one => one.src)"
)


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page after a run of four images with seeds 3 to 6."""
    with opened(browser, address) as shown:
        fill_settings(shown, 3, steps=2)
        shown.get_by_label("Text of layer 1").fill("a red jacket")
        shown.locator("#count").get_by_label("4").check()
        generate(shown)
        yield shown


def button(page: Any, name: str) -> Any:
    return page.locator("#viewer").get_by_role("button", name=name)


def chosen(page: Any, seed: int) -> bytes:
    """Shows an image of the last run, and returns its pixels."""
    button(page, f"seed {seed}").click()
    return pixels(page, page.evaluate(IMAGES)[0])


def test_a_run_makes_several_images_with_seeds_that_count_on(
    page: Any, browser: Any, address: str, tmp_path: Path
) -> None:
    several = [chosen(page, seed) for seed in (3, 4, 5, 6)]
    assert len(set(several)) == 4
    assert page.get_by_label("Images made before").get_by_role("button").count() == 4
    screenshot(page, "results")
    button(page, "seed 4").click()
    with page.expect_download() as download:
        button(page, "Design (JSON)").click()
    download.value.save_as(tmp_path / "design.json")
    with opened(browser, address) as other:
        other.locator("#design input[type=file]").set_input_files(tmp_path / "design.json")
        other.get_by_text("Opened design.json.").wait_for()
        assert pixels(other, generate(other)) == several[1]


def test_a_seed_is_kept_until_it_is_released(page: Any) -> None:
    seed = page.locator("[data-setting=seed]")
    chosen(page, 5)
    button(page, "Keep seed").click()
    assert seed.input_value() == "5" and button(page, "Keep seed").get_attribute("aria-pressed") == "true"
    button(page, "Keep seed").click()
    assert seed.input_value() == ""


def test_two_images_are_compared_by_a_slider(page: Any) -> None:
    chosen(page, 3)
    button(page, "Compare").click()
    button(page, "seed 6").click()
    assert len(set(page.evaluate(IMAGES))) == 2
    sync_api.expect(page.locator("#viewer .caption")).to_have_text("seed 3 | seed 6")
    divide = page.get_by_label("Divide between")
    divide.fill("20")
    clip = "getComputedStyle(document.querySelector('#viewer .other')).clipPath"
    assert page.evaluate(clip) == "inset(0px 0px 0px 20%)"
    divide.press("ArrowRight")
    assert page.evaluate(clip) == "inset(0px 0px 0px 21%)"
    screenshot(page, "compare")
    button(page, "Compare").click()
    assert len(page.evaluate(IMAGES)) == 1


def test_variations_are_near_to_the_chosen_image(page: Any) -> None:
    base, far = chosen(page, 3), chosen(page, 6)
    button(page, "seed 3").click()
    page.get_by_label("Strength of variations").fill("0.05")
    finished(page, button(page, "Variations").click)
    assert page.get_by_label("Images of one run").get_by_role("button").count() == 4
    sync_api.expect(page.locator("#viewer .caption")).to_contain_text("seed 3 +")
    near = pixels(page, page.evaluate(IMAGES)[0])
    assert 0 < difference(near, base) < difference(far, base)
    assert "variations" not in page.evaluate("document.querySelector('#design .canvas-page').design()")


def difference(one: bytes, other: bytes) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def test_images_and_their_designs_outlive_a_reload(page: Any) -> None:
    strip = page.get_by_label("Images made before")
    count = strip.get_by_role("button").count()
    page.reload()
    strip.get_by_role("button").nth(count - 1).click()
    sync_api.expect(page.locator("#viewer .caption")).to_have_text("seed 3")
    page.get_by_label("Text of layer 1").fill("other words")
    button(page, "Open design").click()
    sync_api.expect(page.get_by_label("Text of layer 1")).to_have_value("a red jacket")


def test_maps_are_shown_beside_the_region_of_their_layer(page: Any) -> None:
    shown = "document.querySelector('#viewer .map').hidden ? '' : document.querySelector('#viewer .map').src"
    lines = """(() => {
      const given = document.querySelector('#viewer .given');
      const {data} = given.getContext('2d').getImageData(0, 0, given.width, given.height);
      return !given.hidden && [...data.keys()].filter(i => i % 4 === 3 && data[i]).map(i => (i >> 2) % given.width);
    })()"""
    page.locator("[data-tool=box]").first.click()
    drag(page, (0.25, 0.2), (0.75, 0.6))
    page.get_by_label("Show attention maps").check()
    page.locator("#count").get_by_label("2").check()
    generate(page)
    plain = page.evaluate(IMAGES)
    name = page.get_by_label("Attention maps").get_by_role("button", name="a red jacket")
    name.click()
    assert page.evaluate(shown) not in ("", plain[0])
    columns = page.evaluate(lines)
    assert min(columns) == pytest.approx(128, abs=4) and max(columns) == pytest.approx(384, abs=4)
    screenshot(page, "maps")
    first = page.evaluate(shown)
    page.get_by_label("Images of one run").get_by_role("button").first.click()
    assert page.evaluate(shown) == "" and page.evaluate(lines) is False
    name.click()
    assert page.evaluate(shown) not in ("", first)
