"""Every promise of the readers' `Raises`: the type of the error, and its words."""

import base64
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from tiny import drawn_sketch

from weftwork.datasets.readers.audio_files import audio_rate, audio_seconds, read_audio
from weftwork.datasets.readers.audio_folder import AudioFolder
from weftwork.datasets.readers.cameras import Camera
from weftwork.datasets.readers.captioned_images import CaptionedImages
from weftwork.datasets.readers.captioned_stream import CaptionedStream
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image, as_sketch, read_image, read_sketch
from weftwork.datasets.readers.inline_images import PREFIX, from_text
from weftwork.datasets.readers.json_object import read_json
from weftwork.datasets.readers.masks import as_mask, read_mask
from weftwork.datasets.readers.pair_folder import PairFolder, PairSample, validate, write_pair_folder
from weftwork.datasets.readers.posed_views import Frame, PosedViews, read_clip
from weftwork.datasets.readers.sidecar_files import read_array, read_boxes, read_depth
from weftwork.datasets.readers.sketchy import Sketchy
from weftwork.datasets.readers.texts import check_characters
from weftwork.datasets.readers.walking_the_maps import WalkingTheMaps

Make = Callable[[Path], Path]


def text(content: str, name: str = "file.txt") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return make


def of_bytes(content: bytes, name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def image(made: Image.Image, cut: int | None = None) -> Make:
    def make(folder: Path) -> Path:
        made.save(folder / "image.png")
        if cut is not None:
            (folder / "image.png").write_bytes((folder / "image.png").read_bytes()[:cut])
        return folder / "image.png"

    return make


def arrays(**values: Any) -> Make:
    def make(folder: Path) -> Path:
        np.savez(folder / "sidecar.npz", **values)
        return folder / "sidecar.npz"

    return make


def array(values: Any) -> Make:
    def make(folder: Path) -> Path:
        np.save(folder / "array.npy", values)
        return folder / "array.npy"

    return make


def sound(samples: Any) -> Make:
    def make(folder: Path) -> Path:
        soundfile.write(folder / "sound.wav", np.asarray(samples, np.float32), 100, subtype="FLOAT")
        return folder / "sound.wav"

    return make


def nothing(folder: Path) -> Path:
    return folder / "nothing"


def itself(folder: Path) -> Path:
    return folder


def inside(*makes: Make) -> Make:
    """The folder, with files in it."""

    def make(folder: Path) -> Path:
        for one in makes:
            one(folder)
        return folder

    return make


def rows(*records: Any) -> Make:
    return inside(image(drawn_sketch()), text("\n".join(map(json.dumps, records)), "metadata.jsonl"))


GREY = Image.new("L", (8, 8), 128)
LABELS = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 0]))
LABELS.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
BOX = [[0.1, 0.1, 0.5, 0.5]]
LINES = "https://example.org\n{}\n"
EYE = np.eye(4)
LENS = "0.5 0.5 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"

