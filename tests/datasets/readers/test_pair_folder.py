"""The plain format: what is written is read back, and everything wrong with a folder is found and named."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from weftwork.datasets.readers.images import compose_sketches
from weftwork.datasets.readers.pair_folder import PairFolder, PairSample, Problem, report, validate, write_pair_folder


def drawing(left: int) -> Image.Image:
    image = Image.new("L", (32, 32), 255)
    ImageDraw.Draw(image).rectangle((left, 8, left + 8, 24), outline=0)
    return image


def photo(tone: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (tone, 0, 255 - tone))


SAMPLES = [
    PairSample(
        photo(10), (drawing(2), None), ("a red jacket", "»black«\u2028skirt"), "two", drawing(2), "images/000000.png"
    ),
    PairSample(photo(20), (), (), "", None, "images/000001.png"),
    PairSample(
        photo(30),
        (drawing(4), drawing(20), drawing(9)),
        (None, "boots", "hat"),
        "three",
        compose_sketches([drawing(4), drawing(20), drawing(9)]),
        "images/000002.png",
        regions=((0.0, 0.25, 0.5, 1.0), drawing(3), None),
    ),
]


def content(value: Any) -> Any:
    return (value.mode, value.size, value.tobytes()) if isinstance(value, Image.Image) else value


def contents(sample: PairSample) -> list[Any]:
    parts = [
        sample.image,
        *sample.sketches,
        *sample.texts,
        sample.caption,
        sample.global_sketch,
        sample.name,
        *sample.regions,
    ]
    return [content(part) for part in parts]


def lines(folder: Path, *rows: Any) -> Path:
    """A folder with these lines and a few images; a line that is no text is written as JSON."""
    for name in ("images", "sketches", "out/images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    photo(1).save(folder / "images/1.png")
    photo(2).save(folder / "images/2.png")
    drawing(3).save(folder / "sketches/1.png")
    ImageOps.invert(drawing(3)).save(folder / "sketches/light.png")
    Image.new("L", (8, 8), 255).save(folder / "sketches/blank.png")
    (folder / "sketches/short.png").write_bytes((folder / "sketches/1.png").read_bytes()[:60])
    photo(3).save(folder.parent / "outside.png")
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder


def row(*pairs: Any, **changes: Any) -> dict[str, Any]:
    return {"file_name": "images/1.png", "caption": "one", "pairs": list(pairs), **changes}


# Writing and reading


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = write_pair_folder(SAMPLES, tmp_path / "new" / "pairs")
    pairs = PairFolder(folder)
    assert len(pairs) == len(SAMPLES)
    for read, written in zip((pairs[index] for index in range(len(pairs))), SAMPLES, strict=True):
        assert contents(read) == contents(written)
    assert validate(folder) == [] and report(validate(folder)) == "no problems"


def test_writing_twice_gives_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    first, second = (write_pair_folder(SAMPLES, tmp_path / name) for name in ("a", "b"))
    files = [{path.relative_to(f): path.read_bytes() for path in f.rglob("*.*")} for f in (first, second)]
    assert files[0] == files[1] and sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    again = write_pair_folder([PairFolder(first)[index] for index in range(3)], tmp_path / "c")
    assert (again / "metadata.jsonl").read_bytes() == files[0][Path("metadata.jsonl")]


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    def failing() -> Any:
        yield SAMPLES[0]
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_pair_folder(failing(), tmp_path / "pairs")
    with pytest.raises(ValueError, match="samples: got none, expected at least one"):
        write_pair_folder([], tmp_path / "pairs")
    assert list(tmp_path.iterdir()) == []


def test_only_empty_folders_are_written_into(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    assert len(PairFolder(write_pair_folder(SAMPLES, tmp_path / "empty"))) == 3
    with pytest.raises(ValueError, match="full: got a file or a folder with files, expected none"):
        write_pair_folder(SAMPLES, tmp_path / "full")


def test_light_sketches_are_inverted_and_texts_stripped(tmp_path: Path) -> None:
    folder = lines(
        tmp_path / "pairs", row({"sketch": "sketches/light.png", "text": " red jacket\n", "region": None}), ""
    )
    sample = PairFolder(folder)[0]
    assert sample.sketches[0] is not None and sample.sketches[0].tobytes() == drawing(3).tobytes()
    assert sample.texts == ("red jacket",) and sample.regions == (None,)
    as_stored = PairFolder(folder, ink="dark")[0].sketches[0]
    assert as_stored is not None and as_stored.tobytes() == ImageOps.invert(drawing(3)).tobytes()


def test_the_ink_is_checked_at_once(tmp_path: Path) -> None:
    folder: Any = lines(tmp_path / "pairs", row())
    for read in (PairFolder, validate):
        with pytest.raises(ValueError, match="ink: got 'pale', expected one of auto, dark, light; pass one of these"):
            read(folder, ink="pale")  # pyright: ignore[reportArgumentType]


def test_lines_of_other_editors_are_read(tmp_path: Path) -> None:
    folder = lines(tmp_path / "pairs", row())
    text = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n\r\n")
    assert PairFolder(folder)[0].caption == "one"


def test_a_data_set_travels_to_workers_and_ends(tmp_path: Path) -> None:
    pairs = pickle.loads(pickle.dumps(PairFolder(write_pair_folder(SAMPLES, tmp_path / "pairs"))))
    with pytest.raises(IndexError):
        pairs[3]
    assert [sample.name for sample in pairs] == [sample.name for sample in SAMPLES]


# What is refused


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'file_name': 1}", "which is not JSON"),
        ("[" * 100_000, "which is not JSON"),
        ('{"file_name": "images/1.png", "pairs": [], "pairs": []}', "a key given twice among file_name, pairs, pairs"),
        ("[1]", r"the line: got \[1\], expected an object with file_name, caption, pairs"),
        (row(texts=[]), "the line: got the unknown key 'texts', expected file_name, caption, pairs; rename or drop it"),
        ({"pairs": []}, "file_name: got None, expected the path of an image"),
        (row(file_name=3), "file_name: got 3, expected the path of an image"),
        (row(file_name="a\0b"), r"file_name: got 'a\\x00b', expected the path of an image"),
        (row(file_name="\ud800.png"), "file_name: got .*, expected the path of an image"),
        (row(file_name="images/9.png"), "file_name: got 'images/9.png', which is no file"),
        (row(file_name="images"), "file_name: got 'images', which is no file"),
        (row(file_name=""), "file_name: got '', which is no file"),
        (row(file_name="../outside.png"), "file_name: got '../outside.png', which leaves the folder"),
        (row(file_name="loop.png"), "file_name: got 'loop.png'"),
        (row(file_name="/etc/hosts"), "file_name: got '/etc/hosts', which leaves the folder"),
        (row(caption=["a"]), r"caption: got \['a'\], expected a text"),
        (row(pairs=None), "pairs: got None, expected a list of pairs; write"),
        (row("red"), r"pairs\[0\]: got 'red', expected an object with sketch, text, region"),
        (row({"text": "a"}, {}), r"pairs\[1\]: got neither a sketch nor a text"),
        (row({"region": [0, 0, 1, 1]}), r"pairs\[0\]: got neither a sketch nor a text"),
        (row({"words": "a", "text": "b"}), r"pairs\[0\]: got the unknown key 'words'"),
        (row({"text": " "}), r"pairs\[0\].text: got ' ', expected words"),
        (row({"text": 5}), r"pairs\[0\].text: got 5, expected words"),
        (row({"sketch": "sketches/9.png"}), r"pairs\[0\].sketch: got 'sketches/9.png', which is no file"),
        (row({"text": "a", "region": "sketch"}), r"pairs\[0\].region: got 'sketch', which is no file"),
        (row({"text": "a", "region": [0, 0, 1]}), r"pairs\[0\].region: got \[0, 0, 1\], expected \[left, top"),
        (row({"text": "a", "region": [0, 0, 1, 2]}), r"pairs\[0\].region: got"),
        (row({"text": "a", "region": [0.5, 0, 0.5, 1]}), r"pairs\[0\].region: got"),
        (row({"text": "a", "region": [0, 0, True, 1]}), r"pairs\[0\].region: got"),
        (row({"text": "a", "region": [0, 0, float("nan"), 1]}), r"pairs\[0\].region: got"),
        (row({"text": "a"}, {"text": "b"}, {"text": "a "}), r"pairs\[2\]: got the same as pairs\[0\]"),
        (row(file_name="images/../images/2.png"), "file_name: got .* as on line 1, expected each image once"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path: Path, line: Any, message: str) -> None:
    folder = lines(tmp_path / "pairs", row(file_name="images/2.png"), "", line)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    problems = validate(folder)
    assert [(problem.file, problem.where) for problem in problems] == [("metadata.jsonl", "line 3")]
    assert "\n" not in problems[0].reason
    with pytest.raises(ValueError, match=r"got 1 problems in metadata.jsonl, .*, line 3: .*" + message):
        PairFolder(folder)


def test_all_problems_are_found_with_their_lines(tmp_path: Path) -> None:
    blank, short, good = ({"sketch": f"sketches/{name}.png"} for name in ("blank", "short", "1"))
    folder = lines(
        tmp_path / "pairs",
        row(good, blank, {"text": " ", "region": [1]}),
        "nonsense",
        row(short, {"text": "a", "region": "sketches/short.png"}, file_name="images/2.png"),
    )
    problems = validate(folder)
    assert sorted(problem.where for problem in problems) == [*["line 1"] * 3, "line 2", *["line 3"] * 2]
    assert any("one tone" in problem.reason for problem in problems)
    text = report(problems)
    assert text.startswith("6 problems\n  metadata.jsonl, line 1: pairs[2].text: got") and text.count("\n") == 6


def test_damaged_images_are_named_when_read(tmp_path: Path) -> None:
    folder = lines(tmp_path / "pairs", row({"sketch": "sketches/short.png"}))
    with pytest.raises(ValueError, match=r"short.png', which cannot be read"):
        PairFolder(folder)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "got no such file in"),
        (b"", "got no lines, expected one per image"),
        (b"\xff\xfe{", "got other bytes in"),
    ],
)
def test_a_folder_without_lines_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "metadata.jsonl").write_bytes(content)
    assert len(validate(tmp_path)) == 1 and len(validate(tmp_path / "nowhere")) == 1
    with pytest.raises(ValueError, match=message):
        PairFolder(tmp_path)


def test_samples_and_problems_check_themselves() -> None:
    with pytest.raises(ValueError, match="one: got 1 sketches, 2 texts and 2 regions, expected as many of each"):
        PairSample(photo(1), (None,), ("a", "b"), "", None, "one")
    with pytest.raises(ValueError, match="one: got pair 1 empty, expected a sketch or a text; drop it"):
        PairSample(photo(1), (None, None), ("a", None), "", None, "one")
    assert str(Problem("a.json", "", "no")) == "a.json: no" and str(Problem("a", "line 2", "no")) == "a, line 2: no"
    assert report([Problem("a", "line 2", "no")]) == "1 problem\n  a, line 2: no"
    assert np.asarray(SAMPLES[0].image).shape == (32, 32, 3)


def test_a_folder_of_links_is_read(tmp_path: Path) -> None:
    """As snapshots of the Hub are: every file is a link to a store elsewhere."""
    stored = lines(tmp_path / "store", row({"sketch": "sketches/1.png", "text": "a"}, file_name="images/1.png"))
    for path in stored.rglob("*.*"):
        link = tmp_path / "snapshot" / path.relative_to(stored)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert not validate(tmp_path / "snapshot")
    assert len(PairFolder(tmp_path / "snapshot")) == 1


def test_masks_are_read_as_masks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = lines(tmp_path, row({"text": "a", "region": "mask.png"}, file_name="images/1.png"))
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "mask.png")
    assert not validate(folder)
    (region,) = PairFolder(folder)[0].regions
    assert isinstance(region, Image.Image) and region.getextrema() == (0, 255)
    assert "its brightest value is 1 of 255; 1 is taken for white" in caplog.text
    Image.new("L", (8, 8), 40).save(folder / "mask.png")
    assert "got 40 of 255 where it is brightest" in str(validate(folder)[0])
