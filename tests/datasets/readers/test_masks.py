"""Masks as people's tools write them: white where a condition acts, whatever the mode."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weftwork.attention_processors.core.regions import checked_area
from weftwork.datasets.readers.masks import as_mask, read_mask

EYE = np.eye(8, dtype=np.uint8)
WHITE = Image.fromarray(EYE * np.uint8(255))


def palette(labels: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def transparent(mode: str) -> Image.Image:
    image = Image.new(mode, (8, 8), "white")
    image.putalpha(WHITE)
    return image


MEANT = {
    "bytes": WHITE,
    "colour": WHITE.convert("RGB"),
    "bits": WHITE.convert("1"),
    "white on transparent": transparent("L"),
    "white on transparent, in colour": transparent("RGB"),
    "0 and 1": Image.fromarray(EYE),
    "16 bits": Image.fromarray(EYE.astype(np.uint16) * np.uint16(65535)),
    "16 bits that hold bytes": Image.fromarray(EYE.astype(np.uint16) * np.uint16(255)),
    "32 bits that hold 0 and 1": Image.fromarray(EYE.astype(np.int32)),
    "floats": Image.fromarray(EYE.astype(np.float32)),
    "a label of VOC": palette(EYE * 12, [0, 0, 0] * 12 + [64, 0, 128]),
    "a grey palette": WHITE.convert("P"),
}


@pytest.mark.parametrize("image", MEANT.values(), ids=MEANT)
def test_a_mask_of_any_mode(image: Image.Image, tmp_path: Path) -> None:
    assert as_mask(image).tobytes() == WHITE.tobytes()
    if image.mode != "F":  # of which there is no PNG
        image.save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png").tobytes() == WHITE.tobytes()
    region = checked_area(image)
    assert isinstance(region, Image.Image) and region.tobytes() == WHITE.tobytes()


@pytest.mark.parametrize(
    "array",
    [EYE, EYE * np.uint8(255), EYE.astype(bool), EYE.astype(float), EYE[..., None] * np.uint8(255),
     np.stack([EYE * np.uint8(255)] * 3), np.stack([EYE * np.uint8(255)] * 3, 2)],
    ids=["0 and 1", "bytes", "truth", "floats", "one channel", "channels first", "channels last"],
)  # fmt: skip
def test_a_mask_as_an_array(array: np.ndarray) -> None:
    region = checked_area(array)
    assert isinstance(region, Image.Image) and region.tobytes() == WHITE.tobytes()


def test_soft_masks_stay_soft() -> None:
    soft = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8))
    assert as_mask(soft).tobytes() == soft.tobytes()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (8, 8)), "mask: got a mask that is black everywhere, expected white where it acts"),
        (Image.new("RGBA", (8, 8), (255, 255, 255, 0)), "black everywhere"),
        (Image.fromarray(EYE * np.uint8(40)), "got 40 of 255 where it is brightest, expected white"),
        (palette(EYE * 3 + EYE[::-1], [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]), "got the labels 1, 3 in a palette"),
    ],
)
def test_what_cannot_be_meant_is_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_mask(image)
