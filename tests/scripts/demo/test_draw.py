"""The demo generates the images of `weftwork generate`, one at a time, and reads no file that a user names."""

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
from tiny import drawn_sketch, reference_adapter, style_adapter, subject_adapter, tiny_pipe, tiny_studio

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.inline_images import as_text
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw
from weftwork.scripts.demo.jobs import Cancelled, Step
from weftwork.scripts.demo.studio import ImageResult, ImageStudio

gradio = pytest.importorskip("gradio")

from weftwork.scripts.demo.command import demo  # noqa: E402
from weftwork.scripts.demo.guards import GuardedBlocks, errors_shown  # noqa: E402
from weftwork.scripts.demo.pages import Context, open_pages  # noqa: E402

ME, YOU = ("me", "draw"), ("you", "draw")
RECORD: dict[str, Any] = {"prompt": "a b", "seed": 5, "num_inference_steps": 3}


@pytest.fixture(scope="module")
def studio() -> ImageStudio:
    return tiny_studio()


def pair(**more: Any) -> dict[str, Any]:
    return {"sketch": as_text(drawn_sketch()), "text": "a thing", "region": "sketch", **more}


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGB"))


def test_an_image_follows_its_steps_and_holds_its_design(studio: ImageStudio) -> None:
    record = {**RECORD, "conditions": {"paired": [pair(), pair(text="another")], "style": [{"style": "ink"}]}}
    *steps, made = studio.generate(studio.design(record), maps=True)
    assert [step.done for step in steps if isinstance(step, Step)] == [1, 2, 3]
    assert isinstance(made, ImageResult) and made.seed == 5
    assert [one.title for one in made.maps] == ["paired 1: a thing", "paired 2: another", "style 1: ink"]
    previews = [step.preview for step in steps if isinstance(step, Step) and step.preview]
    assert previews and previews[0].size == made.image.size
    with Image.open(made.path) as stored:
        assert json.loads(stored.text["weftwork"])["seed"] == 5  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.usefixtures("no_shipped_models")
def test_attached_references_and_subjects_are_layers_of_the_canvas(image_encoder: ImageEncoder) -> None:
    studio, shown = tiny_studio(), []
    for adapters in ({}, {"look": reference_adapter(studio.pipe.unet), "who": subject_adapter(studio.pipe.unet)}):
        studio.pipe.attach(**adapters)
        (outfit, *_) = open_pages(Context(studio))
        blocks = demo(studio, [outfit]).blocks.values()
        shown += [one.props["adapters"] for one in blocks if getattr(one, "elem_id", None) == "design"]
    assert shown == [{"pair": "paired"}, {"pair": "paired", "reference": "look", "subject": "who"}]
    studio.pipe.set_encoders(image=image_encoder)
    looks = [
        {"image": as_text(Image.new("RGB", (40, 40), color)), "region": [0, 0, 0.5, 1]} for color in ("red", "blue")
    ]
    made, who = [], {"image": looks[0]["image"], "text": "b"}  # which has no map
    for look in looks:
        record = {**RECORD, "conditions": {"who": [who], "look": [look], "paired": [pair()]}}
        *_, result = studio.generate(studio.design(record), maps=True)
        assert isinstance(result, ImageResult) and [one.title for one in result.maps] == [
            "look 1",
            "paired 1: a thing",
        ]
        made.append(pixels(result.image))
    assert not np.array_equal(*made)


def test_an_initial_image_leaves_fewer_steps(studio: ImageStudio) -> None:
    image = {"image": as_text(drawn_sketch().convert("RGB")), "strength": 0.5, "num_inference_steps": 4}
    *steps, made = studio.generate(studio.design({**RECORD, **image}), count=2)
    shown = [step for step in steps if isinstance(step, Step)]
    assert [(step.done, step.total) for step in shown] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert isinstance(made, ImageResult) and made.image.size == (64, 64)


