"""Regions of sketches are what their strokes enclose, without frames around them."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from weftwork.datasets.readers.images import as_sketch
from weftwork.datasets.readers.strokes import stroke_region


def drawn(size: int, *lines: tuple[float, ...], width: int = 2) -> Image.Image:
    image = Image.new("L", (size, size), 255)
    for line in lines:
        ImageDraw.Draw(image).line([round(part * size) for part in line], fill=0, width=width)
    return image


BROKEN = [(0.2, 0.2, 0.45, 0.2), (0.55, 0.2, 0.8, 0.2, 0.8, 0.8), (0.7, 0.8, 0.2, 0.8, 0.2, 0.3)]
HORSESHOE = [(0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.6, 0.9, 0.6, 0.3, 0.4, 0.3, 0.4, 0.9, 0.1, 0.9, 0.1, 0.1)]
LEAVING = [(0.3, 1.0, 0.3, 0.5, 0.7, 0.5, 0.7, 1.0)]


@pytest.mark.parametrize("size", [128, 512, 1024])
@pytest.mark.parametrize(
    ("lines", "inside", "outside"),
    [
        ([(0.2, 0.2, 0.8, 0.2, 0.8, 0.8, 0.2, 0.8, 0.2, 0.2)], (0.5, 0.5), (0.1, 0.5)),
        (BROKEN, (0.5, 0.5), (0.5, 0.1)),
        (HORSESHOE, (0.2, 0.6), (0.5, 0.7)),
        (LEAVING, (0.5, 0.95), (0.5, 0.3)),
        ([(0.2, 0.5, 0.8, 0.5)], (0.5, 0.5), (0.5, 0.3)),
    ],
    ids=["whole", "broken", "bay", "leaving the canvas", "one line"],
)
def test_the_region_is_what_the_strokes_enclose(
    size: int, lines: list[tuple[float, ...]], inside: tuple[float, float], outside: tuple[float, float]
) -> None:
    sketch = drawn(size, *lines)
    region = stroke_region(sketch)
    at = {where: region[int(y * size), int(x * size)] for where, (x, y) in (("in", inside), ("out", outside))}
    assert region.shape == (size, size) and region.dtype == np.float32
    assert at["in"] > 0.75 and at["out"] == 0
    assert region[np.asarray(sketch) == 0].min() > 0.5


def test_the_region_is_soft_and_within_0_and_1() -> None:
    region = stroke_region(drawn(128, *BROKEN))
    assert region.min() == 0 and region.max() == 1
    assert np.abs(np.diff(region, axis=0)).max() < 0.6
    assert np.count_nonzero((region > 0.1) & (region < 0.9)) > 100


def test_regions_follow_the_canvas_and_blank_sketches_have_none() -> None:
    sketch = drawn(128, *BROKEN).resize((200, 50), Image.Resampling.BICUBIC)
    assert stroke_region(sketch).shape == (50, 200)
    assert stroke_region(Image.new("L", (20, 10), 255)).max() == 0
    assert stroke_region(Image.new("L", (1, 1), 255)).shape == (1, 1)


def test_regions_are_fast() -> None:
    sketch = drawn(128, *BROKEN)
    rounds = []
    for _ in range(5):
        start = time.process_time()
        stroke_region(sketch)
        rounds.append(time.process_time() - start)
    assert min(rounds) < 0.02  # 3 ms of one core


@pytest.mark.parametrize("ground", [0, 255])
@pytest.mark.parametrize(
    ("size", "inset", "width", "radius"),
    [((128, 128), 0, 1, 0), ((400, 300), 0, 4, 0), ((128, 128), 5, 2, 12), ((512, 512), 20, 2, 0),
     ((256, 256), 0, 20, 0), ((128, 192), 10, 3, 10)],
)  # fmt: skip
def test_a_frame_is_neither_the_ground_nor_a_region(
    size: tuple[int, int], inset: int, width: int, radius: int, ground: int
) -> None:
    drawn = Image.new("L", size, ground)
    ImageDraw.Draw(drawn).ellipse((40, 40, 88, 88), outline=255 - ground, width=2)
    framed = drawn.copy()
    box = (inset, inset, size[0] - 1 - inset, size[1] - 1 - inset)
    ImageDraw.Draw(framed).rounded_rectangle(box, radius, outline=255 - ground, width=width)
    assert np.median(np.asarray(as_sketch(framed))) == 255
    expected, region = stroke_region(as_sketch(drawn)), stroke_region(as_sketch(framed))
    assert expected.mean() < 0.3 and abs(float(region.mean() - expected.mean())) < 0.02


@pytest.mark.parametrize("inset", [4, 20])
def test_a_drawing_like_a_frame_is_its_own_region(inset: int) -> None:
    sketch = Image.new("L", (128, 128), 255)
    ImageDraw.Draw(sketch).rectangle((inset, inset, 127 - inset, 127 - inset), outline=0, width=2)
    assert stroke_region(sketch)[64, 64] == 1
    ImageDraw.Draw(sketch).line((30, 30, 90, 60), fill=0, width=2)
    assert stroke_region(sketch)[90, 40] == (0 if inset == 4 else 1)
