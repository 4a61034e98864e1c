"""Drawings of the sample: rendering, sketches, colours, captions and scenes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weftwork.datasets.drawings.captions import Depicted, DepictedScene, caption, describe, with_article
from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.colors import color_words, painted
from weftwork.datasets.drawings.dataset import DrawingScenes
from weftwork.datasets.drawings.line_art import line_art
from weftwork.datasets.drawings.rendered import RenderedDrawings, render_once
from weftwork.datasets.drawings.rendering import on_white, render
from weftwork.datasets.drawings.scenes import SIZE, Ground, Place, compose, random_places, visible_regions
from weftwork.datasets.drawings.sets import SETS, notice

SAMPLE = Path(__file__).parents[3] / "examples/drawings"
MINIBUS, BANANA, EGGPLANT = "1F690", "1F34C", "1F346"


def svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    return Drawings.read(SAMPLE)


@pytest.fixture(scope="module")
def rendered(drawings: Drawings, tmp_path_factory: pytest.TempPathFactory) -> RenderedDrawings:
    few = drawings.only(list(drawings.vectors), list(drawings.subjects)[::6])
    return render_once(few, tmp_path_factory.mktemp("drawings"))


def test_sample_is_complete_and_attributed(drawings: Drawings) -> None:
    assert len(drawings.subjects) == 60
    assert all(set(texts) == set(drawings.subjects) for texts in drawings.vectors.values())
    assert (SAMPLE / "NOTICE").read_text() == notice(drawings.vectors)
    assert all(SETS[key].package.source in notice() for key in SETS)


def test_drawings_are_read_as_they_were_saved(drawings: Drawings, tmp_path: Path) -> None:
    few = drawings.only(["noto"], [BANANA])
    few.save(tmp_path)
    assert Drawings.read(tmp_path).subjects == few.subjects
    with pytest.raises(FileNotFoundError, match=r"subjects\.json"):
        Drawings.read(tmp_path / "noto")


def test_rendering_keeps_transparency(drawings: Drawings) -> None:
    image = render(drawings.vectors["twemoji"][BANANA], 64)
    assert image.shape == (64, 64, 4)
    assert image[0, 0, 3] == 0
    assert (image[..., 3] == 255).mean() > 0.2


def test_wide_drawings_are_centred() -> None:
    image = render(
        svg("").replace("0 0 16 16", "0 0 16 8").replace("></svg>", '><rect width="16" height="8"/></svg>'), 32
    )
    assert image[16, 16, 3] == 255
    assert image[2, 16, 3] == image[30, 16, 3] == 0


@pytest.mark.parametrize(
    ("body", "dark"),
    [
        ('<rect x="2" y="2" width="12" height="12" fill="#e00"/>', False),
        ('<rect x="2" y="2" width="12" height="12" style="fill:#e00"/>', False),
        ('<g fill="#e00"><rect x="2" y="2" width="12" height="12"/></g>', False),
        ('<defs><rect id="a" x="2" y="2" width="12" height="12"/></defs><use href="#a" fill="#e00"/>', False),
        ('<path d="M2 8h12" stroke="#e00" stroke-width="4" fill="none"/>', True),
    ],
)
def test_areas_become_outlines_and_strokes_stay(body: str, dark: bool) -> None:
    sketch = on_white(render(line_art(svg(body)), 64))
    assert (sketch.min() < 128) and (sketch[32, 32] < 128) == dark


@pytest.mark.parametrize("shading", ['opacity=".3"', 'fill-opacity="30%"', 'style="opacity:.3"', 'fill="url(#fading)"'])
def test_shading_leaves_no_lines(shading: str) -> None:
    fading = '<linearGradient id="fading"><stop/><stop offset="1" stop-opacity="0"/></linearGradient>'
    sketch = on_white(render(line_art(svg(f'{fading}<rect x="2" y="2" width="9" height="9" {shading}/>')), 64))
    assert sketch.min() == 255


def test_sketches_follow_the_edges_of_images(rendered: RenderedDrawings) -> None:
    for row in range(len(rendered.cells)):
        sketch = rendered.sketches[row]
        assert 0.01 < (sketch < 128).mean() < 0.4, rendered.cells[row]
        assert (rendered.images[row, ..., 3][sketch < 128] > 0).mean() > 0.6, rendered.cells[row]


def test_colors_are_read_from_images(drawings: Drawings) -> None:
    assert color_words(render(drawings.vectors["twemoji"][BANANA], 64))[0] == "light yellow"
    assert color_words(render(drawings.vectors["noto"][EGGPLANT], 64))[0] == "light purple"
    assert color_words(np.zeros((4, 4, 4), np.uint8)) == ()
    halves = np.array([[[230, 40, 40, 255]] * 3 + [[30, 110, 220, 255]] * 2], np.uint8)
    assert color_words(halves) == ("red", "blue")


def test_pixels_are_painted_in_the_colors_that_are_said() -> None:
    pixels = np.array([[250, 250, 245], [60, 10, 20], [20, 40, 160]], np.uint8)
    assert painted(pixels, ["white", "dark blue"]).tolist() == [[255, 255, 255], [26, 63, 143], [26, 63, 143]]
    assert painted(pixels, []) is pixels


def test_captions_vary_and_say_names_colors_style_and_ground() -> None:
    bus = Depicted("minibus", ("bus",), "vehicle", ("white", "light blue", "red"))
    scene = DepictedScene((bus, Depicted("eggplant", (), "vegetable", ("purple",))), "noto", "pale green")
    rng = np.random.default_rng(0)
    said = [caption(scene, rng) for _ in range(300)]
    assert len(set(said)) > 200
    for words in ("minibus", "a minibus", "white and light blue minibus", "purple eggplant", "noto", "pale green"):
        assert 0 < sum(words in one for one in said) < 300, words
    assert describe(Depicted("eye", (), "body part", ()), rng).endswith(("eye", "body part"))


def test_articles() -> None:
    assert [with_article(words) for words in ("eye", "red car", "people with bunny ears", "glasses", "bus")] == [
        "an eye",
        "a red car",
        "people with bunny ears",
        "glasses",
        "a bus",
    ]


def test_resized_drawings_have_no_halo() -> None:
    image = np.zeros((SIZE, SIZE, 4), np.uint8)
    image[32:96, 32:96] = (200, 0, 0, 255)
    ground = Ground("red", (200, 0, 0), (200, 0, 0))
    canvas = compose([image], [Place(7, 9, 61)], ground)
    assert np.abs(canvas.astype(int) - (200, 0, 0)).max() <= 1


def test_later_drawings_hide_earlier_ones() -> None:
    image = np.full((SIZE, SIZE, 4), 255, np.uint8)
    first, second = visible_regions([image, image], [Place(0, 0, 60), Place(30, 0, 60)])
    assert not (first & second).any()
    assert (first.sum(), second.sum()) == (30 * 60, 60 * 60)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_places_are_on_the_canvas_and_hide_little(count: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = random_places(count, rng)
        assert all(0 <= p.left <= SIZE - p.side and 0 <= p.top <= SIZE - p.side for p in places)
        shown = visible_regions([np.full((SIZE, SIZE, 4), 255, np.uint8)] * count, places)
        assert all(mask.sum() > 0.25 * place.side**2 for mask, place in zip(shown, places, strict=True))


@pytest.mark.parametrize("sketch_style", ["steady", "wild"])
def test_scenes_are_functions_of_their_index(rendered: RenderedDrawings, sketch_style: str) -> None:
    scenes = DrawingScenes(rendered, "train", 8, sketch_style=sketch_style)  # pyright: ignore[reportArgumentType]
    again = pickle.loads(pickle.dumps(scenes))
    for index in range(len(scenes)):
        one, other = scenes[index], again[index]
        assert one.caption == other.caption and one.texts == other.texts
        assert np.array_equal(np.array(one.image), np.array(scenes.image(index)))
        images = (one.image, one.global_sketch, *one.sketches, *one.regions)
        assert all(isinstance(image, Image.Image) and image.size == (SIZE, SIZE) for image in images)
        assert len(one.sketches) == len(one.texts) == len(one.regions) == len(scenes.scene(index).rows)


def test_scenes_show_their_split_and_one_designer(rendered: RenderedDrawings) -> None:
    for split in ("train", "cells"):
        scenes = DrawingScenes(rendered, split, 40)
        for index in range(len(scenes)):
            shown = [rendered.cells[row] for row in scenes.scene(index).rows]
            assert {cell.split for cell in shown} == {split}
            assert len({cell.key for cell in shown}) == 1
