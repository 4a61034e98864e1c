"""People's styled images: folders and data sets are read alike, and what is wrong is said when they are made."""

import gc
import json
import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from weftwork.datasets.readers.captioned_images import CaptionedImage, CaptionedImages

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
ROWS = [
    {"file_name": "pictures/test 1.png", "text": " a fox ", "style": "neon"},
    {"file_name": "pictures/test 2.png", "text": "»an owl«\u2028at night", "style": "ink "},
    {"file_name": "pictures/test 1.png", "text": "a red fox", "style": "neon"},
]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def photo(tone: int) -> Image.Image:
    return Image.new("RGB", (8, 6), (tone, 0, 255 - tone))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pictures(folder: Path) -> Path:
    """A folder with two images named like splits, and an unreadable file."""
    (folder / "pictures").mkdir(parents=True)
    for number in (1, 2):
        photo(number).save(folder / "pictures" / f"test {number}.png")
    photo(3).save(folder / "unlisted.png")
    (folder / "text.png").write_text("this is no picture")
    (folder / "short.png").write_bytes(encoded(NOISE)[:-40])
    photo(1).save(folder / "drawing.eps")
    photo(1).save(folder.parent / "outside.png")
    return folder


def listed(folder: Path, *rows: Any, encoding: str = "utf-8") -> Path:
    """Such a folder with these rows in its metadata."""
    text = "".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (pictures(folder) / "metadata.jsonl").write_bytes(text.encode(encoding))
    return folder


def row(**changes: Any) -> dict[str, Any]:
    return {**ROWS[0], **changes}


def made(**columns: Any) -> datasets.Dataset:
    """A data set in memory, with its images in it; these columns instead of the usual ones, None for none."""
    usual = {"image": [photo(1), photo(2)], "text": ["a fox", "an owl"], "style": ["neon", "ink"]}
    given = {name: values for name, values in (usual | columns).items() if values is not None}
    texts = datasets.Dataset.from_dict({name: given[name] for name in given if name not in ("image", "art")}).features
    features = {name: texts.get(name, datasets.Image()) for name in given}
    return datasets.Dataset.from_dict(given, features=datasets.Features(features))


def contents(samples: CaptionedImages) -> list[tuple[Any, ...]]:
    return [(one.image.mode, one.image.tobytes(), one.caption, one.style) for one in samples]


FOXES = [("RGB", photo(n).tobytes(), text, style) for n, text, style in ((1, "a fox", "neon"), (2, "an owl", "ink"))]


# Folders


def test_a_folder_is_read_in_its_order(tmp_path: Path) -> None:
    samples = CaptionedImages.from_folder(listed(tmp_path / "a [b] *c", *ROWS))
    assert len(samples) == 3 and samples.styles == ("ink", "neon")
    assert [one.caption for one in samples] == ["a fox", "»an owl«\u2028at night", "a red fox"]
    assert [one.style for one in samples] == ["neon", "ink", "neon"]
    assert [one.image.tobytes() for one in samples] == [photo(n).tobytes() for n in (1, 2, 1)]
    assert isinstance(samples[0], CaptionedImage) and samples[-1].caption == "a red fox"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_folder_with_a_table_is_read_alike(tmp_path: Path) -> None:
    text = 'file_name,text,style,note\npictures/test 1.png,"a fox, red",neon,\npictures/test 2.png,an owl,ink,good\n'
    (pictures(tmp_path / "a") / "metadata.csv").write_text(text)
    samples = CaptionedImages.from_folder(tmp_path / "a")
    assert [(one.caption, one.style) for one in samples] == [("a fox, red", "neon"), ("an owl", "ink")]
    gc.collect()


def test_a_folder_is_read_anew_when_its_lines_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = listed(tmp_path / "a", *ROWS)
    monkeypatch.chdir(folder / "pictures")
    assert len(CaptionedImages.from_folder("..")) == len(CaptionedImages.from_folder("../../a")) == 3
    (folder / "metadata.jsonl").write_text("\ufeff" + json.dumps(row(text="a cat")) + "\r\n\r\n", encoding="utf-8")
    assert [one.caption for one in CaptionedImages.from_folder(folder)] == ["a cat"]


