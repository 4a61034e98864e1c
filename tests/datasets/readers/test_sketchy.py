"""Sketchy is read from its published layout, and what is missing or wrong in it is named."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from weftwork.datasets.readers.images import compose_sketches
from weftwork.datasets.readers.pair_folder import PairFolder, write_pair_folder
from weftwork.datasets.readers.sketchy import ANNOTATIONS, Sketchy, validate

LATER = ANNOTATIONS[1].format(split="train")
GARMENTS = [  # image, annotation, category, description
    (12, 7, "jacket", "  A Red JACKET, open "),
    (5, 1, "skirt", "black skirt"),
    (12, 3, "shoe", "boots"),
    (12, 2, "pants", "Blue Jeans"),
    (9, 4, "shoe", "sandals"),
]


def drawing(number: int) -> Image.Image:
    image = Image.new("L", (48, 48), 255)
    ImageDraw.Draw(image).ellipse((number, number, number + 20, number + 30), outline=10 * number)
    return image


def document() -> dict[str, Any]:
    images = [{"id": key, "file_name": f"{key}.jpg", "width": 40, "license": 1} for key in (5, 9, 12, 30)]
    keys = ("image_id", "id", "category_name", "description")
    annotations = [{**dict(zip(keys, garment, strict=True)), "area": 1, "padding": [0, 0]} for garment in GARMENTS]
    return {"info": {}, "categories": [], "images": images, "annotations": annotations}


def build(root: Path, name: str = "train_sketchy.json", content: Any = None) -> Path:
    """The data set's layout with its JSON under a name."""
    for key in (5, 9, 12, 30):
        for part in ("images", "full_sketches", "partial_sketches"):
            (root / "train" / part / str(key)).mkdir(parents=True, exist_ok=True)
        Image.new("CMYK", (40, 60), (key, 0, 0, 0)).save(root / f"train/images/{key}/{key}.jpg")
        drawing(key % 20).save(root / f"train/full_sketches/{key}/{key}.png")
    for image_id, key, *_ in GARMENTS:
        drawing(key).convert("RGB").save(root / f"train/partial_sketches/{image_id}/{key}.png")
    write(root / name, document() if content is None else content)
    return root


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_outfits_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    sketchy = Sketchy(build(tmp_path))
    assert [sample.name for sample in (sketchy[0], sketchy[1])] == ["5", "12"] and len(sketchy) == 2
    sample = sketchy[1]
    assert sample.texts == ("a red jacket, open", "blue jeans")
    assert sample.caption == "a red jacket, open. blue jeans"
    assert (sample.image.mode, sample.image.size) == ("RGB", (40, 60))
    sketches = [np.asarray(sketch) for sketch in sample.sketches if sketch is not None]
    np.testing.assert_array_equal(sketches, [np.asarray(drawing(7)), np.asarray(drawing(2))])


def test_the_global_sketch_is_composed_or_read(tmp_path: Path) -> None:
    root = build(tmp_path)
    composed, full = Sketchy(root)[1].global_sketch, Sketchy(root, global_sketch="full")[1].global_sketch
    assert composed is not None and full is not None
    assert composed.tobytes() == compose_sketches([drawing(7), drawing(2)]).tobytes()
    assert full.tobytes() == drawing(12).tobytes()


def test_shoes_are_kept_on_request(tmp_path: Path) -> None:
    root = build(tmp_path)
    assert [sample.texts for sample in Sketchy(root, drop=())] == [  # pyright: ignore[reportGeneralTypeIssues]
        ("black skirt",),
        ("sandals",),
        ("a red jacket, open", "boots", "blue jeans"),
    ]
    assert len(Sketchy(root, drop="shoe")) == 2 and len(Sketchy(root, drop=("skirt", "shoe"))) == 1
    with pytest.raises(ValueError, match=r"drop: got 'skirts', expected one of .*skirt"):
        Sketchy(root, drop="skirts")


def test_size_stretches_everything(tmp_path: Path) -> None:
    sample = Sketchy(build(tmp_path), size=32)[1]
    pictures = [sample.image, sample.global_sketch, *sample.sketches]
    assert {picture.size for picture in pictures if picture is not None} == {(32, 32)}


@pytest.mark.parametrize(("name", "annotations"), [(LATER, None), ("mine.json", "mine.json"), (LATER, LATER)])
def test_every_name_of_the_file_is_found(tmp_path: Path, name: str, annotations: str | None) -> None:
    root = build(tmp_path, name)
    assert len(Sketchy(root, annotations=annotations)) == 2
    assert validate(root, annotations=annotations) == []


def test_the_first_name_wins(tmp_path: Path) -> None:
    root = build(tmp_path)
    write(root / LATER, {"images": [], "annotations": []})
    assert len(Sketchy(root)) == 2


def test_samples_go_into_the_plain_format_and_to_workers(tmp_path: Path) -> None:
    sketchy = pickle.loads(pickle.dumps(Sketchy(build(tmp_path / "sketchy"))))
    pairs = PairFolder(write_pair_folder([sketchy[0], sketchy[1]], tmp_path / "pairs"))
    assert pairs[1].texts == sketchy[1].texts and pairs[1].image.tobytes() == sketchy[1].image.tobytes()


