"""The demo's page for a training run in a browser."""

from typing import Any

import pytest
from demo_browser import MARKS, open_tab, screenshot
from PIL import Image

from weftwork.scripts.training_runs import TrainingRun

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = MARKS


def test_the_progress_of_a_run_is_followed(page: Any, training_run: TrainingRun) -> None:
    open_tab(page, "Training")
    tab = page.locator(".tabitem:visible")
    sync_api.expect(tab).to_contain_text("<mine>: step 30 of 50, about 2 minutes left")
    images, curves = tab.locator("#training-images img"), tab.locator("#curves img").nth(1)
    sync_api.expect(images).to_have_count(3)
    before = curves.get_attribute("src")
    with (training_run.folder / "metrics.jsonl").open("a") as rows:
        rows.write('ss": 1}\n{"step": 32, "loss": 0.5, "seconds": 6.0}\n')
    Image.new("RGB", (8, 8), "blue").save(training_run.folder / "validation/000030-0.png")
    sync_api.expect(tab).to_contain_text("step 32 of 50", timeout=15_000)
    sync_api.expect(images).to_have_count(1)
    sync_api.expect(curves).not_to_have_attribute("src", before)
    screenshot(page, "training")
    page.get_by_label("Validation of step").click()
    page.get_by_role("option", name="0", exact=True).click()
    sync_api.expect(images).to_have_count(2)