def test_a_design_file_reproduces_the_bits(studio: ImageStudio, tmp_path: Path) -> None:
    record = {**RECORD, "conditions": {"paired": [pair()]}}
    *_, made = studio.generate(studio.design(record))
    (tmp_path / "design.json").write_text(json.dumps(record))
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(paired=studio.pipe.adapters["paired"])
    (alone,) = draw(pipe, read_design(tmp_path / "design.json"), 1, None)
    assert isinstance(made, ImageResult) and np.array_equal(pixels(made.image), pixels(alone))
    drawn_sketch().save(tmp_path / "sketch.png")
    (tmp_path / "other.json").write_text(json.dumps({**RECORD, "conditions": {"paired": [pair(sketch="sketch.png")]}}))
    (beside,) = draw(pipe, read_design(tmp_path / "other.json"), 1, None)
    assert np.array_equal(pixels(alone), pixels(beside))


def test_previews_show_the_predicted_clean_image(studio: ImageStudio) -> None:
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
        shown, previews._decoding = previews.after(3 - step, latents), 0.0
        if step in (1, 2):
            assert shown is not None
            assert np.abs(pixels(shown).astype(int) - pixels(expected)).max() <= 1


def test_closing_cancels_the_job_and_others_go_on(studio: ImageStudio) -> None:
    design = studio.design({**RECORD, "num_inference_steps": 50})
    steps = studio.generate(design)
    next(steps)
    steps.close()
    assert threading.active_count() < 20
    *_, made = studio.generate(studio.design(RECORD))
    assert isinstance(made, ImageResult)


def test_concurrent_users_get_their_own_images(studio: ImageStudio) -> None:
    alone = {seed: _picture(studio, seed) for seed in range(4)}
    together: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda s=s: together.update({s: _picture(studio, s)})) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(alone[seed], together[seed]) for seed in range(4))


def _picture(studio: ImageStudio, seed: int) -> np.ndarray[Any, Any]:
    *_, made = studio.generate(studio.design({**RECORD, "seed": seed}))
    assert isinstance(made, ImageResult)
    return pixels(made.image)


def test_a_card_acts_in_its_image_only(studio: ImageStudio) -> None:
    plain = _picture(studio, 5)
    card = studio.pipe.adapters["style"].bake("ink")
    *_, made = studio.generate(studio.design(RECORD), card=card)
    assert isinstance(made, ImageResult) and not np.array_equal(pixels(made.image), plain)
    assert "card" not in studio.pipe.adapters
    assert np.array_equal(_picture(studio, 5), plain)