# What is missing or wrong


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda root: (root / "train_sketchy.json").unlink(),
            f"no train_sketchy.json or {LATER} in .*; download it or",
        ),
        (lambda root: shutil.rmtree(root / "train/images"), "images: got no folder '.*images', expected one folder in"),
        (lambda root: shutil.rmtree(root / "train/partial_sketches"), "partial_sketches: got no folder"),
        (lambda root: write(root / "train_sketchy.json", "{"), r"train_sketchy.json: got no JSON \(.*\), expected"),
        (lambda root: write(root / "train_sketchy.json", "[" * 100_000), "got no JSON"),
        (lambda root: write(root / "train_sketchy.json", []), "got no list 'images', expected images and annotations"),
        (lambda root: write(root / "train_sketchy.json", {"images": []}), "got no list 'annotations'"),
        (
            lambda root: write(root / "train_sketchy.json", {"images": [], "annotations": []}),
            "got no images with garments to keep",
        ),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, break_it: Callable[[Path], None], message: str) -> None:
    root = build(tmp_path)
    break_it(root)
    for look in (Sketchy, validate):
        with pytest.raises(ValueError, match=message):
            look(root)


def test_another_split_and_wrong_options_are_named(tmp_path: Path) -> None:
    root = build(tmp_path)
    with pytest.raises(ValueError, match=r"annotations: got no test_sketchy.json or test_square"):
        Sketchy(root, "test")
    with pytest.raises(ValueError, match="global_sketch: got 'none', expected one of composed, full"):
        Sketchy(root, global_sketch="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size: got 0, expected at least 1"):
        Sketchy(root, size=0)


@pytest.mark.parametrize(
    ("part", "index", "changes", "where", "message"),
    [
        ("images", 0, {"id": None}, "image None", "id: got None, expected a number or the name of a file"),
        ("images", 1, {"id": "../5"}, "image ../5", "id: got '../5'"),
        ("images", 1, {"id": ".."}, "image ..", "id: got '..'"),
        ("images", 1, {"file_name": "../../a.jpg"}, "image 9", "file_name: got '../../a.jpg'"),
        ("images", 1, {"id": 12}, "image 12", "id: got 12 a second time"),
        ("annotations", 1, {"id": ""}, "annotation ", "id: got '', expected a number"),
        ("annotations", 1, {"id": True}, "annotation True", "id: got True, expected a number"),
        ("annotations", 1, {"image_id": 77}, "annotation 1", "image_id: got 77, expected the id of one of the images"),
        ("annotations", 1, {"category_name": None}, "annotation 1", "category_name: got None, expected the name"),
        ("annotations", 1, {"description": ["red"]}, "annotation 1", r"description: got \['red'\], expected a text"),
        ("annotations", 3, {"id": 7}, "annotation 7", "id: got 7 a second time, expected each once"),
    ],
)
def test_a_wrong_row_is_refused_with_its_id(
    tmp_path: Path, part: str, index: int, changes: dict[str, Any], where: str, message: str
) -> None:
    content = document()
    content[part][index].update(changes)
    root = build(tmp_path, content=content)
    assert ("train_sketchy.json", where) in [(problem.file, problem.where) for problem in validate(root)]
    with pytest.raises(ValueError, match=f"wrong rows, expected none, first .*{where}: {message}"):
        Sketchy(root)


@pytest.mark.parametrize(("part", "where"), [("images", "image number 1"), ("annotations", "annotation number 1")])
def test_rows_that_are_no_objects_are_refused(tmp_path: Path, part: str, where: str) -> None:
    content = document()
    content[part][1] = "nothing"
    with pytest.raises(ValueError, match=f"{where}: got a str, expected an object with id, "):
        Sketchy(build(tmp_path, content=content))


def test_descriptions_may_be_missing_but_are_listed(tmp_path: Path) -> None:
    content = document()
    content["annotations"][0]["description"] = " "
    del content["annotations"][1]["description"]
    root = build(tmp_path, content=content)
    assert [Sketchy(root)[index].texts for index in (0, 1)] == [(None,), (None, "blue jeans")]
    assert Sketchy(root)[1].caption == "blue jeans"
    assert {problem.where for problem in validate(root)} == {"annotation 1", "annotation 7"}


def test_all_bad_images_are_listed(tmp_path: Path) -> None:
    root = build(tmp_path)
    (root / "train/images/5/5.jpg").write_bytes(b"nothing")
    (root / "train/full_sketches/12/12.png").unlink()
    (root / "train/partial_sketches/12/2.png").unlink()
    Image.new("L", (48, 48), 255).save(root / "train/partial_sketches/5/1.png")
    problems = {problem.where: problem.reason for problem in validate(root)}
    assert list(problems) == ["image 5", "annotation 1", "image 12", "annotation 2"]
    assert "cannot be read" in problems["image 5"] and "one tone" in problems["annotation 1"]
    assert "got no file" in problems["image 12"] and "partial_sketches" in problems["annotation 2"]
    with pytest.raises(ValueError, match=r"got no file at '.*12.2.png'"):
        Sketchy(root)[1]