def test_one_style_for_all_and_columns_by_name(tmp_path: Path) -> None:
    folder = listed(tmp_path / "a", {"file_name": "unlisted.png", "text": "a", "words": "b"})
    samples = CaptionedImages.from_folder(folder, style=" ink", caption_column="words")
    assert (samples.styles, samples[0].caption, samples[0].style) == (("ink",), "b", "ink")


BAD_FOLDERS: list[tuple[list[Any], str]] = [
    ([], "metadata.jsonl: got no rows, expected one per image; write some"),
    (["\n \n"], "metadata.jsonl: got no rows"),
    (["nonsense"], "metadata.jsonl: got no JSON"),
    (["[" * 100_000], "metadata.jsonl: got no JSON"),
    (["[1]"], r"metadata.jsonl: got '\[1\]' as the first line, expected file_name, text and style in it; add them"),
    ([{"text": "a", "style": "b"}], "metadata.jsonl: got '{\"text\".*' as the first line, expected file_name"),
    ([ROWS[0], "nonsense"], "metadata.jsonl: got rows that cannot be read \\(JSON parse error"),
    ([ROWS[0], row(text=3)], r"got rows that cannot be read \(JSON parse error: Column\(/text\) changed"),
    ([row(file_name=3)], "metadata.jsonl: got rows that cannot be read"),
    ([row(file_name="../outside.png")], r"got rows that cannot be read \(Invalid metadata file_name '../outside.png'"),
    ([ROWS[0], row(file_name=None)], r"1 wrong entry, .* image\[1\]: got none, expected an image; add it or drop"),
    ([row(file_name="9.png")], r"1 wrong entry, .* image\[0\]: got no file at '.*9.png', expected an image; check"),
    ([row(file_name="pictures")], r"image\[0\]: got no file at '.*pictures'"),
    ([row(file_name="text.png")], r"image\[0\]: got '.*text.png', which cannot be read \(unknown format\)"),
    ([row(file_name="drawing.eps")], r"image\[0\]: got '.*drawing.eps', which cannot be read"),
    ([row(text=None)], r"text\[0\]: got None, expected a text; write one or drop the row"),
    ([row(text=" ")], r"text\[0\]: got ' ', expected a text"),
    ([row(text=3)], r"text\[0\]: got 3, expected a text"),
    ([ROWS[0], row(style="")], r"style\[1\]: got '', expected a text"),
    (
        [row(text="", style=""), row(text="", file_name="9.png")],
        r"got 4 wrong entries, expected none: text\[0\].* \| image\[1\]: got no",
    ),
    ([{"file_name": "unlisted.png", "style": "a"}], "caption_column: got the columns image, style, expected text, cap"),
    ([{"file_name": "unlisted.png", "text": "a"}], "style_column: got the columns image, text, expected 'style' among"),
    ([row(mask_file_name="short.png")], "image_column: got image, mask with an Image feature among the columns"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_FOLDERS, ids=[message[:40] for _, message in BAD_FOLDERS])
def test_wrong_folders_are_refused_before_training(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        CaptionedImages.from_folder(listed(tmp_path / "mine", *rows))
    assert str(caught.value).startswith(str(tmp_path / "mine")) and "\n" not in str(caught.value)


def test_folders_without_one_metadata_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: got no folder at '.*none', expected one of images; check"):
        CaptionedImages.from_folder(tmp_path / "none")
    folder = pictures(tmp_path / "a")
    with pytest.raises(ValueError, match=r"got neither of metadata.jsonl and metadata.csv, .*; list the images in"):
        CaptionedImages.from_folder(folder)
    (folder / "metadata.csv").write_text("file_name,text,style\n")
    with pytest.raises(ValueError, match=r"metadata.csv: got no rows, expected one per image"):
        CaptionedImages.from_folder(folder)
    (folder / "metadata.csv").write_text("file;text\na;b\n")
    with pytest.raises(ValueError, match=r"metadata.csv: got 'file;text' as the first line, expected file_name, text"):
        CaptionedImages.from_folder(folder)
    (folder / "metadata.jsonl").touch()
    with pytest.raises(ValueError, match=r"got both of metadata.jsonl and metadata.csv, .*; remove one"):
        CaptionedImages.from_folder(folder)
    with pytest.raises(
        ValueError,
        match=r"metadata.jsonl: got bytes that are not UTF-8, expected lines of UTF-8 text; save it as UTF-8",
    ):
        CaptionedImages.from_folder(listed(tmp_path / "b", row(text="ä"), encoding="latin-1"))


# Data sets


def saved(folder: Path) -> Path:
    made().save_to_disk(folder)
    return folder


def saved_splits(folder: Path) -> Path:
    datasets.DatasetDict({"train": made(), "rest": made(text=["c", "d"])}).save_to_disk(folder)
    return folder


def parquet(folder: Path) -> Path:
    folder.mkdir()
    made().to_parquet(folder / "part-0.parquet")
    return folder


@pytest.mark.parametrize("write", [saved, saved_splits, parquet], ids=lambda write: write.__name__)
def test_data_sets_on_disk_are_read_alike(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "set")
    assert contents(CaptionedImages.from_name(path)) == contents(CaptionedImages.from_name(str(path))) == FOXES


def test_splits(tmp_path: Path) -> None:
    path = saved_splits(tmp_path / "set")
    assert [one.caption for one in CaptionedImages.from_name(path, "rest")] == ["c", "d"]
    with pytest.raises(ValueError, match="split: got 'test', expected one of train, rest; pass one of these"):
        CaptionedImages.from_name(path, "test")
    with pytest.raises(ValueError, match=r"dataset: got '.*', which cannot be opened \(Unknown split \"test\""):
        CaptionedImages.from_name(parquet(tmp_path / "parquet"), "test")


def test_a_split_of_a_set_that_was_saved_without_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split: got 'test', but '.*one' was saved without any; leave it out"):
        CaptionedImages.from_name(saved(tmp_path / "one"), "test")
    with pytest.raises(ValueError, match=r"config_name: got 'a', but '.*two' was saved without any; leave it out"):
        CaptionedImages.from_name(saved_splits(tmp_path / "two"), "rest", config_name="a")


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
def test_a_name_that_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"dataset: got '{name}', which cannot be opened .*, expected a folder or"):
        CaptionedImages.from_name(name)


def test_a_path_that_is_nowhere_is_no_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none", Path("none"), "./none", "a/b/none"):
        with pytest.raises(ValueError, match=r"dataset: got no folder at '.*none', expected one, or a name on the Hub"):
            CaptionedImages.from_name(path)


def test_columns_are_found_by_their_features_and_names() -> None:
    rows = made(image=None, art=[photo(1), photo(2)], text=None, prompt=["a", "b"], caption=["c", "d"], style=None)
    rows = rows.with_format("numpy")
    samples = CaptionedImages(rows, style_column="prompt")
    assert [(one.caption, one.style, one.image.size) for one in samples] == [("c", "a", (8, 6)), ("d", "b", (8, 6))]
    assert CaptionedImages(rows, style="x", caption_column="prompt", image_column="art")[1].caption == "b"


def test_labels_are_styles_by_their_names() -> None:
    rows = made(style=None, label=[1, 0]).cast_column("label", datasets.ClassLabel(names=["ink", "neon"]))
    assert contents(CaptionedImages(rows, style_column="label")) == FOXES
    absent = made(style=None, label=[1, None]).cast_column("label", datasets.ClassLabel(names=["ink", "neon"]))
    with pytest.raises(ValueError, match=r"1 wrong entry, expected none: label\[1\]: got None, expected a text"):
        CaptionedImages(absent, style_column="label")


NO_ROWS = made().select([])
BAD_SETS: list[tuple[datasets.Dataset, dict[str, Any], str]] = [
    (NO_ROWS, {}, "rows: got none, expected at least one; add images or choose another split"),
    (made(image=None), {}, "image_column: got none with an Image feature among the columns text, style, expected one"),
    (made(), {"image_column": "art"}, "image_column: got 'art', expected one of image, text, style; pass one of these"),
    (made(), {"image_column": "text"}, r"got 'text' with the feature Value\('string'\), expected an Image feature"),
    (made(), {"caption_column": "words"}, "caption_column: got 'words', expected one of image, text, style"),
    (made(), {"caption_column": "image"}, r"image\[0\]: got .*, expected a text"),
    (made(text=[["a"], ["b"]]), {}, r"got 2 wrong entries, expected none: text\[0\]: got \['a'\], expected"),
    (made(text=None), {}, "caption_column: got the columns image, style, expected text, caption, prompt among"),
    (made(), {"style_column": "look"}, "style_column: got 'look', expected one of image, text, style"),
    (made(style=None), {}, "got the columns image, text, expected 'style' among them; pass style_column, or style"),
    (made(), {"style": "ink"}, "style: got 'ink' and the column 'style', expected one of them; leave style= out"),
    (made(), {"style": "ink", "style_column": "text"}, "style: got 'ink' and the column 'text', expected one of them"),
    (made(), {"styled": False, "style": "ink"}, "style: got 'ink', has no effect with styled=False; leave it out"),
    (made(), {"styled": False, "style_column": "text"}, "style_column: got 'text', has no effect with styled=False"),
    (made(style=None), {"style": " "}, "style: got ' ', expected a name; write one"),
    (made(image=[photo(1), None]), {}, r"image\[1\]: got none, expected an image; add it or drop the row"),
    (made(image=[photo(1), b"none"]), {}, r"image\[1\]: got an image, which cannot be read \(unknown format\)"),
    (made(image=[photo(1), "9.png"]), {}, r"image\[1\]: got no file at '9.png', expected an image"),
    (made(image=[b"P5 60000 60000 255\n"] * 2), {}, r"image\[0\]: got an image, which cannot be read \(.*bomb"),
    (made(image=[b"P5 9000 9000 255\n"] * 2), {}, r"image\[0\]: got an image with 9000x9000 pixels, expected at most"),
]


@pytest.mark.parametrize(("rows", "options", "message"), BAD_SETS, ids=[message[:40] for *_, message in BAD_SETS])
def test_wrong_data_sets_are_refused(rows: datasets.Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        CaptionedImages(rows, name="mine", **options)
    assert str(caught.value).startswith("mine: ") and "\n" not in str(caught.value)


# Images


def oriented() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(NOISE, exif=exif)


@pytest.mark.parametrize("stored", ["file", "bytes"])
def test_images_are_brought_to_upright_rgb_on_white(tmp_path: Path, stored: str) -> None:
    clear = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    palette = Image.new("P", (8, 6))
    palette.putpalette([255, 255, 255])
    deep = Image.fromarray(np.full((6, 8), 65535, np.uint16))
    whites = [encoded(clear), encoded(palette), encoded(palette, "GIF"), encoded(deep), encoded(deep, "TIFF")]
    whites.append(encoded(Image.new("CMYK", (8, 6)), "JPEG"))
    cells: list[Any] = [*whites, oriented(), encoded(NOISE, "JPEG", quality=95, exif=b"Exif\x00\x00MM\x00*\xff\xff")]
    if stored == "file":
        for index, data in enumerate(cells):
            (tmp_path / str(index)).write_bytes(data)
        cells = [str(tmp_path / str(index)) for index in range(len(cells))]
    samples = CaptionedImages(made(image=cells, text=["a"] * len(cells), style=["b"] * len(cells)))
    images = [one.image for one in samples]
    assert {image.mode for image in images} == {"RGB"}
    assert all(image.getextrema() == ((255, 255),) * 3 for image in images[: len(whites)])
    assert images[-2].tobytes() == NOISE.rotate(-90, expand=True).tobytes()
    assert images[-1].size == NOISE.size


def test_pixels_are_read_only_when_asked_for(tmp_path: Path) -> None:
    folder = listed(tmp_path / "a", row(file_name="short.png"))
    samples = CaptionedImages.from_folder(folder)
    with pytest.raises(ValueError, match=r"short.png', which cannot be read"):
        samples[0]
    inside = CaptionedImages(made(image=[photo(1), encoded(NOISE)[:-40]]), name="mine")
    assert inside[0].image.size == (8, 6)
    with pytest.raises(ValueError, match=r"mine: image\[1\]: got an image, which cannot be read \(.*trunc"):
        inside[1]


def test_a_data_set_travels_to_workers_and_ends(tmp_path: Path) -> None:
    for samples in (CaptionedImages(made()), CaptionedImages.from_name(saved(tmp_path / "set"))):
        copied = pickle.loads(pickle.dumps(samples))
        assert contents(copied) == FOXES and copied.styles == ("ink", "neon")
        with pytest.raises(IndexError):
            copied[2]
