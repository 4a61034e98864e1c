"""The demo's page for spatial audio: a path over a scene or a clip, the stereo audio that follows it, and curves."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final

import gradio as gr
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, OverTime
from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
from weftwork.datasets.readers.errors import UserError, check_choice, check_installed
from weftwork.datasets.readers.inline_images import as_text
from weftwork.datasets.readers.sidecar_files import read_boxes
from weftwork.datasets.synthetic.walks import PROMPT, render
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
from weftwork.pipelines.audio.output import AudioOutput
from weftwork.pipelines.audio.plots import plot_audio
from weftwork.pipelines.audio.videos import Video
from weftwork.pipelines.audio.voices import mixed
from weftwork.pipelines.core.video_files import write_video
from weftwork.scripts.demo.guards import errors_shown
from weftwork.scripts.demo.jobs import Report, Step, User
from weftwork.scripts.demo.pages import PipelinePage
from weftwork.scripts.demo.path_canvas import WALKERS, path_canvas
from weftwork.scripts.demo.studio import Studio, seed_or_random
from weftwork.scripts.demo.widgets import HEARD, QUIET, RunButtons, downloads, run_settings, state_line

Positions = Float[np.ndarray, "time"]
SIDE: Final = 320
LONGEST: Final = 10.0
"""Seconds."""
LARGEST: Final = 1_000_000_000
"""Pixels of all frames of a clip."""
UNPACKED: Final = 64_000_000
"""Bytes of an uncompressed file of boxes."""
RIGHT, LEFT = [[0.12, 0.75, 0.0], [0.88, 0.75, 1.0]], [[0.88, 0.85, 0.0], [0.12, 0.85, 1.0]]
PATHS: Final = {
    "From left to right": [RIGHT],
    "From right to left": [LEFT],
    "Towards the camera": [[[0.5, 0.6, 0.0], [0.5, 0.95, 1.0]]],
    "There and back": [[[0.2, 0.85, 0.0], [0.8, 0.62, 0.5], [0.2, 0.85, 1.0]]],
    "Two who pass each other": [RIGHT, LEFT],
}
"""By name and walker positions of the feet (x, y as fractions of the image), with their time as a share of the clip."""


@dataclass(frozen=True)
class AudioRequest:
    """A request for audio.

    Args:
        voices: conditions by walker, with a track in each.
        surface: of the floor, for the audio prompt.
        walks: that the conditions were made from, if any.
        clip: a user's own video.
    """

    voices: Sequence[Sequence[OverTime]]
    surface: str
    seconds: float
    walks: Sequence[Walk] = ()
    clip: Video | None = None


@dataclass(frozen=True)
class AudioResult:
    """Files of the audio, of its plot and of the video with it."""

    path: Path
    plot: Path
    video: Path
    seed: int


class AudioStudio(Studio):
    """A `VideoToAudioPipeline`.

    The text prompt is the only one that the shipped modules were trained on. The surface is heard through an audio
    prompt: with other texts, some seeds are silent.
    """

    def voices(self, request: AudioRequest) -> Sequence[Sequence[OverTime]]:
        """Returns the voices, with steps on the surface as audio prompt if the modules read its statistics."""
        statistics = AudioStatistics(self.pipe.vae)
        if self.pipe.spatial.config["audio_dim"] != statistics.dim:
            return request.voices
        self.pipe.set_encoders(audio=statistics)
        return [[*voice, _steps_on(request.surface)] for voice in request.voices]

    def generate(
        self, request: AudioRequest, seed: float | None, steps: float, guidance: float, user: User | None = None
    ) -> Iterator[Step | AudioResult]:
        """Yields steps, and the audio at the end; a seed of None is drawn.

        Raises:
            Cancelled: it was cancelled.
            ValueError: as the pipeline's call.
        """
        seed, steps, done = seed_or_random(seed), int(steps), count(1)

        def job(report: Report[AudioResult]) -> AudioResult:
            out = mixed(
                self.pipe,
                self.voices(request),
                PROMPT,
                seconds=request.seconds,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(seed),
                callback=lambda *_: report(Step(next(done), steps * len(request.voices))),
            )
            path = out.save(self.queue.new_file("sound.wav"))
            tracks = [one for voice in request.voices for one in voice if isinstance(one, BoxTrack)]
            plot = plot_audio(out.audio, out.sample_rate, tracks, path.with_name("sound.png"))
            return AudioResult(path, plot, _video(request, out, path.with_name("sound.mp4")), seed)

        yield from self.queue.run(job, user)


def _video(request: AudioRequest, out: AudioOutput, path: Path) -> Path:
    """Adds the audio to the clip; walks are rendered with steps at the onsets of their voices."""
    clip = request.clip
    if clip is None:
        heard = [onsets(voice, out.sample_rate) for voice in out.voices]
        first, *others = [
            replace(walk, steps=steps, levels=np.zeros(len(steps)), seconds=request.seconds)
            for walk, steps in zip(request.walks, heard, strict=True)
        ]
        clip = Video.open(write_video(frames(first, 256, 25.0, others), 25.0, path.with_name("silent.mp4")))
    return clip.with_audio(out.audio, out.sample_rate, path)


class AudioPage(PipelinePage[AudioStudio]):
    """A path that is drawn over a scene or a clip."""

    title = "Sound"
    order = 70
    studio_class = AudioStudio

    def build(self) -> None:
        gr.Markdown(
            f"On **{self.studio.model}**. Draw where the feet go, at their speed; lower in the image is nearer. "
            "*Add a walker* for another line: each walker is generated alone, and all are mixed."
        )
        surfaces, paths = list(SURFACES), list(PATHS)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                drawn = path_canvas(json.dumps(PATHS[paths[0]]), _scene(surfaces[0]))
                with gr.Row():
                    ready = gr.Dropdown(paths, value=paths[0], label="Ready-made path", elem_id="ready")
                    surface = gr.Dropdown(surfaces, value=surfaces[0], label="Surface", elem_id="surface")
                    seconds = gr.Slider(1, LONGEST, 2, step=0.5, label="Seconds", elem_id="seconds")
                clip, boxes = _own_files()
            with gr.Column(scale=2, min_width=320):
                settings = run_settings(steps=50, guidance=2, maps=False)
                buttons = RunButtons(self.studio.queue)
                video = gr.Video(label="Video with sound", interactive=False, elem_classes="result")
                state = state_line()
                audio = gr.Audio(label="Sound", type="filepath", interactive=False, elem_id="sound")
                gr.Markdown(
                    "Sides from left (-1) to right (1): lines are walkers as seen, dots are the sound as heard, "
                    "which is placed at these sides by gains."
                )
                plot = gr.Image(show_label=False, format="png", interactive=False)
                seed = gr.Textbox(label="Seed of this sound", interactive=False, elem_classes="seed")
                wav = gr.DownloadButton("Sound (WAV)", interactive=False)
        ready.change(lambda name: json.dumps(PATHS[name]), ready, drawn, **QUIET)
        gr.on([surface.change, clip.change], _background, [surface, clip], drawn, **HEARD)
        buttons.connect(
            lambda user, *values: self.studio.generate(audio_request(*values[:5]), *values[5:], user=user),
            lambda out: [str(out.video), "Done.", str(out.path), str(out.plot), str(out.seed), *downloads(out.path)],
            {"path": drawn, "surface": surface, "seconds": seconds, "clip": clip, "boxes": boxes, **settings},
            [video, state, audio, plot, seed, wav],
            api_name="sound",
        )


def _own_files() -> tuple[gr.File, gr.File]:
    with gr.Accordion("Your own clip or track", open=False), gr.Row():
        clip = gr.File(label="A clip to draw over (MP4)", file_types=[".mp4", ".mkv", ".webm", ".mov"])
        boxes = gr.File(label="A track instead of the path (NPZ: times, boxes)", file_types=[".npz"])
    return clip, boxes


def audio_request(path: str, surface: str, seconds: float, clip: str | None, boxes: str | None) -> AudioRequest:
    """Returns the request of the page's values.

    Raises:
        ValueError: an unknown surface, a wrong length, no path, too large a file, a package that is not installed, or a
            clip or boxes that cannot be read.
    """
    check_choice("Surface", surface, SURFACES)
    if not 0 < seconds <= LONGEST:
        raise UserError(f"Seconds: got {seconds}, expected more than 0 and at most {LONGEST:.0f}")
    check_installed("Sound", "av", "matplotlib")
    video = None if clip is None else Video.open(clip, longest=LONGEST, largest=LARGEST)
    if video is not None:
        seconds = video.seconds
    walks = _walks(path, surface, seconds)
    if boxes is None and video is None:
        times = times_at(DEPTH_RATE, seconds)
        voices = [[DepthClip(times, walk.depth(times)), _track(walk)] for walk in walks]
        return AudioRequest(voices, surface, seconds, walks)
    tracks = [_track(walk) for walk in walks] if boxes is None else _tracks(Path(boxes))
    if video is None:
        seconds = min(LONGEST, max(float(track.times[-1]) for track in tracks))
        walks = [_along(track, surface, seconds) for track in tracks]
    else:
        video.check(tracks)
    return AudioRequest([[track] for track in tracks], surface, seconds, walks, video)


def _walks(text: str, surface: str, seconds: float) -> list[Walk]:
    """Returns the walks along positions of feet, moved onto the floor in front of the wall.

    Args:
        text: JSON of a list of paths, of which empty ones are left out, or of one path.

    Raises:
        ValueError: text that is not this, or too many paths.
    """
    try:
        found = json.loads(text)
        if isinstance(found[0][0], int | float):
            found = [found]
        paths = [np.array(path, np.float64) for path in found if path]
        if not all(p.ndim == 2 and p.shape[1] == 3 and np.isfinite(p).all() and len(p) > 1 for p in paths):
            raise ValueError
    except (ValueError, TypeError, LookupError):
        raise UserError("Path: got none, expected a line over the image; draw one, or choose one") from None
    if not 1 <= len(paths) <= WALKERS:
        raise UserError(f"Path: got {len(paths)} lines, expected 1 to {WALKERS}; remove some, or draw one")
    shares = np.linspace(0, 1, max(2, round(BOX_RATE * seconds)))
    placed = [[np.interp(shares, path[:, 2], path[:, i]) for i in (0, 1)] for path in paths]
    return [_on_floor(x, y, surface, seconds) for x, y in placed]


def _on_floor(x: Positions, y: Positions, surface: str, seconds: float) -> Walk:
    """Returns the walk with feet at these positions in the image, spread evenly over the clip."""
    depth = np.clip(FOCAL * EYE / np.maximum(y - 0.5, 1e-3), NEAREST, FARTHEST)
    across = np.clip(x - 0.5, -0.499, 0.499) * depth / FOCAL
    return Walk(np.stack([across, depth], 1), np.zeros(0), np.zeros(0), surface, seconds)


def _along(track: BoxTrack, surface: str, seconds: float) -> Walk:
    """Returns a walk to render along the lower edges of a track's boxes."""
    boxes, _ = track.at(np.linspace(0, seconds, max(2, round(BOX_RATE * seconds))))
    return _on_floor(boxes[:, [0, 2]].mean(1), boxes[:, 3], surface, seconds)


