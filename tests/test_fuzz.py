"""Files of every kind, damaged at random: a result or a clear error, no code run, and nothing half-written.

250 cases run with the other tests, 10,000 with `-m slow`.
"""

import io
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from tiny import drawn_sketch, raw_adapter, tiny_unet

from weftwork.attention_processors.core.adapter_files import WEIGHTS_NAME
from weftwork.attention_processors.core.regions import checked_area
from weftwork.datasets.readers.captioned_images import CaptionedImages
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import as_image, as_sketch, read_image, read_sketch
from weftwork.datasets.readers.masks import read_mask
from weftwork.datasets.readers.pair_folder import PairFolder, validate
from weftwork.datasets.readers.sidecar_files import read_boxes, read_depth
from weftwork.pipelines.designs.reader import read_design, read_designs
from weftwork.scripts.inspect_folder import describe

Check = Callable[[Path, bytes], object]

KEYS = (
    "prompt", "seed", "height", "conditions", "paired", "sketch", "text", "region", "weight", "start", "end", "layers",
    "cfg", "style", "image", "loras", "lora", "controlnets", "controlnet", "name", "file_name", "caption", "pairs",
    "times", "boxes", "depth", "metric",
)  # fmt: skip
WORDS = st.sampled_from(
    ["a.png", "../a.png", "sketch", "both", "a red hat", "", "/etc/hosts", "\u2028", "\ud800", "\0"]
)
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, 1, 0.5, 1.0000001, 1e9]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=4)), inner)
    ),
    max_leaves=12,
)
RECORDS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


DESIGNS = st.one_of(
    RECORDS.map(as_json),
    st.fixed_dictionaries({"prompt": st.just("a"), "conditions": st.fixed_dictionaries({"paired": st.lists(RECORDS)})})
    .map(as_json),
)  # fmt: skip
LINES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"file_name": WORDS, "pairs": st.lists(RECORDS, max_size=3)}).map(as_json),
        RECORDS.map(as_json),
        st.binary(max_size=20),
    ),
    max_size=4,
).map(b"\n".join)


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """A file of any mode, size, format and orientation, perhaps with bytes that are changed or cut off."""
    mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV"]))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    noise = np.random.default_rng(draw(st.integers(0, 9))).integers(0, draw(st.sampled_from([2, 256])), size[::-1])
    image = Image.fromarray(noise.astype(np.uint8)).convert("RGB" if mode == "HSV" else "L").convert(mode)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = draw(st.integers(0, 9))
    for form in (draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])), "TIFF"):
        try:
            image.save(file, form, exif=exif)
            break
        except (OSError, KeyError, TypeError, ValueError):  # this format has no such mode
            file = io.BytesIO()
    return draw(damaged(file.getvalue()))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])


def sidecar() -> bytes:
    file = io.BytesIO()
    boxes, depth = np.tile([0.1, 0.1, 0.5, 0.9], (3, 1)), np.ones((3, 4, 4))
    np.savez(file, times=np.arange(3.0), boxes=boxes, depth=depth, metric=True)
    return file.getvalue()


@cache
def made() -> tuple[Any, bytes, bytes]:
    """Class, weights and config of an adapter."""
    one = raw_adapter(tiny_unet())
    with TemporaryDirectory() as folder:
        one.save_pretrained(folder)
        return type(one), *(next(Path(folder).glob(name)).read_bytes() for name in ("*.safetensors", "config.json"))


def open_adapter(folder: Path, weights: bytes, settings: bytes) -> None:
    place = folder / "adapter"
    place.mkdir(exist_ok=True)
    (place / WEIGHTS_NAME).write_bytes(weights)
    (place / "config.json").write_bytes(settings)
    describe(place)
    made()[0].from_pretrained(place)
    assert load_file(place / WEIGHTS_NAME)


def design(folder: Path, content: bytes) -> None:
    for read in (read_design, read_designs):
        path = folder / "design.json"
        path.write_bytes(content)
        read(path)


def lines(folder: Path, content: bytes) -> None:
    (folder / "metadata.jsonl").write_bytes(content)
    problems = validate(folder)
    if not problems:
        assert [sample.image for sample in PairFolder(folder)]  # pyright: ignore[reportGeneralTypeIssues]


def captions(folder: Path, content: bytes) -> None:
    (folder / "metadata.jsonl").write_bytes(content)
    data = CaptionedImages.from_folder(folder)
    assert [data[index] for index in range(len(data))]


def image(folder: Path, content: bytes) -> None:
    path = folder / "b.png"
    path.write_bytes(content)
    for read in (read_image, read_sketch, read_mask, checked_area):
        try:
            assert read(path) is not None
        except UserError:
            continue
    try:
        opened = Image.open(io.BytesIO(content))
    except Exception:  # by the caller, before it is handed over
        return
    with opened:
        assert as_image(opened).mode == "RGB" and as_sketch(opened).mode == "L"


def boxes(folder: Path, content: bytes) -> None:
    for name, read in (("a.boxes.npz", read_boxes), ("a.depth.npz", read_depth)):
        (folder / name).write_bytes(content)
        read(folder / name, 0.0, 2.0)


def boxes_as_json(folder: Path, content: bytes) -> None:
    (folder / "a.boxes.json").write_bytes(content)
    read_boxes(folder / "a.boxes.json", 0.0, 2.0)


def adapter(folder: Path, content: bytes) -> None:
    open_adapter(folder, content, made()[2])


def config(folder: Path, content: bytes) -> None:
    open_adapter(folder, made()[1], content)


pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

CASES: dict[str, tuple[Callable[[], Any], Check, int]] = {
    "design": (lambda: st.one_of(DESIGNS, damaged(b'{"prompt": "a"}')), design, 40),
    "lines": (lambda: LINES, lines, 50),
    "captions": (lambda: LINES, captions, 30),
    "image": (lambda: images(), image, 40),
    "boxes": (lambda: damaged(sidecar()), boxes, 30),
    "boxes as JSON": (lambda: st.one_of(RECORDS, VALUES).map(as_json), boxes_as_json, 20),
    "adapter": (lambda: damaged(made()[1]), adapter, 20),
    "config": (lambda: st.one_of(VALUES.map(as_json), RECORDS.map(as_json), damaged(made()[2])), config, 20),
}
"""Strategy, check, and cases of the 250, by kind of file."""


def fuzz(kind: str, folder: Path, factor: int) -> None:
    make, check, count = CASES[kind]
    drawn_sketch().save(folder / "a.png")
    os.environ["FUZZED"] = "untouched"

    @settings(
        max_examples=count * factor, deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )  # fmt: skip
    @given(make())
    def run(content: bytes) -> None:
        try:
            check(folder, content)
        except ValueError as error:
            assert isinstance(error, UserError), f"{type(error).__name__}: {error}"
            assert str(error).strip()

    run()
    assert os.environ.pop("FUZZED") == "untouched"
    assert not list(folder.rglob(".*partial*"))


@pytest.mark.parametrize("kind", CASES)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_damaged_files_at_length(kind: str, tmp_path: Path) -> None:
    fuzz(kind, tmp_path, 40)
