"""Initial images on the demo's canvas in a browser: strength, a brushed part, files, a reload and the keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_browser import MARKS, drag, fill_settings, finished, generate, opened, pixels, screenshot, tool
from PIL import Image

from weftwork.datasets.readers.inline_images import from_text

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

SIDE = 128
DESIGN = "(document.querySelector('#design .canvas-page')?.design?.() ?? {})"


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page with an image that was made on it."""
    with opened(browser, address) as shown:
        shown.get_by_label("Text of layer 1").fill("a red jacket")
        fill_settings(shown, 3, steps=4)
        generate(shown)
        yield shown


def values(page: Any, address: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(pixels(page, address), np.uint8).reshape(SIDE, SIDE, 3)


def shown(page: Any) -> np.ndarray[Any, Any]:
    return values(page, page.evaluate("document.querySelector('#viewer .sheet > img').src"))


def begun(page: Any, test: str = "true") -> dict[str, Any]:
    """Returns the design once it has an initial image that fits."""
    page.wait_for_function(f"(({{image, mask_image, strength}}) => image && ({test}))({DESIGN})")
    return page.evaluate(DESIGN)


def test_a_brushed_part_of_a_result_is_drawn_anew(page: Any, tmp_path: Path) -> None:
    before = shown(page)
    page.get_by_role("button", name="Edit this image").click()
    assert begun(page)["strength"] == 0.8
    np.testing.assert_array_equal(np.asarray(from_text(begun(page)["image"])), before)
    tool(page, "mask")
    drag(page, (0.25, 0.5), (0.75, 0.5))
    mask = np.asarray(from_text(begun(page, "mask_image")["mask_image"]).convert("L")) >= 128
    rows, columns = (np.flatnonzero(mask.any(axis)) / SIDE for axis in (1, 0))
    np.testing.assert_allclose([rows[0], rows[-1], columns[0], columns[-1]], [0.45, 0.55, 0.2, 0.8], atol=0.03)
    page.get_by_label("Text of layer 1").fill("a blue jacket")
    page.get_by_label("Strength of the change").fill("1")
    made = values(page, generate(page))
    assert np.array_equal(made[~mask], before[~mask]) and (made != before)[mask].mean() > 0.5
    screenshot(page, "inpainting")
    sent = page.evaluate(DESIGN)
    with page.expect_download() as download:
        page.get_by_role("button", name="Image (PNG)").click()
    download.value.save_as(tmp_path / "made.png")
    page.get_by_label("Remove the initial image").click()
    assert "image" not in page.evaluate(DESIGN)
    page.locator("#design input[type=file]").set_input_files(tmp_path / "made.png")
    again = begun(page, "mask_image")
    assert {key: again[key] for key in ("image", "mask_image", "strength")} == {
        key: sent[key] for key in ("image", "mask_image", "strength")
    }
    assert np.array_equal(values(page, generate(page)), made)
    finished(page, page.locator("#viewer [data-view=vary]").click)
    varied = shown(page)
    assert np.array_equal(varied[~mask], before[~mask]) and (varied != made)[mask].any()


def test_the_part_is_erased_and_undone(page: Any) -> None:
    page.get_by_role("button", name="Whole image").click()
    sync_api.expect(page.get_by_label("Initial image").locator("p")).to_have_text("All of it is drawn anew.")
    tool(page, "mask")
    drag(page, (0.2, 0.2), (0.8, 0.2))
    both = begun(page, "mask_image")["mask_image"]
    tool(page, "erase")
    page.get_by_label("Brush size").fill("80")
    drag(page, (0.1, 0.2), (0.9, 0.2))
    page.wait_for_function(f"!{DESIGN}.mask_image")
    page.keyboard.press("Control+z")
    assert begun(page, "mask_image")["mask_image"] == both
    page.locator("#design .paper").focus()
    page.keyboard.press("b")
    drag(page, (0.2, 0.7), (0.4, 0.7))  # on the layer again
    assert begun(page, "mask_image")["mask_image"] == both
    page.locator("[data-do=undo]").click()


def test_an_initial_image_outlives_a_reload(page: Any) -> None:
    before = begun(page, "mask_image")
    page.reload()
    assert begun(page, "mask_image") == before
    page.get_by_label("Remove the initial image").click()
    assert "strength" not in page.evaluate(DESIGN)


def test_a_photograph_is_cut_to_the_shape_of_the_image(page: Any, tmp_path: Path) -> None:
    photo = np.zeros((90, 180, 3), np.uint8)
    photo[..., 0], photo[..., 1] = np.linspace(0, 255, 180), np.linspace(0, 255, 90)[:, None]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    page.locator("#design input[type=file]").set_input_files(tmp_path / "photo.png")
    page.get_by_role("button", name="Initial image", exact=True).click()
    image = np.asarray(from_text(begun(page)["image"]))
    assert image.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(image[64, [1, 64, 126], 0], [65, 128, 190], atol=4)
    page.locator("summary", has_text="Settings").click()
    page.locator("#design [data-shape='3:4']").click()
    width, height = from_text(begun(page)["image"]).size
    assert (width, height) == tuple(page.evaluate(f"[{DESIGN}.width, {DESIGN}.height]"))
    page.get_by_label("Strength of the change").fill("0.5")
    generate(page)
    page.get_by_label("Remove the initial image").click()
