"""The demo on the default model, as it opens without options: examples and designers of drawings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_browser import (
    MARKS,
    PHONE,
    check_gallery,
    design,
    dropped,
    fill_settings,
    generate,
    opened,
    pairs,
    pixels,
    screenshot,
)

from weftwork.pretrained import DEFAULT_MODEL

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

SAMPLE = """async () => {
    const image = new Image()
    image.src = getComputedStyle(document.querySelector("#design .designers i")).backgroundImage.slice(5, -2)
    await image.decode()
    return [image.naturalWidth, image.naturalHeight]
}"""
"""Size of the image of the designers' samples, as the page loads it."""


@pytest.fixture
def page(browser: Any, default_address: str) -> Iterator[Any]:
    with opened(browser, default_address) as shown:
        yield shown


def choose(page: Any, designer: str) -> str:
    """Chooses a designer and returns the prompt."""
    page.get_by_role("button", name=designer, exact=True).click()
    return design(page)["prompt"]


def test_a_designer_is_written_into_the_prompt(page: Any) -> None:
    named = page.locator("#design .designers [aria-pressed=true]")
    assert named.all_inner_texts() == ["noto"]
    samples = page.locator("#design .designers i").evaluate_all("all => all.map(one => one.style.background)")
    assert len(set(samples)) == 9 and page.evaluate(SAMPLE) == [9 * 64, 64]
    assert choose(page, "twemoji") == "twemoji style, on a white background"
    assert choose(page, "old noto") == "old noto style, on a white background"
    assert named.all_inner_texts() == ["old noto"]
    assert choose(page, "old noto") == "on a white background"
    page.keyboard.press("Control+z")
    assert design(page)["prompt"] == "old noto style, on a white background"
    page.get_by_label("Prompt", exact=True).fill("two cats")
    assert named.count() == 0 and choose(page, "3d fluent") == "3d fluent style, two cats"
    page.get_by_label("Prompt", exact=True).fill("two cats, Flat Fluent style")
    assert named.all_inner_texts() == ["flat fluent"] and choose(page, "flat fluent") == "two cats"


def test_subjects_are_suggested_and_unknown_words_are_named(page: Any) -> None:
    field, hints = page.get_by_label("Text of layer 1"), page.locator("#design .layer[aria-current=true] .hints button")
    field.press_sequentially("a dark red c")
    assert hints.count() == 0
    field.press_sequentially("a")
    assert hints.first.inner_text() == "cat" and hints.count() == 6
    field.press_sequentially("mer")
    assert hints.all_inner_texts() == ["camera"]
    field.press("Tab")
    sync_api.expect(field).to_have_value("a dark red camera ")
    field.fill("a big fire en")
    assert hints.all_inner_texts() == ["fire engine"]
    field.fill("a big cat")
    field.press("Tab")
    sync_api.expect(hints.first).to_be_focused()  # the text is complete: Tab goes on
    assert hints.first.inner_text() == "cat face"
    page.keyboard.press("Enter")
    sync_api.expect(field).to_have_value("a big cat face ")
    sync_api.expect(field).to_be_focused()
    field.fill("a lamborghini with a red roof")
    sync_api.expect(page.locator("#design .unknown").first).to_have_text("Unknown to this model: lamborghini")
    field.press("Space")
    sync_api.expect(page.locator("#design .unknown").first).to_have_text("Unknown to this model: lamborghini, roof")


def test_an_example_is_opened_and_generated(page: Any) -> None:
    sync_api.expect(page.get_by_role("tab").first).to_have_text("Draw")
    page.get_by_role("button", name="Example: four things").click()
    page.wait_for_function("document.querySelectorAll('#design .layer').length == 4")
    assert [one["text"] for one in pairs(page)] == ["a red house", "a green tree", "a blue car", "an orange cat"]
    fill_settings(page, 0, steps=20)
    made = pixels(page, generate(page))
    screenshot(page, "drawings")
    assert len(set(made)) > 64, "the image has colours"


def test_the_first_step_is_seen_on_a_phone(browser: Any, default_address: str) -> None:
    with opened(browser, default_address, **PHONE) as page:
        screenshot(page, "drawings-phone")
        end = page.locator(".generate:visible").bounding_box()["y"]
        for one in (page.locator("#design .paper"), page.get_by_role("button", name="Example: four things")):
            box = one.bounding_box()
            assert box["y"] + box["height"] <= end
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]


def test_a_design_of_another_model_is_refused_with_the_command_for_it(page: Any, tmp_path: Path) -> None:
    page.get_by_role("button", name="Example: four things").click()
    page.wait_for_function("document.querySelectorAll('#design .layer').length == 4")
    before = design(page)
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"prompt": "a person wearing an outfit", "model": "tiny-diffusion"}))
    page.locator("#design input[type=file]").set_input_files(given)
    sync_api.expect(page.locator("#design .notes")).to_contain_text("weftwork demo --model tiny-diffusion")
    assert design(page) == before
    given.write_text(json.dumps({**before, "model": "tiny-drawings"}))
    dropped(page, given)
    assert design(page) == before


def test_drawings_of_the_gallery_open_with_their_layers(page: Any) -> None:
    check_gallery(page, DEFAULT_MODEL)
