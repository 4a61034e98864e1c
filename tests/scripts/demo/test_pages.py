"""The demo's pages for views and audio generate what is drawn on them, and refuse what they cannot read."""

import argparse
import base64
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_pipe
from tiny_transformers import tiny_transformer_pipe

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip
from weftwork.attention_processors.core.method import load, methods
from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
from weftwork.attention_processors.reference.published import XLabsFluxAdapter
from weftwork.datasets.readers.inline_images import from_text
from weftwork.datasets.synthetic.rooms import sample
from weftwork.datasets.synthetic.walks.scenes import Walk, times_at
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.opening import conditioned_class
from weftwork.pretrained import ALL, available
from weftwork.scripts.demo.jobs import Cancelled, Step

pytest.importorskip("gradio")
pytest.importorskip("av")
pytest.importorskip("matplotlib")

from weftwork.scripts.demo import audio as demo_sound
from weftwork.scripts.demo import views as demo_view
from weftwork.scripts.demo.command import _opened, add_arguments, open_studio
from weftwork.scripts.demo.form import FormPage
from weftwork.scripts.demo.pages import Context, open_pages
from weftwork.scripts.demo.points import points_shown
from weftwork.scripts.demo.studio import ImageStudio
from weftwork.training.tasks.controlnet import new_controlnet

PATH = json.dumps(demo_sound.PATHS["From left to right"])


def last(results: Any) -> tuple[list[int], Any]:
    *steps, made = results
    assert all(isinstance(step, Step) for step in steps)
    return [step.done for step in steps], made


def test_a_view_has_depth_and_points(views: demo_view.ViewStudio) -> None:
    request = demo_view.view_request(views.pipe.size, "Room 2", None, None, 60, 10, 5, 1.1)
    steps, made = last(views.generate(request, 0, 2))
    assert steps == [1, 2] and made.image.size == made.depth.size == (64, 64)
    assert made.path.is_file() and made.cloud.suffix == ".ply"
    again, turned = (
        last(views.generate(demo_view.view_request(views.pipe.size, "Room 2", None, None, 60, *orbit), 0, 2))[1].image
        for orbit in ((10, 5, 1.1), (-20, 0, 1.0))
    )
    assert again.tobytes() == made.image.tobytes() != turned.tobytes()


def test_what_references_show_is_kept_unless_it_is_switched_off(views: demo_view.ViewStudio) -> None:
    shares = []
    for keep in (True, False):
        request = demo_view.view_request(views.pipe.size, "Room 2", None, None, 60, 10, 5, 1.1, keep=keep)
        _, made = last(views.generate(request, 0, 2))
        apart = np.abs(np.asarray(made.image, int) - np.asarray(made.known, int)).max(-1)
        shares.append((apart <= 1).mean())
    assert shares[0] > 0.3 > 0.05 > shares[1]


def test_points_project_as_in_the_camera() -> None:
    room = sample("test", 0, size=32).views["interpolating"]
    shown = json.loads(points_shown(room.points, room.image, room.camera))
    data = base64.b64decode(shown["data"])
    places = np.frombuffer(data[: 6 * 32 * 32], "<i2").reshape(32, 32, 3).astype(float)
    assert data[6 * 32 * 32 :] == room.image.tobytes()
    depth = places[..., 2] / shown["unit"]
    np.testing.assert_allclose(depth, room.depth / np.median(room.depth), atol=1e-3)
    seen = places[..., :2] / places[..., 2:] * shown["focal"] + shown["center"]
    centres = (np.arange(32) + 0.5) / 32
    np.testing.assert_allclose(seen, np.stack(np.meshgrid(centres, centres), -1), atol=1e-3)


def test_an_uploaded_image_needs_its_depth(views: demo_view.ViewStudio, tmp_path: Path) -> None:
    picture = Image.new("RGB", (96, 48), (200, 100, 50))
    np.save(tmp_path / "depth.npy", np.full((48, 96), 3.0) + np.linspace(0, 1, 96))
    request = demo_view.view_request(views.pipe.size, "Room 1", picture, str(tmp_path / "depth.npy"), 90, 0, 0, 1)
    (reference,) = request.references
    assert reference.image.shape == (64, 64, 3)
    np.testing.assert_allclose(request.camera.world_to_camera, reference.camera.world_to_camera, atol=1e-9)
    assert reference.points[:, :, 0].max() == pytest.approx(4.0, rel=0.05)  # half of the angle of 90° at a depth of 4
    with pytest.raises(ValueError, match="got no depth"):
        demo_view.view_request(views.pipe.size, "Room 1", picture, None, 60, 0, 0, 1)
    with zipfile.ZipFile(tmp_path / "bomb.npy", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("depth.npy", bytes(1 << 24))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "depth.npy").read_bytes()[:200])
    (tmp_path / "bad.npy").write_bytes(b"no array")
    for name, match in (("bomb", "got no array"), ("bad", "cannot read"), ("cut", "cannot read")):
        with pytest.raises(ValueError, match=match):
            demo_view.view_request(views.pipe.size, "Room 1", picture, str(tmp_path / f"{name}.npy"), 60, 0, 0, 1)
    with pytest.raises(ValueError, match="expected Room 1 to Room"):
        demo_view.view_request(views.pipe.size, "../1", None, None, 60, 0, 0, 1)


