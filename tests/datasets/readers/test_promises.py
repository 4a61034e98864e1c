"""Every promise of the readers' `Raises`, of files and images: the type of the error, its words, and its remedy."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from remedies import (
    Make,
    Row,
    array,
    arrays,
    as_json,
    check,
    given,
    image,
    in_base64,
    inside,
    itself,
    nothing,
    of_bytes,
    row,
    sound,
    table,
    text,
)
from safetensors.numpy import save_file
from tiny import drawn_sketch

from weftwork.datasets.readers.atomic import write_errors
from weftwork.datasets.readers.audio_files import audio_rate, audio_seconds, read_audio
from weftwork.datasets.readers.audio_folder import AudioFolder
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.footsteps import FootstepFolder
from weftwork.datasets.readers.images import as_image, as_sketch, read_image, read_sketch
from weftwork.datasets.readers.inline_images import PREFIX, as_text, from_text
from weftwork.datasets.readers.json_object import read_json
from weftwork.datasets.readers.masks import as_mask, read_mask
from weftwork.datasets.readers.posed_views import Frame, PosedViews, read_clip
from weftwork.datasets.readers.sidecar_files import read_array, read_boxes, read_depth
from weftwork.datasets.readers.texts import check_characters

GREY = Image.new("L", (8, 8), 128)
WHITE = Image.new("L", (4, 4), 255)
BIG = Image.new("1", (8001, 8000))
LABELS = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 0]))
LABELS.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
BRIGHT = np.array([[0, 2]], np.float32)
EIGHT_BITS = given(Image.fromarray((BRIGHT * 127).astype(np.uint8)))


IMAGES = [
    row(read_image, nothing, "got no file at .*check the path", image(GREY)),
    row(read_image, text("words"), "unknown format.*export it again, for example as PNG", image(GREY)),
    row(read_image, image(GREY, cut=50), "cannot be read.*expected a whole PNG.*export it again", image(GREY)),
    row(read_image, image(BIG), "8001x8000 pixels, expected at most 64000000; scale it down", image(GREY)),
    row(read_sketch, image(GREY), "one tone all over .*draw some", image(drawn_sketch())),
    row(read_mask, image(Image.new("L", (4, 4))), "black everywhere, expected white where it acts", image(WHITE)),
    row(read_mask, image(Image.new("L", (4, 4), 90)), "got 90 of 255 where it is brightest.*stretch it", image(WHITE)),
    row(
        read_mask,
        image(LABELS),
        "the labels 1, 2 in a palette image.*save a mask per label",
        image(Image.fromarray(np.uint8(255) * (np.asarray(LABELS) == 1))),
    ),
    row(read_mask, nothing, "got no file at .*check the path", image(WHITE)),
    row(
        as_mask, given(Image.fromarray(BRIGHT)), r"from 0.0 to 2.0, expected 0 to 1.0; save it with 8 bits", EIGHT_BITS
    ),
    row(as_image, given(Image.fromarray(BRIGHT)), r"from 0.0 to 2.0 in mode F.*; save it with 8 bits", EIGHT_BITS),
    row(as_image, given(Image.new("L", (0, 1))), "got 0x1 pixels.*; pass another image", given(GREY)),
    row(partial(as_image, GREY), given("HSV"), "mode: got 'HSV', expected one of RGB, L; pass one", given("L")),
    row(partial(as_sketch, drawn_sketch()), given("red"), "ink: got 'red'.*; pass one of these", given("light")),
    row(from_text, given(PREFIX + "%"), "not base64.*write it again", given(as_text(GREY))),
    row(from_text, given(PREFIX + in_base64(b"x")), "unknown format.*export it again", given(as_text(GREY))),
]
BOX = [[0.1, 0.1, 0.5, 0.5]]
BOXES = arrays(times=[0.0], boxes=BOX)
DEPTH = arrays(times=[0.0], depth=[[[1.0]]], metric=True)
AUDIO = sound(np.ones((1000, 2)))


def boxes(path: Path) -> object:
    return read_boxes(path, 0, 9)


def depth(path: Path) -> object:
    return read_depth(path, 0, 9)


FILES = [
    row(read_json, text("{"), "not JSON.*restore it", text("{}")),
    row(read_json, text("[]"), "got a list, expected an object of options; restore it", text("{}")),
    row(lambda one: [check_characters(one)], given("a \ud83d"), "half a character at 3; write it again", given("a")),
    row(boxes, nothing, "numpy cannot read.*save it again", BOXES),
    row(boxes, arrays(times=[0.0]), "got times, expected times, boxes; save it with all", BOXES),
    row(boxes, arrays(times=["a"], boxes=BOX), "got values that are not numbers.*save it again", BOXES),
    row(boxes, arrays(times=[1.0, 0.0], boxes=BOX * 2), "do not increase.*sort", arrays(times=[0.0, 1], boxes=BOX * 2)),
    row(boxes, arrays(times=[0.0], boxes=[[8, 8, 32, 64]]), "divide pixels by width and height", BOXES),
    row(boxes, arrays(times=[0.0], boxes=[[0.1]]), r"expected \[frame, 4\]", BOXES),
    row(
        boxes,
        text('{"times": ["a"]}', "a.json"),
        "no JSON of arrays.*save it again",
        text('{"times": [0], "boxes": [[0, 0, 1, 1]]}', "a.json"),
    ),
    row(depth, arrays(times=[0.0], depth=[[1.0]], metric=True), "expected .frame, height", DEPTH),
    row(depth, arrays(times=[0.0], depth=[[[-1.0]]], metric=True), "check its sign and unit", DEPTH),
    row(read_array, array([np.nan]), "no array of finite numbers.*save it again", array([1.0])),
    row(read_array, of_bytes(pickle.dumps([1]), "a.npy"), "cannot read.*save it again", array([1.0])),
    row(audio_seconds, text("x", "a.wav"), "cannot be read.*expected a WAV file; extract it again", AUDIO),
    row(audio_rate, nothing, "cannot be read.*extract it again", AUDIO),
    row(audio_seconds, sound(np.zeros((0, 2))), "got no samples, expected some audio; extract it again", AUDIO),
    row(audio_seconds, sound(np.zeros((9, 3))), "got 3 channels, expected one or two; mix it down to stereo", AUDIO),
    row(lambda path: read_audio(path, 0, 9), sound(np.zeros((9, 2))), "got 0.09 s of .*copy the file again", AUDIO),
    (
        "got 0.09 s of .*or read less",
        lambda folder: read_audio(sound(np.zeros(9))(folder), 0, 9),
        lambda folder: read_audio(folder / "sound.wav", 0, 0.09),
    ),
    row(lambda path: read_audio(path, 0, 1), sound(np.full(100, np.nan)), "NaN or infinite.*extract it again", AUDIO),
    row(lambda folder: AudioFolder(folder, 1), itself, "got no audio files.*add some", inside(AUDIO)),
    row(
        lambda folder: AudioFolder(folder, 1),
        inside(text("x", "a.wav")),
        "1 files cannot",
        inside(sound([1] * 999, "a.wav")),
    ),
    (
        "at most the longest audio file.*lower it",
        lambda folder: AudioFolder(sound(np.zeros(99))(folder).parent, 9),
        lambda folder: AudioFolder(folder, 0.9),
    ),
    (
        "seconds: got 0, expected a length above 0",
        lambda folder: AudioFolder(AUDIO(folder).parent, 0),
        lambda folder: AudioFolder(folder, 1),
    ),
]


def saved(path: Path) -> Path:
    with write_errors(path):
        save_file({"x": np.zeros(1)}, path)
    return path


def test_remedies_of_writing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot be written .*; make room, or choose another place"):
        saved(tmp_path / "nowhere" / "x.safetensors")
    assert saved(tmp_path / "x.safetensors").is_file()


LENS = "0.5 0.5 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
EYE = np.eye(4)
TURNED = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 2, 1]])


def clip(*lines: str) -> Make:
    """The file of a clip's cameras, with frames at 4 to 11 microseconds beside it."""
    frames = [image(GREY, name=f"clip/{time}.png") for time in range(4, 12)]
    return lambda folder: text("\n".join(["https://example.org", *lines]), "clip.txt")(inside(*frames)(folder))


