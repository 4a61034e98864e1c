"""People's images: everything that opens is brought to one convention, everything else is one clear line."""

import base64
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from weftwork.datasets.readers.images import (
    as_image,
    as_sketch,
    center_crop,
    compose_sketches,
    letterbox,
    read_image,
    read_sketch,
)
from weftwork.datasets.readers.inline_images import located
from weftwork.datasets.readers.masks import as_mask

RNG = np.random.default_rng(0)
NOISE = Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8))


def drawing(size: int = 64, ground: int = 255, stroke: int = 0) -> Image.Image:
    """The outline of a box."""
    image = Image.new("L", (size, size), ground)
    ImageDraw.Draw(image).rectangle((size // 4, size // 4, 3 * size // 4, 3 * size // 4), outline=stroke, width=2)
    return image


def png(path: Path, image: Image.Image = NOISE, **options: object) -> Path:
    image.save(path, "PNG", **options)
    return path


# Reading


def test_a_plain_image_comes_back_as_it_is(tmp_path: Path) -> None:
    assert read_image(png(tmp_path / "a.png")).tobytes() == NOISE.tobytes()


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_mode_becomes_the_wanted_one(mode: str, wanted: str) -> None:
    image = as_image(Image.new(mode, (3, 2)), wanted)  # pyright: ignore[reportArgumentType]
    assert image.mode == wanted and image.size == (3, 2)


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        assert np.asarray(read_image(tmp_path / f"a.{suffix}", "L")).tolist() == [[0, 1, 128, 255]]


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    values = np.asarray(read_image(png(tmp_path / "a.png", image), "L"))[0]
    assert values.tolist() == [255, 0, 127]


def test_transparent_entries_of_palettes_and_16_bits_are_white_too(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    image = read_image(png(tmp_path / "a.png", palette, transparency=0))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (40, 50, 60)]
    deep = Image.fromarray(np.array([[0, 65535 // 5]], np.uint16))
    assert np.asarray(read_image(png(tmp_path / "b.png", deep, transparency=0), "L")).tolist() == [[255, 51]]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(png(tmp_path / "a.png", exif=exif)).tobytes() == NOISE.rotate(-90, expand=True).tobytes()


def test_broken_exif_leaves_the_image_as_stored(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff")
    assert read_image(tmp_path / "a.jpg").size == NOISE.size


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), tone) for tone in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif", "L").getextrema() == (10, 10)


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    image = read_image(png(tmp_path / "a.png", Image.new("CMYK", (1, 1), (0, 255, 255, 0)).convert("RGB")))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_cmyk_files_become_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg"), int) - (255, 0, 0)).max() < 4


def write_broken(folder: Path) -> None:
    whole = png(folder / "whole.png").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture")
    (folder / "short.png").write_bytes(whole[: len(whole) // 2])
    NOISE.save(folder / "whole.jpg")
    (folder / "short.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-200])
    (folder / "flipped.png").write_bytes(whole[:60] + bytes(byte ^ 255 for byte in whole[60:]))
    NOISE.save(folder / "drawing.eps")
    (folder / "folder.png").mkdir()
    png(folder / "wide.png", Image.new("L", (200, 100)))
    header = b"P5 60000 60000 255\n"
    (folder / "bomb.ppm").write_bytes(header)
    Image.fromarray(np.array([[0, 300]], np.float32)).save(folder / "float.tif")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.png", r"image: got no file at '.*missing.png', expected an image; check the path"),
        ("folder.png", "got no file"),
        ("a\0b.png", "got no file"),
        ("empty.png", r"empty.png', which cannot be read \(.*\), expected a whole PNG.*; export it again"),
        ("text.png", "cannot be read"),
        ("short.png", r"cannot be read \(.*truncated"),
        ("short.jpg", r"cannot be read \(.*truncated"),
        ("flipped.png", "cannot be read"),
        ("drawing.eps", "cannot be read"),
        ("wide.png", r"wide.png' with 200x100 pixels, expected at most 10000; scale it down"),
        ("bomb.ppm", "decompression bomb"),
        ("float.tif", r"got values from 0.0 to 300.0 in mode F, expected 0 to 1; save it with 8 bits"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr("weftwork.datasets.readers.images.MAX_PIXELS", 10_000)
    write_broken(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        read_image(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="mode: got 'RGBA', expected one of RGB, L"):
        as_image(NOISE, "RGBA")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="photo: got 0x5 pixels, expected at least 1x1"):
        as_image(Image.new("L", (0, 5)), name="photo")
    with pytest.raises(ValueError, match="ink: got 'blue', expected one of auto, dark, light"):
        as_sketch(drawing(), "blue")  # pyright: ignore[reportArgumentType]


# Sketches


@pytest.mark.parametrize(("ground", "stroke"), [(255, 0), (200, 150), (120, 10)])
def test_dark_strokes_stay_and_light_ones_are_inverted(ground: int, stroke: int) -> None:
    dark, on_white = drawing(ground=ground, stroke=stroke), drawing(stroke=round(stroke * 255 / ground))
    assert as_sketch(dark).tobytes() == on_white.tobytes()
    assert as_sketch(ImageOps.invert(dark)).tobytes() == on_white.tobytes()
    assert as_sketch(on_white, "dark").tobytes() == on_white.tobytes()


def test_the_grain_of_paper_becomes_white_and_a_ground_that_is_drawn_on_stays() -> None:
    paper = Image.fromarray(np.random.default_rng(0).integers(225, 236, (60, 60)).astype(np.uint8))
    paper.paste(40, (20, 20, 40, 22))
    assert np.median(np.asarray(as_sketch(paper))) >= 250 and np.asarray(as_sketch(paper)).min() == 44
    filled = drawing(ground=60, stroke=200)
    assert as_sketch(filled, "dark").tobytes() == filled.tobytes()


def test_a_frame_is_not_the_ground_and_ink_overrules_it() -> None:
    for width in (1, 2):
        framed = ImageOps.expand(drawing(), border=width, fill=0)
        assert as_sketch(framed).tobytes() == framed.tobytes()
        assert as_sketch(ImageOps.invert(framed)).tobytes() == framed.tobytes()
    assert as_sketch(framed, "light").tobytes() == ImageOps.invert(framed).tobytes()
    assert as_sketch(drawing(), "light").tobytes() == ImageOps.invert(drawing()).tobytes()


@pytest.mark.parametrize("image", [Image.new("L", (9, 9), 255), Image.new("RGBA", (9, 9)), Image.new("1", (1, 1))])
def test_a_sketch_without_strokes_is_named(tmp_path: Path, image: Image.Image) -> None:
    message = r"sketch '.*blank.png': got one tone all over .*expected strokes on a plain ground; draw some"
    with pytest.raises(ValueError, match=message):
        read_sketch(png(tmp_path / "blank.png", image))


def test_transparent_sketches_with_dark_strokes_are_read(tmp_path: Path) -> None:
    strokes = ImageOps.invert(drawing())
    clear = Image.merge("LA", [Image.new("L", strokes.size, 0), strokes])
    assert read_sketch(png(tmp_path / "a.png", clear)).tobytes() == drawing().tobytes()


def test_composing_keeps_the_strokes_of_all() -> None:
    first, second = drawing(), drawing().rotate(45, fillcolor=255)
    darkest = np.minimum(np.asarray(first), np.asarray(second))
    np.testing.assert_array_equal(np.asarray(compose_sketches([first, second])), darkest)
    np.testing.assert_array_equal(np.asarray(compose_sketches([first])), np.asarray(first))
    assert compose_sketches([first, second.resize((32, 16))]).size == first.size


def test_composing_is_pasting_each_inverted_sketch_through_itself() -> None:
    tones = [(200, 100), (255, 255), (0, 40)]
    sketches = [Image.fromarray(np.array([row], np.uint8)) for row in np.array(tones, np.uint8).T]
    ink = np.zeros(3)
    for column in range(2):
        strokes = 255 - np.array(tones)[:, column]
        ink = np.rint((strokes * strokes + ink * (255 - strokes)) / 255)
    assert np.asarray(compose_sketches(sketches))[0].tolist() == (255 - ink).tolist()


# Fitting


@pytest.mark.parametrize(
    ("size", "fitted"), [((40, 20), (64, 32)), ((20, 40), (32, 64)), ((1, 1), (64, 64)), ((999, 1), (64, 1))]
)
def test_letterbox_keeps_the_aspect_and_pads(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    image = letterbox(Image.new("RGB", size, "black"), 64, "red")
    values = np.asarray(image)
    inside = (values == 0).all(axis=2)
    assert image.size == (64, 64) and (values[~inside] == (255, 0, 0)).all()
    assert (inside.any(axis=0).sum(), inside.any(axis=1).sum()) == fitted


def test_letterbox_fits_oblong_canvases() -> None:
    assert letterbox(NOISE, (80, 60)).tobytes() == NOISE.resize((80, 60), Image.Resampling.BICUBIC).tobytes()


@pytest.mark.parametrize("size", [(256, 256), (300, 200), (123, 457)])
def test_center_crop_is_resize_then_crop(size: tuple[int, int]) -> None:
    image = NOISE.resize(size, Image.Resampling.NEAREST)
    width, height = (256 * side // min(size) for side in size)
    left, top = (width - 224) // 2, (height - 224) // 2
    expected = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    assert center_crop(image).tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_center_crop_of_odd_shapes_is_small_and_square(size: tuple[int, int]) -> None:
    assert center_crop(Image.new("L", size)).size == (224, 224)


def turned(image: Image.Image, path: Path) -> Image.Image:
    """The image lying on its side in a file whose EXIF says so, opened."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(path, exif=exif)
    return Image.open(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_opened_images_are_turned_upright_as_paths_are(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (24, 12), "white")
    image.paste("black", (0, 0, 8, 12))
    path = tmp_path / f"a.{suffix}"
    opened = turned(image, path)
    for one in (as_image(opened), as_sketch(opened).convert("RGB"), as_mask(opened).convert("RGB"), read_image(path)):
        assert one.size == (24, 12)
        assert np.asarray(one)[6, 2].max() < 30 and np.asarray(one)[6, 20].min() > 220


def test_hairlines_stay_visible_on_large_sheets() -> None:
    sheet = Image.new("L", (3000, 3000), 255)
    ImageDraw.Draw(sheet).ellipse((300, 300, 2700, 2700), outline=0, width=1)
    assert letterbox(sheet, 256).getextrema()[0] < 140
    thick = Image.new("L", (3000, 3000), 255)
    ImageDraw.Draw(thick).ellipse((300, 300, 2700, 2700), outline=0, width=24)
    plain = thick.resize((256, 256), Image.Resampling.BICUBIC)
    assert letterbox(thick, 256).tobytes() == plain.tobytes()


def test_inline_images_may_be_of_any_format(tmp_path: Path) -> None:
    NOISE.convert("RGB").save(tmp_path / "noise.jpg")
    text = f"data:image/jpeg;base64,{base64.b64encode((tmp_path / 'noise.jpg').read_bytes()).decode()}"
    image = located(text, tmp_path)
    assert isinstance(image, Image.Image) and image.tobytes() == read_image(tmp_path / "noise.jpg").tobytes()