def test_depth_is_bright_where_it_is_near() -> None:
    shown = np.asarray(demo_view.depth_image(np.linspace(1, 5, 64).reshape(8, 8)))
    assert shown[0, 0] == 255 and shown[-1, -1] == 0 and (np.diff(shown.ravel().astype(int)) <= 0).all()


def test_a_path_becomes_the_boxes_and_depth_of_a_walk() -> None:
    request = demo_sound.audio_request(PATH, "wood", 2.0, None, None)
    ((depth, track),) = request.voices
    assert isinstance(depth, DepthClip) and isinstance(track, BoxTrack)
    middles = track.boxes[:, [0, 2]].mean(1)
    assert middles[0] == pytest.approx(0.12, abs=0.02) and middles[-1] == pytest.approx(0.88, abs=0.03)
    np.testing.assert_allclose(track.boxes[:, 3], 0.75, atol=1e-6)
    assert request.surface == "wood"


def test_the_surface_is_an_audio_prompt_where_modules_read_its_statistics(sounds: demo_sound.AudioStudio) -> None:
    request = demo_sound.audio_request(PATH, "wood", 2.0, None, None)
    dim = sounds.pipe.spatial.config["audio_dim"]
    try:
        for width in (dim, AudioStatistics(sounds.pipe.vae).dim):
            sounds.pipe.spatial.register_to_config(audio_dim=width)
            prompts = [one for one in sounds.voices(request)[0] if isinstance(one, AudioPrompt)]
            assert len(prompts) == (width != dim)
    finally:
        sounds.pipe.spatial.register_to_config(audio_dim=dim)


def test_each_line_is_a_walker_who_is_generated_alone(sounds: demo_sound.AudioStudio) -> None:
    two = json.dumps([*demo_sound.PATHS["Two who pass each other"], []])
    request = demo_sound.audio_request(two, "wood", 1.0, None, None)
    sides = [voice[1].boxes[0, [0, 2]].mean() for voice in request.voices]  # pyright: ignore[reportAttributeAccessIssue]
    assert sides[0] < 0.2 and sides[1] > 0.8
    steps, made = last(sounds.generate(request, 3, 2, 1.0))
    assert steps == [1, 2, 3, 4] and made.video.is_file()
    alone = demo_sound.audio_request(json.dumps(demo_sound.PATHS["From left to right"][0]), "wood", 1.0, None, None)
    np.testing.assert_array_equal(alone.voices[0][1].boxes, request.voices[0][1].boxes)  # pyright: ignore
    with pytest.raises(ValueError, match="got 5 lines, expected 1 to 4"):
        demo_sound.audio_request(json.dumps(5 * json.loads(PATH)), "wood", 1.0, None, None)


def test_audio_has_a_video_and_a_plot(sounds: demo_sound.AudioStudio) -> None:
    request = demo_sound.audio_request(PATH, "wood", 1.0, None, None)
    steps, made = last(sounds.generate(request, 3, 2, 1.0))
    assert steps == [1, 2]
    assert made.path.suffix == ".wav" and made.plot.is_file() and made.video.suffix == ".mp4"


def test_a_clip_gets_audio_and_a_track_replaces_the_path(sounds: demo_sound.AudioStudio, tmp_path: Path) -> None:
    from weftwork.datasets.synthetic.walks.images import frames
    from weftwork.pipelines.audio.videos import Video
    from weftwork.pipelines.core.video_files import write_video

    walk = Walk(np.array([[-1.0, 4.0], [1.0, 4.0]]), np.zeros(0), np.zeros(0), "snow", 1.0)
    clip = write_video(frames(walk, 64, 25.0), 25.0, tmp_path / "clip.mp4")
    times = times_at(30.0, 0.9)
    np.savez(tmp_path / "boxes.npz", times=times, boxes=walk.boxes(times))
    request = demo_sound.audio_request(PATH, "snow", 5.0, str(clip), str(tmp_path / "boxes.npz"))
    assert request.seconds == pytest.approx(1.0) and [len(voice) for voice in request.voices] == [1]
    np.testing.assert_allclose(request.voices[0][0].boxes, walk.boxes(times))  # pyright: ignore
    _, made = last(sounds.generate(request, 0, 1, 1.0))
    assert Video.open(made.video).seconds == pytest.approx(1.0)
    _, first = next(Video.open(clip).frames(1.0))
    below = demo_sound._background("snow", str(clip)).props["background"]
    np.testing.assert_array_equal(from_text(below), Image.fromarray(first).resize((demo_sound.SIDE, demo_sound.SIDE)))
    alone = demo_sound.audio_request(PATH, "snow", 5.0, None, str(tmp_path / "boxes.npz"))
    assert alone.seconds == pytest.approx(float(times[-1])) and len(alone.walks) == 1
    with pytest.raises(ValueError, match=r"more than 0\.5 s"):
        Video.open(clip, longest=0.5)
    with pytest.raises(ValueError, match=r"more than 0 million pixels in all its frames \(64x64\)"):
        Video.open(clip, largest=64 * 64 * 3)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "[]",
        "[[0, 0, 0]]",
        "[[0, 0], [1, 1]]",
        "{}",
        "null",
        "[[], []]",
        "[[[0, 0, 0]]]",
        '[[["a", 0, 0], [1, 1, 1]]]',
    ],
)
def test_invalid_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="Path: got none"):
        demo_sound.audio_request(path, "wood", 2.0, None, None)


