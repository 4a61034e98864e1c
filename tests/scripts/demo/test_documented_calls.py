"""Calls of the demo in its documentation, run by a client: one for each action."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_readme import ROOT, blocks
from tiny import drawn_sketch, paired_adapter, reference_adapter, style_adapter, tiny_pipe

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.datasets.readers.images import read_image
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.run import attach_untrained
from weftwork.scripts.demo.jobs import JobQueue

pytest.importorskip("gradio")
pytest.importorskip("av")
pytest.importorskip("matplotlib")

from weftwork.scripts.demo.audio import AudioPage, AudioStudio
from weftwork.scripts.demo.command import demo
from weftwork.scripts.demo.pages import Context, open_pages
from weftwork.scripts.demo.studio import ImageStudio
from weftwork.scripts.demo.views import ViewPage, ViewStudio

ADDRESS = "http://127.0.0.1:7860"
OPEN, *SNIPPETS = (
    re.sub(r'steps(=|": )\d+', r"steps\g<1>1", text) for _, text in blocks(ROOT / "docs" / "demo.md", "py")
)
ACTIONS = [re.findall(r'api_name="(/.+?)"', text)[0] for text in SNIPPETS]


@pytest.fixture(scope="module")
def names(
    queue: JobQueue, views: ViewStudio, sounds: AudioStudio, image_encoder: ImageEncoder, tmp_path_factory: Any
) -> Iterator[dict[str, Any]]:
    """The names of the first snippet, whose client calls a demo with all tabs."""
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=paired_adapter(pipe.unet), style=style_adapter(pipe.unet, styles=["ink", "neon"]))
    pipe.attach(reference=reference_adapter(pipe.unet))
    pipe.set_encoders(image=image_encoder)
    for name in ("attention_control", "regional"):
        attach_untrained(pipe, name)
    studio = ImageStudio(pipe, "tiny", queue)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("room"))
        drawn_sketch().save("house.png")
        patch.setattr("weftwork.scripts.demo.pages.available", list)
        served = demo(studio, [*open_pages(Context(studio)), ViewPage(views), AudioPage(sounds)])
        _, url, _ = served.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, show_error=True)
        found: dict[str, Any] = {}
        exec(OPEN.replace(ADDRESS, url), found)
        yield found
        found["client"].close()
        served.close()


def test_every_action_is_documented_and_needs_no_input(names: dict[str, Any]) -> None:
    endpoints = names["client"].view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert sorted(endpoints) == sorted(ACTIONS)
    inputs = [one for endpoint in endpoints.values() for one in endpoint["parameters"]]
    assert all(one["parameter_has_default"] and not one["parameter_name"].startswith("param_") for one in inputs)


@pytest.mark.parametrize("text", SNIPPETS, ids=ACTIONS)
def test_calls_give_what_the_page_says(names: dict[str, Any], text: str) -> None:
    made: dict[str, Any] = {}
    exec(text, dict(names), made)
    for name in made.keys() & {"image", "known", "depth"}:
        assert read_image(made[name]).size[0] >= 64
    for name, suffix in {"card": ".safetensors", "audio": ".wav"}.items():
        assert name not in made or Path(made[name]).suffix == suffix
    assert set(made) & {"image", "audio"}
    assert "images" not in made or len(made["images"]) == 2
    assert "ply" not in made or Path(made["ply"]["value"]).read_bytes().startswith(b"ply")
    assert "used" not in made or made["used"].keys() == {*names["design"], "seed"}
