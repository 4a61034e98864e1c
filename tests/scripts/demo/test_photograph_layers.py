"""References and subjects as layers of the demo's canvas in a browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_browser import (
    MARKS,
    design,
    drag,
    dropped,
    fill_settings,
    generate,
    imported,
    opened,
    painting,
    pairs,
    pixels,
    screenshot,
    set_quota,
    tool,
)
from PIL import Image
from tiny import drawn_sketch, subject_adapter, tiny_studio

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.datasets.readers.inline_images import as_text, from_text
from weftwork.pipelines.designs.identity import content_digest
from weftwork.pipelines.designs.reader import as_design

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS

DESIGN = "document.querySelector('#design .canvas-page').design()"


def saved(page: Any, path: Path) -> None:
    with page.expect_download() as download:
        page.locator("#viewer [data-view=png]").click()
    download.value.save_as(path)


def references(page: Any, test: str) -> list[dict[str, Any]]:
    """Returns the references of the design once they fit."""
    page.wait_for_function(f"(({{reference = []}}) => {test})({DESIGN}.conditions)")
    return design(page)["conditions"].get("reference", [])


def test_a_reference_is_placed_generated_with_and_found_again_in_the_image(page: Any, tmp_path: Path) -> None:
    imported(page, tmp_path, "Reference")
    (first,) = references(page, "reference.length")
    image = np.asarray(from_text(first["image"]), int)
    assert image.shape == (512, 512, 3) and first["region"] == [0.25, 0.25, 0.75, 0.75]
    assert (image[:, 240, 0] > image[:, 240, 2]).all() and (image[:, 270, 0] < image[:, 270, 2]).all()
    drag(page, (0.5, 0.5), (0.6, 0.4))
    (moved,) = references(page, "reference[0].region[0] > 0.3")
    assert moved == {**first, "region": pytest.approx([0.35, 0.15, 0.85, 0.65], abs=0.01)}
    page.get_by_label("Weight").locator("visible=true").fill("1.5")
    page.get_by_label("ends").locator("visible=true").fill("0.8")
    fill_settings(page, 3, steps=4)
    made = pixels(page, generate(page))
    screenshot(page, "reference")
    sent = references(page, "true")
    assert sent == [{**moved, "weight": 1.5, "end": 0.8}]
    saved(page, tmp_path / "made.png")
    page.get_by_label("Delete layer").locator("visible=true").click()
    assert references(page, "!reference.length") == []
    plain = np.frombuffer(pixels(page, generate(page)), np.uint8).reshape(128, 128, 3)
    changed = np.abs(np.frombuffer(made, np.uint8).reshape(128, 128, 3).astype(int) - plain).mean(-1)
    rows, columns = slice(19, 83), slice(45, 109)
    assert changed[rows, columns].mean() > 2 * np.delete(changed, np.r_[rows], 0).mean() > 0
    dropped(page, tmp_path / "made.png")
    assert references(page, "reference.length") == sent
    assert page.locator("#design .thumb:visible").count() == 1
    assert pixels(page, generate(page)) == made


def test_the_references_of_a_design_open_as_layers(page: Any, tmp_path: Path) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 40, 40))
    shown = [{"image": as_text(painting((64, 48))), "weight": weight} for weight in (0.5, 1.0, 1.25)]
    shown[0] |= {"region": [0.1, 0.2, 0.5, 0.9], "start": 0.2, "end": 0.7}
    shown[1] |= {"region": as_text(mask), "cfg": "cond_only"}
    conditions = {"paired": [{"sketch": as_text(drawn_sketch()), "text": "a jacket"}], "reference": shown}
    record = {"prompt": "a person", "conditions": conditions}
    (tmp_path / "given.json").write_text(json.dumps(record))
    dropped(page, tmp_path / "given.json")
    page.locator("#design .thumb:visible").nth(2).wait_for()

    def digests(record: dict[str, Any]) -> dict[str, str]:
        return {name: content_digest(some) for name, some in as_design(record, from_text).conditions.items()}

    assert digests(design(page)) == digests(record)
    page.reload()
    page.locator("#design .thumb:visible").nth(2).wait_for()
    assert digests(design(page)) == digests(record)
    page.get_by_label("Hide layer").last.click()
    assert len(references(page, "reference.length == 2")) == 2


def test_many_photographs_outlive_a_reload_and_a_full_storage_is_reported(
    browser: Any, address: str, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 512, 512, 3), np.uint8)
    shown = [{"image": as_text(Image.fromarray(one))} for one in noise]
    (tmp_path / "many.json").write_text(json.dumps({"prompt": "a person", "conditions": {"reference": shown}}))
    with opened(browser, address, quota=3_000_000) as page:
        notes = page.locator("#design .notes")
        dropped(page, tmp_path / "many.json")
        sync_api.expect(notes).to_have_text(re.compile("storage is full or blocked: a reload loses the last changes"))
        set_quota(page, address)
        page.get_by_label("Weight").locator("visible=true").fill("0.7")
        sync_api.expect(notes).to_have_text("")
        page.reload()
        page.locator("#design .thumb:visible").nth(7).wait_for()
        kept = references(page, "true")
    assert [one["image"] for one in kept] == [one["image"] for one in shown] and kept[0]["weight"] == 0.7


def test_tools_act_on_the_region_of_a_reference_and_draw_beside_it(page: Any, tmp_path: Path) -> None:
    imported(page, tmp_path, "Reference")
    references(page, "reference.length")
    page.locator("#design .paper").focus()
    page.keyboard.press("Shift+ArrowRight")
    assert references(page, "reference[0].region[0] > 0.26")[0]["region"] == pytest.approx(
        [0.27, 0.25, 0.77, 0.75], abs=0.01
    )
    page.keyboard.press("Control+z")
    references(page, "reference[0].region[0] == 0.25")
    page.get_by_label("Duplicate").locator("visible=true").click()
    first, second = references(page, "reference.length == 2")
    moved = np.array(first["region"]) + 16 / 512
    assert second == {**first, "region": pytest.approx(moved, abs=1e-3)}
    page.locator("#design [data-do=undo]").click()
    tool(page, "erase")
    drag(page, (0.3, 0.3), (0.6, 0.3))
    assert pairs(page) == []
    tool(page, "draw")
    drag(page, (0.3, 0.6), (0.6, 0.6))
    assert [one["region"] for one in pairs(page)] == ["sketch"]
    assert page.locator("#design .layer").count() == 2
    assert references(page, "true")[0]["region"] == [0.25, 0.25, 0.75, 0.75]
    page.locator("#design .thumb:visible").click()
    tool(page, "region")
    drag(page, (0.2, 0.3), (0.8, 0.3))
    tool(page, "move")
    drag(page, (0.5, 0.2), (0.5, 0.4))  # beside the strokes: the reference with its region
    mask = np.asarray(from_text(references(page, "true")[0]["region"]).convert("L")) > 127
    assert mask[256, 120:390].all() and not mask[154].any()
    page.get_by_role("button", name="All", exact=True).locator("visible=true").click()
    assert "region" not in references(page, "!reference[0].region")[0]


def test_a_copy_of_a_reference_that_acts_everywhere_is_seen_and_keys_act_on(page: Any, tmp_path: Path) -> None:
    imported(page, tmp_path, "Reference")
    references(page, "reference.length")
    page.get_by_role("button", name="All", exact=True).locator("visible=true").click()
    page.get_by_label("Duplicate").locator("visible=true").click()
    first, second = references(page, "reference.length == 2")
    assert "region" not in first and second == {**first, "region": [0.25, 0.25, 0.75, 0.75]}
    page.keyboard.press("Control+z")  # with the focus where it is after the click, as below
    references(page, "reference.length == 1")
    page.locator("#design [data-do=redo]").click()
    references(page, "reference.length == 2")
    page.keyboard.press("Control+z")
    references(page, "reference.length == 1")
    page.get_by_label("Delete layer").locator("visible=true").click()
    references(page, "!reference.length")
    page.keyboard.press("Control+z")
    references(page, "reference.length == 1")


def test_images_that_cover_each_other_are_picked_in_turn_and_dragged(page: Any, tmp_path: Path) -> None:
    imported(page, tmp_path, "Reference")
    everywhere = page.get_by_role("button", name="All", exact=True).locator("visible=true")
    everywhere.click()
    page.get_by_label("Duplicate").locator("visible=true").click()
    everywhere.click()  # both cover the canvas now
    references(page, "reference.length == 2 && !reference[1].region")
    tool(page, "move")
    current, picked = page.locator("#design .layer[aria-current=true] .words"), []
    for _ in range(3):
        picked.append(current.get_attribute("aria-label"))
        page.locator("#design .paper").click()
    first, second, third = picked
    assert first == third != second == current.get_attribute("aria-label")
    drag(page, (0.5, 0.5), (0.7, 0.5))
    moved = references(page, "reference.some((one) => one.region)")
    assert ["region" in one for one in moved] == [name == second for name in sorted({str(first), str(second)})]
    page.locator("#design .paper").click()
    assert current.get_attribute("aria-label") == first


@pytest.fixture
def tiny_page(browser: Any, image_encoder: ImageEncoder, no_shipped_models: None) -> Iterator[Any]:
    """The demo on a small pipeline with an untrained adapter of subjects, which none is shipped of."""
    from weftwork.scripts.demo.command import demo
    from weftwork.scripts.demo.pages import Context, open_pages

    studio = tiny_studio()
    studio.pipe.attach(who=subject_adapter(studio.pipe.unet))
    studio.pipe.set_encoders(image=image_encoder)
    served = demo(studio, open_pages(Context(studio)))
    _, url, _ = served.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
    with opened(browser, url) as page:
        yield page
    served.close()


def test_a_subject_is_named_generated_with_and_found_again_in_the_image(tiny_page: Any, tmp_path: Path) -> None:
    page = tiny_page
    page.get_by_label("Prompt", exact=True).fill("a person wearing an outfit")
    imported(page, tmp_path, "Subject")
    page.get_by_label("Text of layer 2", exact=True).fill("outfit")
    assert page.get_by_role("button", name="Reference", exact=True).count() == 0
    tool(page, "box")
    drag(page, (0.2, 0.2), (0.8, 0.8))
    (subject,) = design(page)["conditions"]["who"]
    assert subject == {"image": subject["image"], "text": "outfit", "weight": 1}
    assert from_text(subject["image"]).size == (512, 341)
    fill_settings(page, 3, steps=2)
    made = pixels(page, generate(page))
    saved(page, tmp_path / "made.png")
    page.get_by_label("Delete layer").locator("visible=true").click()
    assert "who" not in design(page)["conditions"] and pixels(page, generate(page)) != made
    dropped(page, tmp_path / "made.png")
    sync_api.expect(page.get_by_label("Text of layer 1", exact=True)).to_have_value("outfit")
    assert design(page)["conditions"]["who"] == [subject] and pixels(page, generate(page)) == made
