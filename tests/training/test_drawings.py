"""Training of adapters on drawings: scenes are drawn and encoded once, runs resume, the backbone stays frozen."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_pipe
from tiny_baselines import tiny_vision_model

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.datasets.drawings.captions import setting
from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.datasets.drawings.sets import SETS
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.training.data.drawings import SceneImages, ScenePairs, SingleDrawings, StyledScenes

SAMPLE = Path(__file__).parents[2] / "examples/drawings"
CODES = ["1F346", "1F34C", "1F690", "1F685"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, a vision model and a few drawings."""
    folder = tmp_path_factory.mktemp("drawings")
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(folder / "model")
    tiny_vision_model().save_pretrained(folder / "vision")
    Drawings.read(SAMPLE).only(["twemoji", "noto"], CODES).save(folder / "drawings")
    return folder


def command(folder: Path, method: str, *more: str) -> list[str]:
    return ["train", method, "--synthetic", "drawings", "--drawings", str(folder / "drawings"), "--samples", "4",
            "--pretrained_model_name_or_path", str(folder / "model"), "--cache_dir", str(folder / "cache"),
            "--output_dir", str(folder / method), "--train_batch_size", "2", "--validation_steps", "0",
            "--lr_warmup_steps", "0", "--checkpointing_steps", "1", "--report_to", "none", *more]  # fmt: skip


def test_scenes_have_pairs_styles_and_captions(folder: Path) -> None:
    images = SceneImages(folder / "cache", open_rendered(folder / "drawings", folder / "cache"), "train", 4)
    latents = np.zeros((4, 4, 16, 16), np.float16)
    pairs, styled = ScenePairs(folder / "cache", images, latents), StyledScenes(images, latents, named=True)
    assert styled.styles == ("noto", "twemoji")
    merged = ScenePairs(folder / "cache", images, latents, merged=True)
    unnamed = ScenePairs(folder / "cache", images, latents, unnamed_share=1)
    for index, shown in enumerate(images.depicted):
        record = pairs[index]
        assert len(record.pairs) == len(unnamed[index].pairs) == len(shown.drawings) and len(merged[index].pairs) == 1
        assert record.captions[0] == setting(shown) and shown.style not in record.captions[1]
        for pair, nameless, one in zip(record.pairs, unnamed[index].pairs, shown.drawings, strict=True):
            assert pair.pixels is not None and 0.003 < pair.pixels[0].mean() < 0.3
            assert set((nameless.text or "").replace(", ", " and ").split(" and ")) == set(one.colors)
        assert all(SETS[styled[index].style].words in caption for caption in styled[index].captions)
    assert not any("noto" in caption for i in range(4) for caption in StyledScenes(images, latents)[i].captions)


def test_small_images_are_of_single_drawings(folder: Path) -> None:
    scenes = SceneImages(folder / "cache", open_rendered(folder / "drawings", folder / "cache"), "train", 4)
    small = SingleDrawings(scenes, 64)
    assert 0 < len(small) == len(small.depicted) and all(len(one.drawings) == 1 for one in small.depicted)
    image = small.pixels(slice(1))[0]
    assert image.shape == (64, 64, 3) and small.depicted[0] == scenes.depicted[small.rows[0]]
    full = scenes.images[small.rows[0]].astype(np.float32)
    assert abs(image[5, 9] - full[10:12, 18:20].mean((0, 1))).max() <= 0.5


@pytest.mark.parametrize("method", ["paired", "style", "reference", "subjects"])
def test_adapters_learn_drawings_of_a_frozen_backbone(folder: Path, method: str) -> None:
    more = {
        "paired": ("--token_dim", "32", "--unnamed_share", "0.2"),
        "reference": ("--image_encoder", str(folder / "vision")),
        "subjects": ("--image_encoder", str(folder / "vision"), "--samples", "12", "--joint_dropout", "0"),
    }.get(method, ())
    assert main(command(folder, method, "--max_train_steps", "1", *more)) == 0
    drawn = {path: path.stat().st_mtime_ns for path in (folder / "cache").glob("*.npy")}
    again = ("--resume_from_checkpoint", "latest", "--max_train_steps", "2", *more)
    assert main(command(folder, method, *again)) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in drawn.items()) and len(drawn) >= 2
    written = json.loads((folder / method / "final/config.json").read_text())
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(folder / "model")
    assert written["training"]["base_sha256"] == state_sha256(pipe.unet) and written["training"]["data"] == "drawings"
    assert [json.loads(row)["step"] for row in (folder / method / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_options_of_drawings_are_for_drawings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outfits = ["train", "paired", "--synthetic", "outfits", "--drawings", "x", "--output_dir", str(folder / "none")]
    assert main(outfits) == 2
    assert "drawings: has no effect without --synthetic drawings" in capsys.readouterr().err
    subjects = command(folder, "subjects", "--image_encoder", "x", "--output_dir", str(folder / "none"))
    assert main([*subjects, "--validation_cases", "2"]) == 2
    assert "validation_cases: got 2, but only" in capsys.readouterr().err
    assert main(command(folder, "reference", "--output_dir", str(folder / "none"))) == 2
    assert "image_encoder: got none; name a CLIP vision model" in capsys.readouterr().err
