"""The demo's page of sounds: a path over a scene or a clip, the stereo sound that follows it, and both as curves."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import gradio as gr
import numpy as np
import torch
from PIL import Image

from weftwork.attention_processors.audio.conditions import BoxTrack, DepthClip, OverTime
from weftwork.datasets.readers.inline_images import as_text
from weftwork.datasets.readers.sidecar_files import read_boxes
from weftwork.datasets.synthetic.walks.images import frames, scene
from weftwork.datasets.synthetic.walks.scenes import (
    BOX_RATE,
    DEPTH_RATE,
    EYE,
    FARTHEST,
    FOCAL,
    NEAREST,
    SURFACES,
    Walk,
    times_at,
)
from weftwork.pipelines.audio.events import onsets
from weftwork.pipelines.audio.plots import plot_sound
from weftwork.pipelines.audio.videos import Video, write_video
from weftwork.scripts.demo.jobs import MethodStudio, Step, User, seed_of
from weftwork.scripts.demo.parts import HEARD, QUIET, Buttons, complaint, downloads, run_settings, state_line

SIDE: Final = 320
LONGEST: Final = 10.0
LARGEST: Final = 1_000_000_000
"""Pixels of all frames of a clip."""
"""Seconds."""
UNPACKED: Final = 64_000_000
"""Bytes that a file of boxes may hold."""
PATHS: Final = {
    "From left to right": [[0.12, 0.75, 0.0], [0.88, 0.75, 1.0]],
    "From right to left": [[0.88, 0.75, 0.0], [0.12, 0.75, 1.0]],
    "From afar to the front": [[0.5, 0.6, 0.0], [0.5, 0.95, 1.0]],
    "There and back": [[0.2, 0.85, 0.0], [0.8, 0.62, 0.5], [0.2, 0.85, 1.0]],
}
"""By name places of the feet (x, y as fractions of the picture) with their time as a share of the clip."""
CANVAS: Final = """
<svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img" aria-label="The path over the scene">
<image href="${background}" width="1" height="1" preserveAspectRatio="none"/>
<polyline points="${JSON.parse(value).map(p => p[0] + ',' + p[1]).join(' ')}"/>
${JSON.parse(value).slice(0, 1).map(p => `<circle cx="${p[0]}" cy="${p[1]}" r="0.02"/>`).join('')}
</svg>"""
STYLE: Final = """
svg { width: 100%; max-width: 480px; aspect-ratio: 1; touch-action: none; cursor: crosshair; display: block }
polyline { fill: none; stroke: #e11d48; stroke-width: 0.012; stroke-linejoin: round }
circle { fill: #e11d48 }"""
DRAWING: Final = """
let points = null;
const place = event => {
  const box = element.querySelector('svg').getBoundingClientRect();
  const inside = share => Math.round(1e4 * Math.min(1, Math.max(0, share))) / 1e4;
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height),
          event.timeStamp / 1000];
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('svg')) return;
  event.preventDefault();
  points = [place(event)];
});
window.addEventListener('pointermove', event => {
  if (points === null) return;
  points.push(place(event));
  const line = element.querySelector('polyline');
  if (line) line.setAttribute('points', points.map(p => p[0] + ',' + p[1]).join(' '));
});
window.addEventListener('pointerup', () => {
  if (points === null) return;
  const [begin, end] = [points[0][2], points[points.length - 1][2]];
  if (end > begin) props.value = JSON.stringify(points.map(p => [p[0], p[1], (p[2] - begin) / (end - begin)]));
  points = null;
});"""


class SoundStudio(MethodStudio):
    """A `VideoToAudioPipeline`."""

    def draw(
        self, asked: "AskedSound", seed: int, steps: int, guidance_scale: float, user: User | None = None
    ) -> "Iterator[Step | MadeSound]":
        """Steps, and the sound at the end.

        Raises:
            Stopped: it was cancelled.
            ValueError: as the pipeline's call.
        """

        def job(report: Callable[[Step], None]) -> MadeSound:
            out = self.pipe(
                asked.conditions,
                asked.prompt,
                seconds=asked.seconds,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=torch.Generator().manual_seed(seed),
                callback=lambda step, _time, _latents: report(Step(step + 1, steps)),
            )
            path = out.save(self.line.file("sound.wav"))
            tracks = [one for one in asked.conditions if isinstance(one, BoxTrack)]
            plot = plot_sound(out.audio, out.sample_rate, tracks, path.with_name("sound.png"))
            return MadeSound(path, plot, _video(asked, out, path.with_name("sound.mp4")))

        yield from self.line.make(job, user)


@dataclass(frozen=True)
class AskedSound:
    """What a sound is wanted for.

    Args:
        walk: whose conditions these are, if they are a walk's.
        clip: a video of the user's own.
    """

    conditions: Sequence[OverTime]
    prompt: str
    seconds: float
    walk: Walk | None = None
    clip: Video | None = None


@dataclass(frozen=True)
class MadeSound:
    path: Path
    plot: Path
    video: Path


def _video(asked: AskedSound, out: Any, path: Path) -> Path:
    """The clip with its new sound; of a walk, its pictures, with feet that meet the floor when the sound says so."""
    clip = asked.clip
    if clip is None:
        assert asked.walk is not None
        steps = onsets(out.audio, out.sample_rate)
        walk = Walk(asked.walk.knots, steps, np.zeros(len(steps)), asked.walk.surface, asked.seconds)
        clip = Video.open(write_video(frames(walk, 256, 25.0), 25.0, path.with_name("silent.mp4")))
    return clip.with_sound(out.audio, out.sample_rate, path)


def sound_page(studio: SoundStudio) -> None:
    """Draws the page into the open `gr.Blocks`."""
    gr.Markdown(f"On **{studio.model}**. Draw where the feet go, as fast as they go; lower in the picture is nearer.")
    surfaces, paths = list(SURFACES), list(PATHS)
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            drawn = gr.HTML(
                json.dumps(PATHS[paths[0]]),
                html_template=CANVAS,
                css_template=STYLE,
                js_on_load=DRAWING,
                background=_scene(surfaces[0]),
                elem_id="path",
            )
            with gr.Row():
                ready = gr.Dropdown(paths, value=paths[0], label="Or a path that is ready", elem_id="ready")
                surface = gr.Dropdown(surfaces, value=surfaces[0], label="What is walked on", elem_id="surface")
                seconds = gr.Slider(1, LONGEST, 2, step=0.5, label="Seconds", elem_id="seconds")
            clip, boxes = _own()
        with gr.Column(scale=2, min_width=320):
            settings = run_settings(steps=50, guidance=2, maps=False)
            buttons = Buttons(studio.line)
            video = gr.Video(label="Picture and sound", interactive=False, elem_classes="picture")
            state = state_line()
            sound = gr.Audio(label="Sound", type="filepath", interactive=False, elem_id="sound")
            gr.Markdown("Where it is seen and heard, and how loud it is:")
            plot = gr.Image(show_label=False, format="png", interactive=False)
            seed = gr.Textbox(label="Seed of this sound", interactive=False, elem_classes="seed")
            wav = gr.DownloadButton("Sound (WAV)", interactive=False)
    ready.change(lambda name: json.dumps(PATHS[name]), ready, drawn, **QUIET)
    gr.on([surface.change, clip.change], _background, [surface, clip], drawn, **HEARD)

    def make(user: User, *values: Any) -> Iterator[Any]:
        path, floor, length, upload, track, given, steps, guidance = values
        used, asked = seed_of(given), _asked(path, floor, length, upload, track)
        for result in studio.draw(asked, used, int(steps), guidance, user):
            if isinstance(result, Step):
                yield result
                continue
            shown = [str(result.video), "Done.", str(result.path), str(result.plot), str(used)]
            yield [*shown, *downloads(result.path)]

    inputs = [drawn, surface, seconds, clip, boxes, *settings]
    buttons.wire(make, inputs, [video, state, sound, plot, seed, wav], api_name="sound")


def _own() -> tuple[gr.File, gr.File]:
    with gr.Accordion("A clip or a track of your own", open=False), gr.Row():
        clip = gr.File(label="A clip to draw over (MP4)", file_types=[".mp4", ".mkv", ".webm", ".mov"])
        boxes = gr.File(label="A track instead of the path (NPZ: times, boxes)", file_types=[".npz"])
    return clip, boxes


def _asked(path: str, surface: str, seconds: float, clip: str | None, boxes: str | None) -> AskedSound:
    """What the page's values ask for.

    Raises:
        gr.Error: an unknown surface, a wrong length, no path, too large a file, or a package that is not installed.
        ValueError: a clip or boxes that cannot be read.
    """
    if surface not in SURFACES:
        raise complaint(f"Surface: got {surface!r}, expected one of {', '.join(SURFACES)}")
    if not 0 < seconds <= LONGEST:
        raise complaint(f"Seconds: got {seconds}, expected more than 0 and at most {LONGEST:.0f}")
    for package in ("av", "matplotlib"):
        if find_spec(package) is None:
            raise complaint(f"Sound: got no {package}; install it with pip install {package}")
    prompt = f"a person walks on {surface}"
    video = None if clip is None else Video.open(clip, longest=LONGEST, largest=LARGEST)
    if video is not None:
        seconds = video.seconds
    walk = _walk(path, surface, seconds)
    if boxes is None and video is None:
        times = times_at(DEPTH_RATE, seconds)
        return AskedSound([DepthClip(times, walk.depth(times)), _track(walk)], prompt, seconds, walk)
    tracks = [_track(walk)] if boxes is None else _tracks(Path(boxes))
    if video is None:
        seconds = min(LONGEST, max(float(track.times[-1]) for track in tracks))
        walk = _along(tracks[0], surface, seconds)
    else:
        video.check(tracks)
    return AskedSound(tracks, prompt, seconds, walk, video)


def _walk(path: str, surface: str, seconds: float) -> Walk:
    """A walk along places of feet, which are brought onto the floor before the wall.

    Raises:
        gr.Error: what the canvas never says.
    """
    try:
        places = np.array(json.loads(path), np.float64)
        if places.ndim != 2 or places.shape[1] != 3 or not np.isfinite(places).all() or len(places) < 2:
            raise ValueError
    except (ValueError, TypeError):
        raise complaint("Path: got none, expected a line over the picture; draw one, or choose one") from None
    shares = np.linspace(0, 1, max(2, round(BOX_RATE * seconds)))
    x, y = (np.interp(shares, places[:, 2], places[:, i]) for i in (0, 1))
    return _on_floor(x, y, surface, seconds)


def _on_floor(x: Any, y: Any, surface: str, seconds: float) -> Walk:
    """A walk whose feet are seen at these places, spread evenly over the clip."""
    depth = np.clip(FOCAL * EYE / np.maximum(y - 0.5, 1e-3), NEAREST, FARTHEST)
    across = np.clip(x - 0.5, -0.499, 0.499) * depth / FOCAL
    return Walk(np.stack([across, depth], 1), np.zeros(0), np.zeros(0), surface, seconds)


def _along(track: BoxTrack, surface: str, seconds: float) -> Walk:
    """A walk, to look at, that goes where a track's boxes stand."""
    boxes, _ = track.at(np.linspace(0, seconds, max(2, round(BOX_RATE * seconds))))
    return _on_floor(boxes[:, [0, 2]].mean(1), boxes[:, 3], surface, seconds)


def _track(walk: Walk) -> BoxTrack:
    times = times_at(BOX_RATE, walk.seconds)
    return BoxTrack(times, walk.boxes(times))


def _tracks(path: Path) -> list[BoxTrack]:
    """What a user's file of boxes holds.

    Raises:
        gr.Error: one that unpacks to too much, or has no box.
        ValueError: one that is no such file.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            if sum(one.file_size for one in packed.infolist()) > UNPACKED:
                raise complaint(f"Track: got more than {UNPACKED // 1_000_000} MB, expected boxes of a short clip")
    tracks = [BoxTrack(track.times, track.boxes) for track in read_boxes(path, 0.0, LONGEST)]
    if not tracks:
        raise complaint(f"Track: got no box within {LONGEST:.0f} s, expected some")
    return tracks


@cache
def _scene(surface: str) -> str:
    """The empty scene, as a data URI."""
    return as_text(Image.fromarray(scene(surface, SIDE)))


def _background(surface: str, clip: str | None) -> Any:
    """The scene that is drawn over: the clip's first picture, or an empty floor."""
    if clip is None:
        return gr.HTML(background=_scene(surface))
    try:
        _, first = next(Video.open(clip, longest=LONGEST, largest=LARGEST).frames(1.0))
    except (ValueError, RuntimeError) as error:
        raise complaint(error) from None
    return gr.HTML(background=as_text(Image.fromarray(first).resize((SIDE, SIDE))))
