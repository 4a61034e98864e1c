"""The demo's page for a training run: its curves and validation images, read again every few seconds."""

import html
from typing import Final

import gradio as gr
from gradio.context import Context

from weftwork.datasets.readers.images import read_image
from weftwork.scripts.demo.pages import Tab
from weftwork.scripts.demo.widgets import QUIET
from weftwork.scripts.report_images import drawn
from weftwork.scripts.training_runs import TrainingRun, plot_curves

SECONDS: Final = 5
"""Time between readings of the folder."""
LATEST: Final = "latest"


class TrainingPage(Tab):
    """The progress of one run.

    Args:
        run: the run, which may not have begun.
    """

    title = "Training"
    order = 90

    def __init__(self, run: TrainingRun) -> None:
        self.run = run

    def build(self) -> None:
        state, plots = gr.HTML(), gr.HTML(elem_id="curves")
        step = gr.Dropdown([LATEST], value=LATEST, label="Validation of step", elem_id="training-step")
        gr.Markdown("Rows from the top: sketches or references, true images, step 0, the chosen step.")
        images = gr.Gallery(columns=1, label="Validation images", height="auto", elem_id="training-images")
        shown = gr.State(("", 0))

        def refresh(chosen: str, before: tuple[str, int]) -> tuple[object, ...]:
            found, rows = self.run.images(), self.run.rows()
            names = [LATEST, *map(str, found)]
            place = max(found, default=0) if chosen == LATEST else int(chosen)
            head = f"<p>{html.escape(str(self.run.folder))}: {html.escape(self.run.state(rows))}</p>"
            now = f"{place} {sum(map(len, found.values()))}"
            plot = gr.skip() if len(rows) == before[1] else drawn(plot_curves(rows))
            menu = gr.skip() if now == before[0] else gr.Dropdown(names, value=chosen if chosen in names else LATEST)
            pictures = gr.skip() if now == before[0] else [read_image(path) for path in found.get(place, [])]
            return head, plot, menu, pictures, (now, len(rows))

        page = Context.root_block
        assert page is not None
        for event in (page.load, gr.Timer(SECONDS).tick, step.change):
            event(refresh, [step, shown], [state, plots, step, images, shown], **QUIET)