@cache
def _steps_on(surface: str) -> AudioPrompt:
    """Returns two seconds of steps on a surface, straight ahead."""
    steps = np.arange(0.2, 2.0, 0.5)
    clip = render(Walk(np.array([[0.0, 3.0], [0.0, 3.0]]), steps, np.zeros(len(steps)), surface, 2.0))
    return AudioPrompt(audio=clip.audio, sample_rate=clip.sample_rate)


def _track(walk: Walk) -> BoxTrack:
    times = times_at(BOX_RATE, walk.seconds)
    return BoxTrack(times, walk.boxes(times))


def _tracks(path: Path) -> list[BoxTrack]:
    """Reads a user's file of boxes.

    Raises:
        ValueError: one that unpacks to too much, has no box, or is no such file.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            if sum(one.file_size for one in packed.infolist()) > UNPACKED:
                raise UserError(f"Track: got more than {UNPACKED // 1_000_000} MB, expected boxes of a short clip")
    tracks = [BoxTrack(track.times, track.boxes) for track in read_boxes(path, 0.0, LONGEST)]
    if not tracks:
        raise UserError(f"Track: got no box within {LONGEST:.0f} s, expected some")
    return tracks


@cache
def _scene(surface: str) -> str:
    """Returns the empty scene as a data URI."""
    return as_text(Image.fromarray(scene(surface, SIDE)))


def _background(surface: str, clip: str | None) -> gr.HTML:
    """Returns an update of the canvas: the first frame of the clip, or an empty floor."""
    if clip is None:
        return gr.HTML(background=_scene(surface))
    with errors_shown():
        _, first = next(Video.open(clip, longest=LONGEST, largest=LARGEST).frames(1.0))
    return gr.HTML(background=as_text(Image.fromarray(first).resize((SIDE, SIDE))))
