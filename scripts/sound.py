"""Generate spatial audio for a video from boxes, depth and audio prompts.

    weftwork sound clip.mp4 --detector motion --output outputs/clip
    weftwork sound clip.mp4 --boxes clip.boxes.npz --depth clip.depth.npz --output outputs/clip
    weftwork sound --boxes path.npz --loudness steps.wav --seconds 6 --output outputs/walk

Writes NAME.wav, with a video NAME.mp4 (or .mkv), and NAME.png: a plot of the pan over time with the boxes.
The format of boxes and depth files is described in `datasets.readers.sidecar_files`.
"""

import argparse
import logging
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weftwork.attention_processors.core.records import check_guidance
from weftwork.datasets.readers.errors import UserError, check_counts
from weftwork.scripts.outputs import naming_replaced

if TYPE_CHECKING:
    from weftwork.attention_processors.audio.conditions import BoxTrack, OverTime
    from weftwork.pipelines.audio.output import AudioOutput
    from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
    from weftwork.pipelines.audio.videos import Video

logger = logging.getLogger(__name__)

PROMPT: Final = "a person walks"
INPUTS: Final = ("boxes", "depth", "loudness", "like")
"""Options of files that audio follows, beside a video."""

SUFFIXES: Final = (".wav", ".mp4", ".mkv", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork sound`."""
    parser.add_argument("video", nargs="?", type=Path, help="video to copy with the new audio")
    parser.add_argument("--boxes", type=Path, help="NPZ with times and boxes, of one or several tracks")
    parser.add_argument("--keyframes", action="store_true", help="interpolate between boxes, however far apart in time")
    parser.add_argument(
        "--detector",
        help="finds the walkers of the video: motion (of a camera that stands still), or package.module:name of a "
        "function from a frame to boxes by track; each is generated separately",
    )
    parser.add_argument("--depth", type=Path, help="NPZ with times, depth, metric")
    parser.add_argument("--loudness", type=Path, help="audio whose loudness to follow")
    parser.add_argument("--like", type=Path, help="audio prompt")
    parser.add_argument("--audio_encoder", help="CLAP folder or Hub id, for modules trained with CLAP")
    parser.add_argument("--prompt", help=f"text prompt (default: {PROMPT}, all that the shipped modules know)")
    parser.add_argument(
        "--apart", action="store_true", help="generate each track separately, while it is seen, and sum them"
    )
    parser.add_argument(
        "--balance",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with --detector or --apart: place each voice at the side of its boxes by the gains of left and right",
    )
    parser.add_argument("--model", help="Stable Audio folder (default: the shipped tiny-audio)")
    parser.add_argument("--spatial", help="folder of trained modules (default: the shipped spatial-audio)")
    parser.add_argument("--device", default="cpu", help="device of the model, for example cuda (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="length (default: the video's, or up to the last box)")
    parser.add_argument("--num_inference_steps", type=int, default=50)
    parser.add_argument("--guidance_scale", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/sound"), help="name without suffix")


def run(arguments: argparse.Namespace) -> None:
    """Writes audio, video and plot."""
    import torch

    from weftwork.attention_processors.encoders.vocabulary import warn_of_unknown_words
    from weftwork.pipelines.audio.videos import Video
    from weftwork.pipelines.audio.voices import mixed, pan_correlation

    _check(arguments)
    video = None if arguments.video is None else Video.open(arguments.video)
    if video is not None:
        _ = video.container  # refuses frames that cannot be copied, before the work
    seconds = video.seconds if arguments.seconds is None and video is not None else arguments.seconds
    shared, tracks = _conditions(arguments)
    if video is not None:
        video.check([*shared, *tracks])
    voices = [[track, *shared] for track in tracks] if arguments.apart else []
    if video is not None and arguments.detector:
        voices = [[*found, *shared] for found in _found(arguments, video)]
    if voices:
        voices, tracks = _begun(voices, seconds)
    pipe, prompt = _pipeline(arguments), arguments.prompt or PROMPT
    warn_of_unknown_words(pipe.tokenizer, prompt, "prompt")
    options = {
        "num_inference_steps": arguments.num_inference_steps,
        "guidance_scale": arguments.guidance_scale,
        "generator": torch.Generator().manual_seed(arguments.seed),
    }
    if voices:
        end = max(float(track.times[-1]) for track in tracks)
        length = end if seconds is None else seconds
        out = mixed(pipe, voices, prompt, seconds=length, balance=arguments.balance, **options)
        source = ", placed by gains" if arguments.balance else ""
        for track, voice in zip(tracks, out.voices, strict=True):
            span = f"{track.times[0]:.1f} to {track.times[-1]:.1f} s"
            follows = pan_correlation(voice, out.sample_rate, track)
            print(f"{span}: correlation of sides, heard and seen: {follows:.2f}{source}")
    else:
        out = pipe([[*tracks, *shared]], prompt, seconds=seconds, **options)
    with naming_replaced(arguments.output.with_name(f"{arguments.output.name}{suffix}") for suffix in SUFFIXES):
        print(", ".join(map(str, _write(arguments.output, out, video, tracks))))


def _check(arguments: argparse.Namespace) -> None:
    """Raises for numbers out of range, and for options that have no effect together."""
    check_counts(num_inference_steps=arguments.num_inference_steps)
    check_guidance(arguments.guidance_scale)
    if not any(getattr(arguments, name) for name in ("video", *INPUTS)) and arguments.prompt is None:
        raise UserError(f"sound: got nothing to follow; pass a video, --prompt or one of --{', --'.join(INPUTS)}")
    if arguments.detector and (arguments.video is None or arguments.boxes is not None):
        raise UserError("detector: got it without a video, or beside --boxes; pass a video and no boxes with it")
    for name, other in (("keyframes", "boxes"), ("apart", "boxes"), ("audio_encoder", "like")):
        if getattr(arguments, name) and getattr(arguments, other) is None:
            raise UserError(f"{name}: has no effect without --{other}; pass it, or leave it out")
    if not (arguments.balance or arguments.detector or arguments.apart):
        raise UserError("balance: has no effect without --detector or --apart; pass one of them, or leave it out")


def _found(arguments: argparse.Namespace, video: "Video") -> "list[list[OverTime]]":
    """Returns the track of each walker in a video and, unless loudness is given, the envelope of its gait."""
    from weftwork.pipelines.audio.gait import gait
    from weftwork.pipelines.audio.motion import detector_named, smoothed, walkers

    found = walkers(video, detector_named(arguments.detector, video))
    return [[smoothed(track), *([] if arguments.loudness else [gait(track)])] for track in found]


def _begun(voices: "list[list[OverTime]]", seconds: float | None) -> "tuple[list[list[OverTime]], list[BoxTrack]]":
    """Returns the voices whose track begins before the end, and these tracks."""
    from weftwork.attention_processors.audio.conditions import BoxTrack

    end = math.inf if seconds is None else seconds
    begun = [(voice, one) for voice in voices for one in voice[:1] if isinstance(one, BoxTrack) and one.times[0] < end]
    if not begun:
        raise UserError(f"seconds: got {seconds}, before any track begins; raise it")
    if len(begun) < len(voices):
        logger.warning("left out %d of %d tracks, which begin after %g s", len(voices) - len(begun), len(voices), end)
    return [voice for voice, _ in begun], [track for _, track in begun]


def _write(name: Path, out: "AudioOutput", video: "Video | None", tracks: "Sequence[BoxTrack]") -> list[Path]:
    """Writes audio, video and plot, and returns their paths."""
    written = [out.save(name.with_name(f"{name.name}.wav"))]
    if video is not None:
        written.append(video.with_audio(out.audio, out.sample_rate, name.with_name(f"{name.name}{video.container}")))
    if find_spec("matplotlib") is not None:
        from weftwork.pipelines.audio.plots import plot_audio

        written.append(plot_audio(out.audio, out.sample_rate, tracks, name.with_name(f"{name.name}.png")))
    else:
        print("no plot: matplotlib is not installed; pip install matplotlib")
    return written


def _conditions(arguments: argparse.Namespace) -> "tuple[list[OverTime], list[BoxTrack]]":
    """Returns conditions that all tracks share, and the tracks."""
    from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, Envelope
    from weftwork.datasets.readers.audio_files import audio_rate, audio_seconds, read_audio
    from weftwork.datasets.readers.sidecar_files import read_boxes, read_depth

    shared: list[OverTime] = []
    if arguments.depth is not None:
        found = read_depth(arguments.depth, 0.0, float("inf"))
        shared.append(DepthClip(found.times, found.depth, metric=found.metric))
    for path, kind in ((arguments.loudness, Envelope.from_audio), (arguments.like, None)):
        if path is not None:
            rate = audio_rate(path)
            audio = read_audio(path, 0.0, audio_seconds(path))
            shared.append(kind(audio, rate) if kind else AudioPrompt(audio=audio, sample_rate=rate))
    tracks = [] if arguments.boxes is None else read_boxes(arguments.boxes, 0.0, float("inf"))
    track_of = BoxTrack.along if arguments.keyframes else BoxTrack
    return shared, [track_of(track.times, track.boxes) for track in tracks]


def _pipeline(arguments: argparse.Namespace) -> "VideoToAudioPipeline":
    from weftwork.attention_processors.encoders.audio_statistics import AudioStatistics
    from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
    from weftwork.pipelines.core.hardware import device_named
    from weftwork.pretrained import model_name, shipped

    pipe = VideoToAudioPipeline.from_pretrained(arguments.model or shipped("tiny-audio"), use_safetensors=True)
    pipe.load_adapter(arguments.spatial or shipped("spatial-audio"), "spatial")
    pipe.to(device_named(arguments.device))
    assert pipe.spatial is not None
    trained_with = (pipe.spatial.config.get("training") or {}).get("audio_encoder")
    if arguments.like and trained_with != (arguments.audio_encoder and model_name(arguments.audio_encoder)):
        logger.warning("audio_encoder: the modules were trained with %s", trained_with or "statistics of latents")
    if arguments.audio_encoder:
        from weftwork.attention_processors.encoders.audio import ClapEncoder

        pipe.set_encoders(audio=ClapEncoder.from_pretrained(arguments.audio_encoder, pipe.device))
    else:
        pipe.set_encoders(audio=AudioStatistics(pipe.vae))
    return pipe
