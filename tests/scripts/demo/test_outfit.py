"""The demo draws what `weftwork generate` draws, one picture at a time, and reads no file that a user names."""

import argparse
import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import drawn_sketch, style_adapter, tiny_pipe, tiny_studio

from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.inline_images import as_text
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw
from weftwork.scripts.demo.jobs import Step, Stopped
from weftwork.scripts.demo.studio import Made, Studio

gradio = pytest.importorskip("gradio")

ME = ("me", "outfit")
RECORD: dict[str, Any] = {"prompt": "a b", "seed": 5, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def studio() -> Studio:
    return tiny_studio()


def pair(**more: Any) -> dict[str, Any]:
    return {"sketch": as_text(drawn_sketch()), "text": "a thing", "region": "sketch", **more}


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGB"))


def test_a_picture_comes_after_its_steps_and_holds_its_design(studio: Studio) -> None:
    record = {**RECORD, "conditions": {"paired": [pair(), pair(text="another")], "style": [{"style": "ink"}]}}
    *steps, made = studio.draw(studio.design(record), maps=True)
    assert [step.done for step in steps if isinstance(step, Step)] == [1, 2, 3]
    assert isinstance(made, Made) and made.seed == 5
    assert [title for _, title in made.maps] == ["a thing", "another", "ink"]
    previews = [step.preview for step in steps if isinstance(step, Step) and step.preview]
    assert previews and previews[0].size == made.picture.size
    with Image.open(made.path) as stored:
        assert json.loads(stored.text["weftwork"])["seed"] == 5  # pyright: ignore[reportAttributeAccessIssue]


def test_a_design_in_a_file_gives_the_same_bits(studio: Studio, tmp_path: Path) -> None:
    record = {**RECORD, "conditions": {"paired": [pair()]}}
    *_, made = studio.draw(studio.design(record))
    (tmp_path / "design.json").write_text(json.dumps(record))
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=studio.pipe.adapters["paired"])
    (alone,) = draw(pipe, read_design(tmp_path / "design.json"), 1, None)
    assert isinstance(made, Made) and np.array_equal(pixels(made.picture), pixels(alone))
    drawn_sketch().save(tmp_path / "sketch.png")
    (tmp_path / "other.json").write_text(json.dumps({**RECORD, "conditions": {"paired": [pair(sketch="sketch.png")]}}))
    (beside,) = draw(pipe, read_design(tmp_path / "other.json"), 1, None)
    assert np.array_equal(pixels(alone), pixels(beside))


def test_previews_show_where_the_steps_lead(studio: Studio) -> None:
    """With a denoiser that always says the same, they show it from the second step on."""
    pipe, (height, width) = studio.pipe, (8, 8)
    clean = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(0))
    expected = pipe.image_processor.postprocess(
        pipe.vae.decode(clean / pipe.vae.config.scaling_factor).sample.detach(), output_type="pil"
    )[0]
    from diffusers import DDIMScheduler

    from weftwork.scripts.demo.studio import _Previews

    class Scheduled:
        scheduler = DDIMScheduler(clip_sample=False)
        vae, image_processor = pipe.vae, pipe.image_processor

    Scheduled.scheduler.set_timesteps(4)
    previews = _Previews(Scheduled())
    latents = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(1))
    for step, time in enumerate(Scheduled.scheduler.timesteps):
        share = Scheduled.scheduler.alphas_cumprod[time]
        noise = (latents - share.sqrt() * clean) / (1 - share).sqrt()
        latents = Scheduled.scheduler.step(noise, time, latents).prev_sample
        shown, previews._decoding = previews.after(step, latents), 0.0
        if step in (1, 2):
            assert shown is not None
            assert np.abs(pixels(shown).astype(int) - pixels(expected)).max() <= 1


def test_closing_stops_the_picture_and_lets_others_go_on(studio: Studio) -> None:
    design = studio.design({**RECORD, "num_inference_steps": 50})
    steps = studio.draw(design)
    next(steps)
    steps.close()
    assert threading.active_count() < 20
    *_, made = studio.draw(studio.design(RECORD))
    assert isinstance(made, Made)


