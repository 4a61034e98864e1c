"""Training pairs: synthetic ones are drawn once, user images are encoded once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny import drawn_sketch, paired_adapter, tiny_pipe

from weftwork.datasets.readers.pair_folder import PairFolder, PairSample, validate, write_pair_folder
from weftwork.datasets.synthetic.outfits import sample
from weftwork.datasets.synthetic.outfits.texts import attributes
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.training.data.image_cache import OutfitImages
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.pairs import OutfitPairs, SamplePairs


def test_synthetic_datasets_are_drawn_once(tmp_path: Path) -> None:
    images = OutfitImages(tmp_path, "train", 3)
    assert all((images.images[i] == sample("train", i).image).all() for i in range(3))
    assert images.garments[1] == sample("train", 1).garments
    latents = np.zeros((3, 4, 8, 8), np.float16)
    pairs = OutfitPairs(tmp_path, images, latents, size=64)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    record, merged = pairs[1], OutfitPairs(tmp_path, images, latents, size=64, merged=True)[1]
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before
    assert [p.text for p in record.pairs] == list(sample("train", 1).texts)
    assert [tuple(p.pixels.shape) for p in record.pairs if p.pixels is not None] == [(2, 64, 64)] * len(record.pairs)
    assert len(merged.pairs) == 1 and merged.pairs[0].text == ", ".join(sample("train", 1).texts)
    unnamed = OutfitPairs(tmp_path, images, latents, size=64, unnamed_share=1)[1]
    garments = sample("train", 1).garments
    assert [p.text for p in unnamed.pairs] == sorted(map(attributes, garments))
    for pair in unnamed.pairs:
        whose = next(i for i, garment in enumerate(garments) if attributes(garment) == pair.text)
        assert pair.pixels is not None and torch.equal(pair.pixels, record.pairs[whose].pixels)


def test_some_outfits_are_worded_with_the_pattern_first_or_without_an_article(tmp_path: Path) -> None:
    images = OutfitImages(tmp_path, "train", 12)
    pairs = OutfitPairs(tmp_path, images, np.zeros((12, 4, 8, 8), np.float16), size=64)
    changed = [i for i in range(12) if [p.text for p in pairs[i].pairs] != list(sample("train", i).texts)]
    assert 1 <= len(changed) <= 6
    assert [p.text for p in pairs[changed[0]].pairs] == [p.text for p in pairs[changed[0]].pairs], "in every epoch"


def test_own_pairs_are_encoded_once(tmp_path: Path) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    image, sketch = Image.new("RGB", (64, 64), "red"), drawn_sketch()
    own: Any = [
        PairSample(image, (sketch, None), ("a thing", "a word"), "a b", None, "1", ((0.0, 0.0, 1.0, 0.5), None))
    ]
    records = SamplePairs(own, paired_adapter(pipe.unet), pipe.vae, tmp_path, Sizes(64))
    (path,) = tmp_path.glob("*/*")
    written = path.stat().st_mtime_ns
    again = SamplePairs(own, paired_adapter(pipe.unet), pipe.vae, tmp_path, Sizes(64))
    assert path.stat().st_mtime_ns == written
    assert torch.equal(records[0].latents, again[0].latents) and records[0].latents.shape == (4, 8, 8)
    assert [p.text for p in records[0].pairs] == ["a thing", "a word"]
    assert records[0].pairs[1].pixels is None and records[0].captions == ("a b",)


def large_sample() -> PairSample:
    """A hairline, a small mask, and a light stroke on a ground that is darker than it, all of 1200 pixels."""
    hairline, mask = Image.new("L", (1200, 1200), 255), Image.new("L", (1200, 1200), 0)
    ImageDraw.Draw(hairline).line((100, 100, 1100, 1000), fill=0)
    ImageDraw.Draw(mask).rectangle((600, 600, 605, 605), fill=255)
    return PairSample(Image.new("RGB", (1200, 1200)), (hairline, None), ("a", "b"), "", None, "1", (None, mask))


def test_what_validation_passes_is_trained(tmp_path: Path) -> None:
    folder = write_pair_folder([large_sample()], tmp_path / "data")
    assert validate(folder) == []
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    (record,) = SamplePairs(PairFolder(folder), paired_adapter(pipe.unet), pipe.vae, tmp_path, Sizes(64))
    sketch, region = record.pairs[0].pixels, record.pairs[1].region
    assert sketch is not None and sketch[0].max() > 0.3, "the hairline is visible"
    assert region is not None and 0 < region.max() < 0.1 and int(region.argmax()) // 128 in range(60, 68)


def test_a_pair_that_is_none_is_named_before_the_first_step(tmp_path: Path) -> None:
    pipe, blank = tiny_pipe(ConditionedStableDiffusionPipeline), Image.new("L", (64, 64), 255)
    own: Any = [PairSample(Image.new("RGB", (64, 64)), (blank,), ("a",), "", None, "outfit 7")]
    with pytest.raises(ValueError, match="outfit 7: sketch: got one tone all over"):
        SamplePairs(own, paired_adapter(pipe.unet), pipe.vae, tmp_path, Sizes(64))


@pytest.mark.parametrize(("ink", "drawn"), [("dark", 0.9), ("light", 0.1)])
def test_the_ink_that_was_asked_for_is_not_judged_again(tmp_path: Path, ink: Any, drawn: float) -> None:
    """Mostly black: read as dark strokes it stays so, as light ones it is inverted, once."""
    sketch = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(sketch).rectangle((0, 0, 63, 5), fill=255)
    folder = write_pair_folder(
        [PairSample(Image.new("RGB", (64, 64)), (sketch,), ("a",), "", None, "1")], tmp_path / "d"
    )
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    (record,) = SamplePairs(PairFolder(folder, ink=ink), paired_adapter(pipe.unet), pipe.vae, tmp_path, Sizes(64))
    pixels = record.pairs[0].pixels
    assert pixels is not None and abs(float(pixels[0].mean()) - drawn) < 0.05