@pytest.mark.parametrize(
    ("record", "match"),
    [
        ({"conditions": {"paired": [{"sketch": "/etc/passwd"}]}}, "sketch: got a path, which a demo does not read"),
        ({"conditions": {"paired": [pair(region="../mask.png")]}}, "region: got a path"),
        ({"conditions": {"paired": [{"global_sketch": "a.png"}]}}, "global_sketch: got a path"),
        ({"conditions": {"paired": [pair(sketch="data:image/png;base64,?")]}}, "not base64"),
        ({"conditions": {"paired": [pair(sketch="data:image/png;base64,AAAA")]}}, "got an inline image"),
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
def test_bad_designs_are_refused(studio: ImageStudio, record: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        list(studio.generate(studio.design({**RECORD, **record})))


def test_errors_are_one_line(studio: ImageStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(gradio.Error, match="style: got 'inc'"), errors_shown():
        list(studio.generate(studio.design({**RECORD, "conditions": {"style": [{"style": "inc"}]}})))
    monkeypatch.setattr("weftwork.scripts.demo.studio.draw", lambda *_, **__: 1 / 0)
    with pytest.raises(gradio.Error, match=r"This did not work \(ZeroDivisionError\)"), errors_shown():
        list(studio.generate(studio.design(RECORD)))
    for passed in (Cancelled, gradio.Error):
        with pytest.raises(passed), errors_shown():
            raise passed


@pytest.mark.usefixtures("no_shipped_models")
def test_methods_with_models_have_tabs(studio: ImageStudio) -> None:
    pages = open_pages(Context(studio))
    blocks = demo(studio, pages)
    tabs = [one.label for one in blocks.blocks.values() if type(one).__name__ == "Tab"]
    assert tabs == [page.title for page in pages] == ["Draw", "Style"]
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(style=style_adapter(pipe.unet))
    assert [page.title for page in open_pages(Context(ImageStudio(pipe, "other")))] == ["Style"]


def test_only_known_formats_are_decoded(image_formats: None, tmp_path: Path) -> None:
    from weftwork.scripts.demo.guards import restrict_image_formats

    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (5000, 4000)).save(tmp_path / "large.png")
    restrict_image_formats()
    Image.open(tmp_path / "a.png").close()
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(tmp_path / "a.eps")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png.* exceeds limit of 16000000 pixels"):
        read_image(tmp_path / "large.png")


@pytest.mark.usefixtures("no_shipped_models")
def test_no_component_fetches_addresses(studio: ImageStudio) -> None:
    blocks = demo(studio, open_pages(Context(studio)))
    file = {"path": "http://127.0.0.1:9/card.safetensors", "meta": {"_type": "gradio.FileData"}}
    checked = 0
    for function in blocks.fns.values():
        for place in range(len(function.inputs)):
            for value in (file, [file], {"background": file, "layers": [], "composite": None}):
                inputs = [value if i == place else None for i in range(len(function.inputs))]
                with pytest.raises(gradio.Error, match="got an address, expected a file"):
                    asyncio.run(blocks.preprocess_data(function, inputs, None))
                checked += 1
    assert checked > 30


def test_unreadable_uploads_are_reported_by_name(tmp_path: Path) -> None:
    with GuardedBlocks() as blocks:
        upload = gradio.Image(label="Reference", type="pil")
        gradio.Button().click(lambda image: image.size, upload, gradio.JSON())
    (tmp_path / "bad.png").write_bytes(b"this is no image")
    payload = {"path": str(tmp_path / "bad.png"), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(gradio.Error, match="Reference: got a file that is not an image"):
        asyncio.run(blocks.preprocess_data(next(iter(blocks.fns.values())), [payload], None, explicit_call=True))


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"auth": "me"}, "auth: got no colon"),
        ({"queue": 0}, "queue: got 0"),
        ({"port": 70000}, "port: got 70000, expected a number from 1 to 65535; change it"),
        ({"aligned_views": "a"}, "aligned_views: got 'a', expected BACKBONE=MODULES"),
    ],
)
def test_bad_options_are_refused(option: dict[str, Any], match: str) -> None:
    from weftwork.scripts.demo.command import add_arguments, run

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args([])
    vars(arguments).update(option)
    with pytest.raises(ValueError, match=match):
        run(arguments)


def test_files_are_kept_for_an_hour(studio: ImageStudio) -> None:
    old, new = studio.queue.new_file("old"), studio.queue.new_file("new")
    os.utime(old.parent, (0, 0))
    studio.queue.new_file("next")
    assert new.parent.is_dir() and not old.parent.exists()


def test_finished_users_are_removed(studio: ImageStudio) -> None:
    list(studio.generate(studio.design(RECORD), user=ME))
    assert not studio.queue.cancel(ME)
    with pytest.raises(Cancelled):
        for _ in studio.generate(studio.design({**RECORD, "num_inference_steps": 50}), user=ME):
            assert studio.queue.cancel(ME)
    assert not studio.queue.cancel(ME)


def test_the_end_of_a_session_cancels_its_jobs_on_every_page(studio: ImageStudio) -> None:
    steps = studio.generate(studio.design({**RECORD, "num_inference_steps": 50}), user=ME)
    next(steps)
    for user in (("me", "style"), YOU):
        studio.queue.expect(user)
    studio.queue.cancel_session("me")
    with pytest.raises(Cancelled):
        list(steps)
    assert not studio.queue.cancel(ME) and not studio.queue.cancel(("me", "style"))
    assert isinstance(list(studio.generate(studio.design(RECORD), user=YOU))[-1], ImageResult)
    assert not studio.queue.cancel(YOU)


def test_waiting_jobs_can_be_cancelled(studio: ImageStudio) -> None:
    for _ in range(2):
        studio.queue.expect(ME)
        assert studio.queue.cancel(ME)
    with pytest.raises(Cancelled):
        list(studio.generate(studio.design(RECORD), user=ME))
    studio.queue.expect(ME)
    assert isinstance(list(studio.generate(studio.design(RECORD), user=ME))[-1], ImageResult)