def test_users_at_once_get_their_own_pictures(studio: Studio) -> None:
    alone = {seed: _picture(studio, seed) for seed in range(4)}
    together: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda s=s: together.update({s: _picture(studio, s)})) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[seed], together[seed]) for seed in range(4))


def _picture(studio: Studio, seed: int) -> np.ndarray[Any, Any]:
    *_, made = studio.draw(studio.design({**RECORD, "seed": seed}))
    assert isinstance(made, Made)
    return pixels(made.picture)


def test_a_card_acts_in_its_picture_only(studio: Studio) -> None:
    plain = _picture(studio, 5)
    card = studio.pipe.adapters["style"].bake("ink")
    *_, made = studio.draw(studio.design(RECORD), card=card)
    assert isinstance(made, Made) and not np.array_equal(pixels(made.picture), plain)
    assert "card" not in studio.pipe.adapters
    assert np.array_equal(_picture(studio, 5), plain)


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({"conditions": {"paired": [{"sketch": "/etc/passwd"}]}}, "sketch: got a path, which a demo does not read"),
        ({"conditions": {"paired": [pair(region="../mask.png")]}}, "region: got a path"),
        ({"conditions": {"paired": [{"global_sketch": "a.png"}]}}, "global_sketch: got a path"),
        ({"conditions": {"paired": [pair(sketch="data:image/png;base64,?")]}}, "no base64"),
        ({"conditions": {"paired": [pair(sketch="data:image/png;base64,AAAA")]}}, "got an inline picture"),
        ({"loras": [{"lora": "a"}]}, "loras: got some, which a demo does not load"),
        ({"controlnets": [{"controlnet": "a", "image": "b"}]}, "controlnets: got some"),
        ({"conditions": {"paired": [pair()] * 17}}, "conditions: got 17, expected at most 16"),
        ({"conditions": {"others": []}}, "conditions: got others, which this demo has no adapter for"),
        ({"num_inference_steps": 101}, "num_inference_steps: got 101, expected at most 100"),
        ({"prompt": "a" * 3000}, "design: got a text of more than 2000 characters"),
        ({"conditions": {"style": [{"style": "ink", "layers": {"(a+)+": 1.0}}]}}, "layers: got some"),
        ({"conditions": {"style": ["ink"]}}, "expected an object"),
        ({"height": 2048}, "height, width: got more than 1024"),
        ({"conditions": {"style": [{"style": "inc"}]}}, "style: got 'inc'"),
    ],
)
def test_bad_designs_are_refused(studio: Studio, record: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        list(studio.draw(studio.design({**RECORD, **record})))


def test_errors_are_one_line(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    from weftwork.scripts.demo.parts import told

    with pytest.raises(gradio.Error, match="style: got 'inc'"), told():
        list(studio.draw(studio.design({**RECORD, "conditions": {"style": [{"style": "inc"}]}})))
    monkeypatch.setattr("weftwork.scripts.demo.studio.draw", lambda *_, **__: 1 / 0)
    with pytest.raises(gradio.Error, match=r"This did not work \(ZeroDivisionError\)"), told():
        list(studio.draw(studio.design(RECORD)))
    for passed in (Stopped, gradio.Error):
        with pytest.raises(passed), told():
            raise passed


def test_the_page_of_things_becomes_a_design(studio: Studio) -> None:
    from weftwork.scripts.demo.outfit import BOX, SLOTS, _empty, _example, _record

    canvas = {"composite": drawn_sketch().convert("RGBA")}
    blank = {"composite": Image.new("RGBA", (64, 64), (0, 0, 0, 0))}
    things = [
        [canvas, "a thing", 0.5, "inside its strokes", BOX, False],
        [canvas, "hidden", 1.0, "everywhere", BOX, True],
        [blank, " words ", 1.0, "in a box", "0, 0.1, 1, 0.5", False],
        [blank, "", 1.0, "everywhere", BOX, False],
    ]
    rows = [*things, *[_empty()] * (SLOTS - len(things))]
    record = _record(["a b", 4, *(value for row in rows for value in row)])
    first, second = record["conditions"]["paired"]
    assert first == pair(weight=0.5)
    assert second == {"weight": 1.0, "text": "words", "region": [0, 0.1, 1, 0.5]}
    studio.design({**RECORD, **record})
    prompt, number, *values = _example("three")
    assert number == 3 and prompt
    filled = _record([prompt, number, *values[: 6 * SLOTS]])
    assert len(filled["conditions"]["paired"]) == 3


def test_there_is_a_tab_for_what_is_there(studio: Studio) -> None:
    from weftwork.scripts.demo.command import page

    def tabs(blocks: Any) -> list[str]:
        return [one.label for one in blocks.blocks.values() if type(one).__name__ == "Tab"]

    assert tabs(page(studio)) == ["Outfit", "Style"]
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(style=style_adapter(pipe.unet))
    assert tabs(page(Studio(pipe, "other"))) == ["Style"]


def test_only_formats_that_are_known_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weftwork.scripts.demo.command import restrict_pictures

    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (5000, 4000)).save(tmp_path / "large.png")
    Image.init()
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    restrict_pictures()
    Image.open(tmp_path / "a.png").close()
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(tmp_path / "a.eps")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png.* exceeds limit of 16000000 pixels"):
        read_image(tmp_path / "large.png")


def test_no_component_fetches_what_an_address_names(studio: Studio) -> None:
    from weftwork.scripts.demo.command import page

    named = ("Image", "File", "DownloadButton")
    components = [one for one in page(studio).blocks.values() if type(one).__name__ in named]
    assert len(components) > 5
    for one in components:
        with pytest.raises(gradio.Error, match="got an address, expected a file"):
            asyncio.run(one.async_move_resource_to_block_cache("http://127.0.0.1:9/card.safetensors"))


@pytest.mark.parametrize(("option", "match"), [({"auth": "me"}, "auth: got no colon"), ({"queue": 0}, "queue: got 0")])
def test_bad_options_are_refused(option: dict[str, Any], match: str) -> None:
    from weftwork.scripts.demo.command import add_arguments, run

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args([])
    vars(arguments).update(option)
    with pytest.raises(ValueError, match=match):
        run(arguments)


def test_files_are_kept_for_an_hour(studio: Studio) -> None:
    old, new = studio.line.file("old"), studio.line.file("new")
    os.utime(old.parent, (0, 0))
    studio.line.file("next")
    assert new.parent.is_dir() and not old.parent.exists()


def test_users_that_are_done_are_forgotten(studio: Studio) -> None:
    list(studio.draw(studio.design(RECORD), user=ME))
    assert not studio.line._stops
    with pytest.raises(Stopped):
        for _ in studio.draw(studio.design({**RECORD, "num_inference_steps": 50}), user=ME):
            assert studio.line.cancel(ME)
    assert not studio.line._stops and not studio.line.cancel(ME)


def test_who_leaves_stops_what_was_asked_for_on_every_page(studio: Studio) -> None:
    for user in (ME, ("me", "style"), ("you", "outfit")):
        studio.line.expect(user)
    mine = studio.line._stops[ME]
    studio.line.forget("me")
    assert mine.is_set() and not studio.line._stops.pop(("you", "outfit")).is_set()
    assert not studio.line._stops


def test_what_waits_for_its_turn_can_be_cancelled(studio: Studio) -> None:
    for _ in range(2):
        studio.line.expect(ME)
        assert studio.line.cancel(ME)
    with pytest.raises(Stopped):
        list(studio.draw(studio.design(RECORD), user=ME))
    studio.line.expect(ME)
    assert isinstance(list(studio.draw(studio.design(RECORD), user=ME))[-1], Made)