GOOD = clip(*(f"{time} {LENS}" for time in range(4, 12)))


def clip_folder(folder: Path) -> Path:
    return GOOD(folder).parent


def frame(path: Path) -> Frame:
    return Frame(0, Camera((1, 1), EYE), path.with_suffix(".png"))


def posed(matrix: Any) -> Camera:
    return Camera((1, 1), matrix)


SURFACE = array([[1.0]])
CLIPS = [
    row(read_clip, nothing, "cannot be read", GOOD),
    row(read_clip, clip("1 2"), "line 2: got 2 numbers, expected 19", GOOD),
    row(read_clip, clip("0 " + LENS.replace("0.5", "a", 1)), "expected numbers", GOOD),
    row(read_clip, clip(f"5 {LENS}", f"4 {LENS}"), "got time 4 after 5, expected a later one; sort them", GOOD),
    row(read_clip, clip(f"3 {LENS}"), "got no frame for its times in .*clip", GOOD),
    row(
        lambda root: PosedViews(root, margin=4),
        itself,
        "expected a folder with <clip>.txt files; check the path",
        clip_folder,
    ),
    (
        "got 30 for clips of up to 8 frames, expected over 45; lower it",
        lambda folder: PosedViews(clip_folder(folder), margin=30),
        lambda folder: PosedViews(folder, margin=4),
    ),
    (
        "margin, step: got 3 and 10, expected an even number",
        lambda folder: PosedViews(clip_folder(folder), margin=3),
        lambda folder: PosedViews(folder, margin=2),
    ),
    row(lambda path: frame(path).image, nothing, "got no file at .*check the path", image(GREY)),
    row(lambda path: frame(path).depth, array([1.0]), r"expected numbers \[height, width\]", SURFACE),
    row(lambda path: frame(path).depth, array([[0.0]]), "no finite depth above 0.*check its sign and unit", SURFACE),
    row(lambda path: frame(path).depth, text("x", "array.npy"), "numpy cannot read.*save it again", SURFACE),
    row(lambda focal: Camera(focal, EYE), given((0, 1)), "focal: got .0, 1., expected fractions", given((1, 1))),
    row(posed, given(EYE * np.nan), "NaN or infinite.*check the file that it is from", given(EYE)),
    row(
        posed, given(EYE * np.diag([2, 2, 2, 1])), "rotation and a translation; drop scales and mirrorings", given(EYE)
    ),
    row(posed, given(TURNED), "; drop scales .*, and put the translation in the last column", given(TURNED.T)),
    row(posed, given(EYE[:2]), r"expected \[4, 4\] or \[3, 4\]; pass one matrix", given(EYE[:3])),
    row(
        lambda target: Camera.looking((0, 0, 0), target),
        given((0, 1, 0)),
        "expected another direction than up or down",
        given((0, 1, 1)),
    ),
    row(
        lambda distance: Camera((1, 1), EYE).orbited((0, 0, 1), distance=distance),
        given(0),
        "distance: got 0, expected a factor",
        given(2),
    ),
    row(
        lambda angle: Camera((1, 1), EYE).orbited((0, 0, 1), elevation=angle),
        given(np.inf),
        "elevation: got inf, expected degrees; pass a finite number",
        given(20),
    ),
]


def footsteps(*names: str, **credits: Any) -> Make:
    files = [sound(np.full(99, index), f"wood/{name}.wav") for index, name in enumerate(names)]
    return inside(*files, as_json({f"wood/{name}.wav": entry for name, entry in credits.items()}, "footsteps.json"))


def split(name: str) -> Make:
    return lambda folder: FootstepFolder(footsteps("a", "b", "c")(folder)).of(name)


FOOTSTEPS = [
    row(FootstepFolder, itself, "expected <surface>/<name> that ends in .wav, .*; add some", footsteps("a")),
    row(FootstepFolder, footsteps("a", b={}), "'wood/b.wav', which is not in the folder; remove its", footsteps("a")),
    row(
        FootstepFolder,
        footsteps("a", a={"x": ""}),
        "expected texts named .*; correct",
        footsteps("a", a={"author": ""}),
    ),
    row(lambda folder: FootstepFolder(folder).of("test"), footsteps("a"), "; add some", footsteps("a", "b", "c")),
    ("got 'tset', expected one of train, validation, test; pass one of these", split("tset"), split("test")),
]


@table(*IMAGES, *FILES, *CLIPS, *FOOTSTEPS)
def test_the_promised_error_comes_with_its_words(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