IMAGES = [
    (read_image, nothing, "got no file at .*check the path"),
    (read_image, text("words"), "unknown format.*export it again"),
    (read_image, image(GREY, cut=50), "cannot be read.*expected a whole PNG"),
    (lambda path: read_image(path, max_pixels=63), image(GREY), "8x8 pixels, expected at most 63; scale it down"),
    (read_sketch, image(GREY), "one tone all over .*draw some"),
    (read_mask, image(Image.new("L", (4, 4))), "black everywhere.*use weight=0"),
    (read_mask, image(Image.new("L", (4, 4), 90)), "got 90 of 255 where it is brightest.*stretch it"),
    (read_mask, image(LABELS), "the labels 1, 2 in a palette image.*save a mask per label"),
    (read_mask, nothing, "got no file at"),
    (lambda _: as_sketch(GREY, "red"), itself, "ink: got 'red', expected 'auto', 'dark' or 'light'"),  # pyright: ignore
    (lambda _: as_image(Image.new("L", (0, 1))), itself, "got 0x1 pixels"),
    (lambda _: as_mask(Image.fromarray(np.full((2, 2), -1.0, np.float32))), itself, "black everywhere|got values"),
    (lambda _: from_text(PREFIX + "%"), itself, "not base64.*write it again"),
    (lambda _: from_text(PREFIX + base64.b64encode(b"x").decode()), itself, "unknown format"),
]
FILES = [
    (read_json, text("{"), "not JSON.*restore it"),
    (read_json, text("[]"), "got a list, expected an object of options"),
    (lambda _: check_characters("a \ud83d"), itself, "half a character at 3; write it again"),
    (lambda path: read_boxes(path, 0, 9), nothing, "numpy cannot read.*save it again"),
    (lambda path: read_boxes(path, 0, 9), arrays(times=[0.0]), "got times, expected times, boxes; save it with all"),
    (lambda path: read_boxes(path, 0, 9), arrays(times=[1.0, 0.0], boxes=BOX * 2), "do not increase.*sort them"),
    (lambda path: read_boxes(path, 0, 9), arrays(times=[0.0], boxes=[[5, 5, 9, 9]]), "divide pixels by width and"),
    (lambda path: read_boxes(path, 0, 9), arrays(times=[0.0], boxes=[[0.1]]), r"expected \[frame, 4\]"),
    (lambda path: read_boxes(path, 0, 9), text('{"times": ["a"]}', "a.json"), "no JSON of arrays.*save it again"),
    (lambda path: read_depth(path, 0, 9), arrays(times=[0.0], depth=[[1.0]], metric=True), "expected .frame, height"),
    (
        lambda path: read_depth(path, 0, 9),
        arrays(times=[0.0], depth=[[[-1.0]]], metric=True),
        "check its sign and unit",
    ),
    (read_array, array([np.nan]), "no array of finite numbers.*save it again"),
    (read_array, of_bytes(pickle.dumps([1]), "a.npy"), "cannot read|no array"),
    (audio_seconds, text("x", "a.wav"), "cannot be read.*expected a WAV file"),
    (audio_rate, nothing, "cannot be read"),
    (audio_seconds, sound(np.zeros((0, 2))), "got no samples, expected some audio; extract it again"),
    (audio_seconds, sound(np.zeros((9, 3))), "got 3 channels, expected one or two; mix it down"),
    (lambda path: read_audio(path, 0, 9), sound(np.zeros((9, 2))), "got 0.09 s of audio .*copy the file again"),
    (lambda path: read_audio(path, 0, 0.1), sound(np.full((10, 2), np.nan)), "NaN or infinite samples"),
]
FOLDERS = [
    (lambda folder: AudioFolder(folder, 1), itself, "got no audio files, expected names that end in"),
    (lambda folder: AudioFolder(folder, 0), inside(sound(np.zeros(9))), "seconds: got 0, expected a length above 0"),
    (lambda folder: AudioFolder(folder, 9), inside(sound(np.zeros(9))), "at most the longest audio file.*lower it"),
    (lambda folder: AudioFolder(folder, 1), inside(text("x", "a.wav")), "1 files cannot be used"),
    (PairFolder, itself, "got 1 problems in metadata.jsonl.*call validate"),
    (PairFolder, rows({"file_name": "image.png", "pairs": [{}]}), "neither a sketch nor a text"),
    (PairFolder, rows({"file_name": "image.png", "pairs": [{"text": "a \ud83d"}]}), "half a character at 3"),
    (lambda folder: write_pair_folder([], folder / "new"), itself, "samples: got none"),
    (lambda folder: write_pair_folder([], folder), inside(text("x")), "which is not empty.*choose another name"),
    (lambda _: PairSample(GREY, (None,), (None,), "", None, "7"), itself, "7: got pair 0 empty"),
    (Sketchy, itself, "got no train_sketchy.json or .*download it"),
    (Sketchy, inside(text("{}", "train_sketchy.json")), "images: got no folder .*download and unpack it"),
    (CaptionedImages.from_folder, nothing, "got no folder at .*check the path"),
    (CaptionedImages.from_folder, itself, "metadata.jsonl"),
    (CaptionedImages.from_folder, rows({"file_name": "image.png", "style": "a"}), "caption_column: got the columns"),
    (CaptionedImages.from_folder, rows({"file_name": "image.png", "text": "a"}), "style_column: got the columns"),
    (CaptionedImages.from_folder, rows({"file_name": "image.png", "text": "", "style": "a"}), "expected a text; write"),
    (CaptionedImages.from_name, nothing, "nothing"),
    (lambda path: CaptionedStream.from_name(path, style="a"), nothing, "nothing"),
    (PosedViews, itself, "expected a folder with <clip>.txt files; check the path"),
    (lambda folder: PosedViews(folder, margin=3), itself, "margin, step: got 3 and 10, expected an even number"),
    (lambda folder: WalkingTheMaps(folder, "train"), itself, "cannot be read|got no|expected"),
]
CLIPS = [
    (read_clip, nothing, "cannot be read"),
    (read_clip, text(LINES.format("1 2")), "line 2: got 2 numbers"),
    (read_clip, text(LINES.format("0 " + LENS.replace("0.5", "a", 1))), "expected numbers"),
    (read_clip, text(LINES.format(f"5 {LENS}\n4 {LENS}")), "got time 4 after 5, expected a later one; sort them"),
    (read_clip, text(LINES.format(f"5 {LENS}")), "5"),
    (lambda path: Frame(0, Camera((1, 1), EYE), path.with_suffix(".png")).image, nothing, "got no file at"),
    (lambda path: Frame(0, Camera((1, 1), EYE), path.with_suffix(".png")).depth, array([1.0]), r"expected numbers \[h"),
    (
        lambda path: Frame(0, Camera((1, 1), EYE), path.with_suffix(".png")).depth,
        array([[0.0]]),
        "no finite depth above",
    ),
    (lambda _: Camera((0, 1), EYE), itself, "focal: got .0, 1., expected fractions"),
    (lambda _: Camera((1, 1), EYE * np.nan), itself, "NaN or infinite"),
    (lambda _: Camera((1, 1), EYE * 2), itself, "not a rigid motion .*drop scales"),
    (lambda _: Camera.looking((0, 0, 0), (0, 1, 0)), itself, "expected another direction than up or down"),
    (lambda _: Camera((1, 1), EYE).orbited((0, 0, 1), distance=0), itself, "distance: got 0, expected a factor"),
]
TABLE = [*IMAGES, *FILES, *FOLDERS, *CLIPS]


@pytest.mark.parametrize(("read", "make", "words"), TABLE, ids=[str(index) for index in range(len(TABLE))])
def test_the_promised_error_comes_with_its_words(read: Any, make: Make, words: str, tmp_path: Path) -> None:
    given = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"(?s){words}") as caught:
        read(given)
    assert isinstance(caught.value, ValueError) and "Traceback" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_validation_lists_what_reading_refuses(tmp_path: Path) -> None:
    make = rows({"file_name": "image.png", "pairs": [{"sketch": "image.png", "region": "image.png"}]})
    assert validate(make(tmp_path)) == []
    Image.new("L", (8, 8), 0).save(tmp_path / "image.png")
    problems = [str(one) for one in validate(tmp_path)]
    assert len(problems) == 2 and all("line 1" in one and "image.png" in one for one in problems)
