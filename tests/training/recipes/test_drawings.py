"""Recipes of the baselines of drawings: an image encoder and a LoRA."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_pipe

from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.maintenance.train_baselines import main as train_baseline
from weftwork.training.data.drawings import SceneImages
from weftwork.training.recipes.image_encoder import NONE, ImageEncoderTask, LabelledEncoder, labelled_scenes

SAMPLE = Path(__file__).parents[3] / "examples/drawings"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a few drawings."""
    folder = tmp_path_factory.mktemp("drawings")
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(folder / "model")
    Drawings.read(SAMPLE).only(["twemoji", "noto"], ["1F346", "1F34C", "1F690", "1F685"]).save(folder / "drawings")
    return folder


def test_baselines_learn_the_same_drawings(folder: Path) -> None:
    given = [f"--drawings={folder / 'drawings'}", f"--cache_dir={folder / 'cache'}", "--samples=4", "--report_to=none"]
    given += ["--max_train_steps=1", "--train_batch_size=2", "--validation_steps=1", "--checkpointing_steps=0"]
    model = f"--model={folder / 'model'}"
    train_baseline(["lora", *given, model, f"--output_dir={folder / 'lora'}", "--validation_steps=0"])
    assert (folder / "lora/final/pytorch_lora_weights.safetensors").is_file()
    images = SceneImages(folder / "cache", open_rendered(folder / "drawings", folder / "cache"), "train", 4)
    data = labelled_scenes(images)
    for (image, labels), shown, key in zip(data, images.depicted, images.keys, strict=True):
        assert image.shape == (128, 128, 3) and data.heads["style"][labels[0]] == key
        assert (labels[1] == labels[2] == NONE) == (len(shown.drawings) > 1)
    task = ImageEncoderTask(LabelledEncoder(data.heads, width=16, dim=8), data)
    loss = task.loss(task.collate([data[i] for i in range(4)]), torch.Generator(), 0)
    assert loss.isfinite() and set(task.validate(0, folder)) == {"style", "category", "color"}