def test_invalid_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Surface: got 'lava'"):
        demo_sound.audio_request(PATH, "lava", 2.0, None, None)
    with pytest.raises(ValueError, match="Seconds: got 1000"):
        demo_sound.audio_request(PATH, "wood", 1000, None, None)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("boxes.npy", bytes(demo_sound.UNPACKED + 1))
    with pytest.raises(ValueError, match="got more than 64 MB"):
        demo_sound.audio_request(PATH, "wood", 2.0, None, str(tmp_path / "bomb.npz"))
    (tmp_path / "text.npz").write_text("no boxes")
    with pytest.raises(ValueError, match="cannot read"):
        demo_sound.audio_request(PATH, "wood", 2.0, None, str(tmp_path / "text.npz"))


def test_pages_share_one_queue(views: demo_view.ViewStudio, sounds: demo_sound.AudioStudio) -> None:
    me = ("me", "sound")
    sounds.queue.expect(me)
    assert views.queue.cancel(me)
    with pytest.raises(Cancelled):
        list(sounds.generate(demo_sound.audio_request(PATH, "wood", 1.0, None, None), 0, 2, 1.0, me))


@pytest.mark.parametrize(("name", "kind"), [("aligned-views", "ViewPage"), ("spatial-audio", "AudioPage")])
def test_shipped_models_have_pages(name: str, kind: str) -> None:
    method = methods()[name]
    backbone = ALL[name].backbone
    if not {name, backbone} <= set(available()):
        pytest.skip(f"{name} is not shipped")
    studio = ImageStudio(tiny_pipe(ConditionedStableDiffusionPipeline), "tiny")
    assert method.demo_page is not None
    page = load(method.demo_page).open(method, Context(studio))
    assert type(page).__name__ == kind and page.studio.model == backbone and page.studio.queue is studio.queue


def test_views_and_audio_have_tabs(views: demo_view.ViewStudio, sounds: demo_sound.AudioStudio) -> None:
    from weftwork.scripts.demo.command import demo

    studio = ImageStudio(tiny_pipe(ConditionedStableDiffusionPipeline), "tiny")
    blocks = demo(studio, [demo_view.ViewPage(views), demo_sound.AudioPage(sounds)])
    assert [one.label for one in blocks.blocks.values() if type(one).__name__ == "Tab"] == ["View", "Sound"]
    names = {one.api_name for one in blocks.fns.values()}
    assert {"view", "sound", "generate"} <= names


def test_methods_without_weights_have_a_form_where_the_backbone_fits(tmp_path: Path) -> None:
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path)
    context = Context(open_studio(str(tmp_path), {}, "cpu"))
    assert FormPage.open(methods()["regional"], context) is not None
    assert FormPage.open(methods()["in-context"], context) is None
    assert set(context.studio.pipe.adapters) == {"attention_control", "regional"}


def test_published_ip_adapters_have_a_form(no_shipped_models: None) -> None:
    stock = tiny_transformer_pipe("flux")
    pipe: Any = conditioned_class(type(stock))(**stock.components)
    layers = r"transformer_blocks\.\d+\.attn"
    pipe.attach(look=XLabsFluxAdapter.for_denoiser(pipe.transformer, layers=layers, image_dim=16, num_tokens=2))
    (page,) = open_pages(Context(ImageStudio(pipe, "tiny")))
    assert isinstance(page, FormPage) and (page.title, page.adapter) == ("Reference", "look")


def test_the_option_of_adapters_takes_controlnets(no_shipped_models: None, image_formats: None, tmp_path: Path) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(tmp_path / "model")
    new_controlnet(pipe, 0.0).save_pretrained(tmp_path / "net")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [f"--model={tmp_path / 'model'}", f"--adapter=parts={tmp_path / 'net'}"]
    blocks = _opened(parser.parse_args(given), {})
    assert "Parts" in [one.label for one in blocks.blocks.values() if type(one).__name__ == "Tab"]
    with pytest.raises(ValueError, match=r"controlnet: got .*nothing.*, which cannot be opened"):
        _opened(parser.parse_args([given[0], f"--adapter=parts={tmp_path / 'nothing'}"]), {})
