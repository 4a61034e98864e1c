"""Every promise of the `Raises` of readers of datasets: the type of the error, its words, and its remedy."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from remedies import (
    Make,
    Row,
    array,
    as_json,
    check,
    given,
    image,
    inside,
    itself,
    nothing,
    of_bytes,
    row,
    sound,
    table,
    text,
)
from tiny import drawn_sketch

from weftwork.datasets.readers.captioned_images import CaptionedImages
from weftwork.datasets.readers.captioned_stream import CaptionedStream
from weftwork.datasets.readers.pair_folder import PairFolder, PairSample, validate, write_pair_folder
from weftwork.datasets.readers.sketchy import Sketchy
from weftwork.datasets.readers.sketchy import validate as validate_sketchy
from weftwork.datasets.readers.walking_the_maps import WalkingTheMaps

GREY = Image.new("L", (8, 8), 128)
NAME = "image.png"
NO_TEXT = of_bytes(b"\xff", "metadata.jsonl")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def rows(*records: Any) -> Make:
    """A folder with an image and these lines; one that is no text is written as JSON."""
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    return inside(image(drawn_sketch()), text("\n".join(lines), "metadata.jsonl"))


def pairs(*entries: Any, **changes: Any) -> dict[str, Any]:
    return {"file_name": NAME, "pairs": list(entries), **changes}


RED, BOOTS = {"text": "red"}, {"text": "boots"}
SAMPLE = PairSample(GREY, (None,), ("red",), "", None, "7")
WRONG_LINES: list[tuple[list[Any], str, list[Any]]] = [
    ([], "got no lines, expected one per image; write some", [pairs()]),
    ([pairs(RED), pairs(BOOTS)], "as on line 1, expected each image once; join the lines", [pairs(RED, BOOTS)]),
    (["{"], "which is not JSON .*, expected one object a line; correct it", [pairs()]),
    (["[]"], "the line: got .*, expected an object with file_name, caption, pairs; write {", [pairs()]),
    ([pairs(style="a")], "got the unknown key 'style'.*; rename or drop it", [pairs(caption="a")]),
    ([pairs(caption=3)], "caption: got 3, expected a text; quote it or leave it out", [pairs(caption="3")]),
    ([{"file_name": NAME}], r"pairs: got None, expected a list of pairs; write \[\] for none", [pairs()]),
    ([pairs(RED, RED)], r"pairs\[1\]: got the same as pairs\[0\].*; drop one", [pairs(RED)]),
    ([pairs({})], "neither a sketch nor a text.*; add one or drop the pair", [pairs()]),
    ([pairs({"text": ""})], "got '', expected words; write some or leave it out", [pairs({"sketch": NAME})]),
    ([pairs({"text": "a \ud83d"})], "half a character at 3; write it again", [pairs({"text": "a"})]),
    ([pairs(file_name=3)], "got 3, expected the path of an image; write it from the folder on", [pairs()]),
    ([pairs(file_name="../a.png")], "which leaves the folder.*; copy the image there", [pairs()]),
    ([pairs(file_name="Image.png")], "which is no file.*; check the path and its capitals", [pairs()]),
    (
        [pairs({**RED, "region": [0.5, 0, 0.1, 1]})],
        r"region: got .*, expected .left, top, right, bottom. in 0 to 1, in order; correct it",
        [pairs({**RED, "region": [0.1, 0, 0.5, 1]})],
    ),
]


def sample(**parts: Any) -> PairSample:
    return PairSample(
        **{"image": GREY, "sketches": (None,), "caption": "", "global_sketch": None, "name": "7", **parts}
    )


def new(folder: Path) -> Path:
    return write_pair_folder([SAMPLE], folder / "new")


PAIRS = [
    *(row(PairFolder, rows(*wrong), words, rows(*right)) for wrong, words, right in WRONG_LINES),
    row(PairFolder, itself, "got no such file in .*; write one", rows(pairs())),
    row(PairFolder, inside(NO_TEXT), "got other bytes in .*; save it as UTF-8", rows(pairs())),
    (
        r"got 1 problems in .*; call validate\(folder\) for all",
        lambda folder: PairFolder(rows("{")(folder)),
        lambda folder: next(iter(validate(folder))),
    ),
    (
        "as many of each; put None where a pair lacks one",
        lambda _: sample(texts=("a", "b")),
        lambda _: sample(texts=("a", "b"), sketches=(None, None)),
    ),
    ("7: got pair 0 empty.*; drop it", lambda _: sample(texts=(None,)), lambda _: sample(texts=(), sketches=())),
    ("samples: got none.*; pass samples", lambda folder: write_pair_folder([], folder / "new"), new),
    (
        "got a file or a folder with files, expected none; name another, or remove it",
        lambda folder: write_pair_folder([SAMPLE], text("x")(folder).parent),
        new,
    ),
]
JACKET = {"id": 1, "image_id": 5, "category_name": "jacket", "description": "red"}
LAYOUT = inside(
    *(
        image(drawn_sketch(), name=f"train/{part}.png")
        for part in ("images/5/5", "full_sketches/5/5", "partial_sketches/5/1")
    )
)


def sketchy(
    *annotations: Any, name: str = "train_sketchy.json", images: Any = ({"id": 5, "file_name": "5.png"},)
) -> Make:
    return inside(LAYOUT, as_json({"images": list(images), "annotations": list(annotations)}, name))


GARMENT = sketchy(JACKET)
WRONG_GARMENTS: list[tuple[Make, str]] = [
    (sketchy({**JACKET, "id": "../1"}), "id: got '../1', expected a number or the name of a file; correct it"),
    (sketchy(3), "got a int, expected an object with id, image_id; correct it"),
    (sketchy({**JACKET, "category_name": 3}), "category_name: got 3, expected the name of a garment; quote it"),
    (sketchy({**JACKET, "description": 3}), "description: got 3, expected a text; quote it"),
    (sketchy({**JACKET, "description": "\ud83d"}), "half a character at 1; write it again"),
    (sketchy({**JACKET, "image_id": 6}), "expected the id of one of the images; drop it or add its image"),
    (sketchy(JACKET, JACKET), "got 1 a second time, expected each once; drop one"),
]
SKETCHY = [
    *(row(Sketchy, wrong, words, GARMENT) for wrong, words in WRONG_GARMENTS),
    row(Sketchy, inside(LAYOUT), r"got no train_sketchy.json or .*; download it", GARMENT),
    (
        "expected one of them; .* or pass annotations=",
        lambda folder: Sketchy(sketchy(JACKET, name="my.json")(folder)),
        lambda folder: Sketchy(folder, annotations="my.json"),
    ),
    row(Sketchy, inside(LAYOUT, text("{", "train_sketchy.json")), "got no JSON.*; download it again", GARMENT),
    row(Sketchy, inside(LAYOUT, text("{}", "train_sketchy.json")), "got no list 'images'.*; check which file", GARMENT),
    row(Sketchy, inside(text("{}", "train_sketchy.json")), "images: got no folder .*; download and unpack it", GARMENT),
    (
        "or pass another split",
        lambda folder: Sketchy(inside(GARMENT, as_json({}, "val_sketchy.json"))(folder), "val"),
        lambda folder: Sketchy(folder, "train"),
    ),
    (
        "expected some; drop fewer categories",
        lambda folder: Sketchy(GARMENT(folder), drop=("jacket",)),
        lambda folder: Sketchy(folder, drop=()),
    ),
    row(
        lambda kind: Sketchy(kind[0], global_sketch=kind[1]),
        lambda folder: (GARMENT(folder), "none"),
        "global_sketch: got 'none', expected one of composed, full; pass one of these",
        lambda folder: (folder, "full"),
    ),
    (
        r"got 1 wrong rows.*; call validate\(root, split\) for all",
        lambda folder: Sketchy(sketchy(3)(folder)),
        lambda folder: next(iter(validate_sketchy(folder))),
    ),
]


def test_a_garment_without_words_is_listed(tmp_path: Path) -> None:
    wordless = sketchy({**JACKET, "description": None})
    assert "expected words; write some" in str(validate_sketchy(wordless(tmp_path))[0])
    assert validate_sketchy(GARMENT(tmp_path)) == []


LINE = {"file_name": NAME, "text": "a fox", "style": "ink"}


def fox(**columns: Any) -> datasets.Dataset:
    """A dataset of one row; columns whose value is an image have the feature of images."""
    values = {name: value for name, value in ({"image": GREY, "text": "a", "style": "ink"} | columns).items() if value}
    features = {
        name: datasets.Value("string") if isinstance(one, str) else datasets.Image() for name, one in values.items()
    }
    return datasets.Dataset.from_dict(
        {name: [one] for name, one in values.items()}, features=datasets.Features(features)
    )


def by_column(words: str, columns: dict[str, Any], wrong: dict[str, Any], right: dict[str, Any]) -> Row:
    return words, lambda _: CaptionedImages(fox(**columns), **wrong), lambda _: CaptionedImages(fox(**columns), **right)


def cast(folder: Path) -> datasets.Dataset:
    return fox(image=str(folder / NAME)).cast_column("image", datasets.Image())


def stored(folder: Path) -> Path:
    fox().save_to_disk(folder / "saved")
    datasets.DatasetDict({"train": fox()}).save_to_disk(folder / "splits")
    (folder / "files").mkdir()
    fox().to_parquet(folder / "files" / "part-0.parquet")
    return folder


CAPTIONED = [
    row(CaptionedImages.from_folder, nothing, "got no folder at .*check the path", rows(LINE)),
    row(CaptionedImages.from_folder, itself, "got neither of .*; list the images in one", rows(LINE)),
    (
        "got both of .*; remove one",
        lambda folder: CaptionedImages.from_folder(inside(rows(LINE), text("file_name", "metadata.csv"))(folder)),
        lambda folder: [(folder / "metadata.csv").unlink(), CaptionedImages.from_folder(folder)],
    ),
    row(CaptionedImages.from_folder, rows(), "got no rows, expected one per image; write some", rows(LINE)),
    row(
        CaptionedImages.from_folder,
        rows({"text": "a"}),
        "expected file_name, text and style in it; add them",
        rows(LINE),
    ),
    row(CaptionedImages.from_folder, inside(NO_TEXT), "not UTF-8.*; save it as UTF-8", rows(LINE)),
    row(CaptionedImages.from_folder, rows("{"), "got no JSON .*expected one object a line; correct it", rows(LINE)),
    row(CaptionedImages.from_folder, rows(LINE, "{"), "got rows that cannot be read .*; correct them", rows(LINE)),
    row(CaptionedImages.from_folder, rows({**LINE, "text": " "}), "expected a text; write one or drop", rows(LINE)),
    row(CaptionedImages.from_folder, rows({**LINE, "file_name": "9"}), "check the path and its capitals", rows(LINE)),
    row(CaptionedImages.from_folder, rows(LINE, {**LINE, "file_name": None}), "add it or drop the row", rows(LINE)),
    row(CaptionedImages, given(fox().select([])), "; add images or choose another split", given(fox())),
    by_column("got image, art .*; pass image_column", {"art": GREY}, {}, {"image_column": "art"}),
    by_column(
        "got 'a', expected one of .*; pass one of these", {}, {"caption_column": "a"}, {"caption_column": "text"}
    ),
    by_column("; pass caption_column", {"text": None, "words": "a"}, {}, {"caption_column": "words"}),
    by_column("; pass style_column, or", {"style": None, "look": "a"}, {}, {"style_column": "look"}),
    by_column("or style for one name for all", {"style": None}, {}, {"style": "ink"}),
    by_column("the column 'style', expected one of them; leave style= out", {}, {"style": "ink"}, {}),
    by_column("style: got ' ', expected a name; write one", {"style": None}, {"style": " "}, {"style": "ink"}),
    (
        r"got none with an Image feature .*; cast one with cast_column\(NAME, Image\(\)\)",
        lambda folder: CaptionedImages(fox(image=str(image(GREY)(folder)))),
        lambda folder: CaptionedImages(cast(folder)),
    ),
    (
        r"; cast it with cast_column\('image', Image\(\)\)",
        lambda folder: CaptionedImages(fox(image=str(image(GREY)(folder))), image_column="image"),
        lambda folder: CaptionedImages(cast(folder), image_column="image"),
    ),
    row(
        CaptionedImages.from_name,
        nothing,
        "got no folder at .*; check the path",
        lambda folder: stored(folder) / "saved",
    ),
    (
        "cannot be opened .Unknown split.*; check it, its split and its config_name",
        lambda folder: CaptionedImages.from_name(stored(folder) / "files", "test"),
        lambda folder: CaptionedImages.from_name(folder / "files", "train"),
    ),
    (
        "split: got 'test', expected one of train; pass one of these",
        lambda folder: CaptionedImages.from_name(stored(folder) / "splits", "test"),
        lambda folder: CaptionedImages.from_name(folder / "splits", "train"),
    ),
    row(
        partial(CaptionedStream.from_name, styles=("ink",)),
        nothing,
        "got no folder at .*; check the path",
        lambda folder: stored(folder) / "files",
    ),
    (
        "styles: got none for the column 'style', expected its names; pass them, in order",
        lambda _: CaptionedStream(fox().to_iterable_dataset()),
        lambda _: CaptionedStream(fox().to_iterable_dataset(), styles=("ink",)),
    ),
]


def test_a_style_that_is_added_is_streamed(caplog: pytest.LogCaptureFixture) -> None:
    assert not list(CaptionedStream(fox().to_iterable_dataset(), styles=("neon",)))
    assert "got 'ink', expected one of neon; add it to styles" in caplog.text
    assert list(CaptionedStream(fox().to_iterable_dataset(), styles=("neon", "ink")))


def walk(metadata: str = '{"processed": {"video_duration": 2}}', samples: int = 200, frames: int = 8) -> Make:
    images = [image(GREY, name=f"one/frames_4fps/{index}.jpg") for index in range(frames)]
    audio = sound(np.ones(samples), "one/audio/one.wav")
    return inside(audio, *images, text(metadata, "one/one.metadata.json"), text("one", "train.txt"))


def chunks(root: Path) -> WalkingTheMaps:
    return WalkingTheMaps(root, root / "train.txt", envelopes=root)


def of_length(seconds: float) -> Make:
    return lambda folder: WalkingTheMaps(walk()(folder), folder / "train.txt", seconds=seconds)


WALKS = [
    ("got 0 and None, expected finite numbers above 0; correct them", of_length(0), of_length(2)),
    ("got inf and None, expected finite numbers above 0; correct them", of_length(np.inf), of_length(2)),
    ("got 9, expected at most the longest video of .*; lower it", of_length(9), of_length(2)),
    row(chunks, itself, "split: got .*, which cannot be read .*, expected a text file", walk()),
    row(
        chunks, inside(walk(), text("\n", "train.txt")), "got no names in .*, expected one on each line; write", walk()
    ),
    row(chunks, inside(walk(), text("two", "train.txt")), "sample 'two', expected a folder of .*; check root", walk()),
    row(chunks, walk("{}"), r'KeyError .*, expected {"processed": {"video_duration": seconds}}; write it', walk()),
    row(chunks, walk('{"processed": {"video_duration": -1}}'), "expected seconds above 0; correct it", walk()),
    row(chunks, walk(samples=100), "got 1 s of audio for 2 s of video, expected as much; extract it again", walk()),
    row(
        lambda root: chunks(root)[0].frame_paths,
        walk(frames=7),
        "got 7 images, expected 8 or more; extract them again at 4 fps",
        walk(),
    ),
    row(
        lambda root: chunks(root)[0].envelope,
        inside(walk(), array(np.ones((2, 60)), "one_0_60.npy")),
        r"got shape \(2, 60\), expected \[frame\]; save one envelope in a file",
        inside(walk(), array(np.ones(60), "one_0_60.npy")),
    ),
]


@table(*PAIRS, *SKETCHY, *CAPTIONED, *WALKS)
def test_the_promised_error_comes_with_its_words(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


def test_validation_lists_what_reading_refuses(tmp_path: Path) -> None:
    make = rows({"file_name": "image.png", "pairs": [{"sketch": "image.png", "region": "image.png"}]})
    assert validate(make(tmp_path)) == []
    Image.new("L", (8, 8), 0).save(tmp_path / "image.png")
    problems = [str(one) for one in validate(tmp_path)]
    assert len(problems) == 2 and all("line 1" in one and "image.png" in one for one in problems)
