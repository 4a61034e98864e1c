"""The quickstart example, generated with the shipped models: four things, each where its sketch is, in its colour."""

from dataclasses import replace
from typing import Final

import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image

from weftwork.attention_processors import SketchTextPair
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw, open_pipeline
from weftwork.pretrained import DEFAULT_MODEL, available

pytestmark = pytest.mark.skipif(DEFAULT_MODEL not in available(), reason="the shipped models are not installed")
DESIGN: Final = "examples/scene/scene.json"
CHANNELS: Final = {"a red house": 0, "a green tree": 1, "a blue car": 2, "an orange cat": 0}
"""The strongest of red, green and blue in the upper half of each thing, where roof and crown are."""


@pytest.fixture(scope="module")
def design(request: pytest.FixtureRequest) -> Design:
    return read_design(request.config.rootpath / DESIGN)


@pytest.fixture(scope="module")
def image(design: Design) -> Float[np.ndarray, "height width 3"]:
    [drawn] = draw(open_pipeline(DEFAULT_MODEL, {}, design), design)
    return np.asarray(drawn, float)


def box(pair: SketchTextPair, side: int) -> tuple[slice, slice]:
    """Rows and columns of an image with so many pixels a side between which a sketch has strokes."""
    assert isinstance(pair.sketch, Image.Image)
    dark = np.asarray(pair.sketch.convert("L").resize((side, side))) < 128
    rows, columns = (np.flatnonzero(dark.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def pairs(design: Design) -> list[SketchTextPair]:
    return [one for one in design.conditions["paired"] if isinstance(one, SketchTextPair)]


def test_things_are_where_they_were_drawn(design: Design, image: np.ndarray) -> None:
    drawn = image.min(-1) < 230
    inside = np.zeros_like(drawn)
    for pair in pairs(design):
        place = box(pair, len(image))
        inside[place] = True
        assert drawn[place].mean() > 0.35, pair.text
    assert drawn[~inside].mean() < 0.1


def test_things_have_the_colours_that_are_said(design: Design, image: np.ndarray) -> None:
    for pair in pairs(design):
        rows, columns = box(pair, len(image))
        pixels = image[rows.start : (rows.start + rows.stop) // 2, columns].reshape(-1, 3)
        mean = pixels[np.ptp(pixels, axis=1) > 64].mean(0)
        assert mean.argmax() == CHANNELS[pair.text or ""], (pair.text, mean)


def test_the_pairs_draw_them(design: Design, image: np.ndarray) -> None:
    off = replace(design, conditions={"paired": [replace(one, weight=0.0) for one in pairs(design)]})
    [without] = draw(open_pipeline(DEFAULT_MODEL, {}, off), off)
    drawn = np.asarray(without, float).min(-1) < 230
    assert any(drawn[box(pair, len(image))].mean() <= 0.35 for pair in pairs(design))
