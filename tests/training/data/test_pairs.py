"""Training pairs: synthetic ones are drawn once, user images are encoded once."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import drawn_sketch, paired_adapter, tiny_pipe

from weftwork.datasets.readers.pair_folder import PairSample
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
