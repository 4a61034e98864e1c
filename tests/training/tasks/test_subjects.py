"""Training of subjects on drawings: scenes with placed subjects, both losses, and what learns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import subject_adapter, tiny_pipe
from tiny_training import losses_of
from torch import Tensor

from weftwork.datasets.drawings.collection import Drawings
from weftwork.datasets.drawings.rendered import open_rendered
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.subjects import SubjectScenes
from weftwork.training.tasks.subjects import SubjectTask
from weftwork.training.trainers.subjects import SubjectConfig

SAMPLE = Path(__file__).parents[3] / "examples/drawings"
CODES = ["1F346", "1F34C", "1F690", "1F685"]


def features(images: Sequence[Image.Image]) -> list[Tensor]:
    assert all(image.mode == "RGB" for image in images)
    return [torch.from_numpy(np.asarray(one.resize((2, 2)), np.float32)).flatten().repeat(2)[:16] for one in images]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SubjectScenes:
    folder = tmp_path_factory.mktemp("subjects")
    Drawings.read(SAMPLE).only(["twemoji", "noto"], CODES).save(folder / "drawings")
    images = SceneImages(folder, open_rendered(folder / "drawings", folder), "train", 16)
    return SubjectScenes(images, np.zeros((16, 4, 8, 8), np.float16), lambda caption: len(caption) < 75, features)


def task(scenes: SubjectScenes, **options: float) -> SubjectTask:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    return SubjectTask(subject_adapter(pipe.unet), pipe, SubjectConfig(**options), scenes)


def test_scenes_place_two_to_four_subjects(scenes: SubjectScenes) -> None:
    assert 0 < len(scenes) < 16
    for index in range(len(scenes)):
        record = scenes[index]
        assert 2 <= len(record.words) == len(record.masks) == len(record.embeds) <= 4
        assert all(words in record.captions[0] for words in record.words)
        assert any(f" {word}" in record.captions[0] for word in ("beside", "left of", "above", "below"))
        assert record.masks.shape[1:] == (32, 32) and (record.masks.flatten(1).sum(1) > 1).all()
        if "left of" in record.captions[0] and len(record.words) == 2:
            left, right = (one.sum(0) @ torch.arange(32.0) / one.sum() for one in record.masks)
            assert left < right


def test_gradients_of_both_losses_reach_the_module_alone(scenes: SubjectScenes) -> None:
    losses, gradients = [], []
    for weight in (0.0, 10.0):
        one = task(scenes, localization_weight=weight, joint_dropout=0.0, subject_dropout=0.0)
        batch = one.collate([scenes[0], scenes[1]])
        loss = one.loss(batch, torch.Generator().manual_seed(0), 0)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad for name, p in one.module.named_parameters()})
        assert all(p.grad is None for p in one.pipe.unet.parameters())
        assert all(p.grad is not None and p.grad.any() for p in one.module.parameters())
    assert losses[0] != losses[1] and abs(losses[0] - losses[1]) <= 10
    name = "fuser.mlp2.fc2.weight"
    assert not torch.allclose(*[one[name] for one in gradients])  # pyright: ignore


def test_dropped_subjects_leave_the_stock_model(scenes: SubjectScenes) -> None:
    one = task(scenes, subject_dropout=1.0, joint_dropout=0.0)
    batch = one.collate([scenes[0]])
    loss = one.loss(batch, torch.Generator().manual_seed(0), 0)
    generator = torch.Generator().manual_seed(0)
    torch.rand(1, 1 + len(scenes[0].words), generator=generator)
    stock = one.denoising_loss(one.denoiser(), batch.latents, batch.captions, generator)
    torch.testing.assert_close(loss, stock)


def test_subjects_learn_to_be_attended_to(scenes: SubjectScenes) -> None:
    one = task(scenes, localization_weight=1.0, joint_dropout=0.0, subject_dropout=0.0)
    losses = losses_of(one, one.collate([scenes[0], scenes[1]]), 1e-2, 12)
    assert losses[-1] < losses[0]


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="caption_dropout: has no effect"):
        SubjectConfig(caption_dropout=0.1)
    with pytest.raises(ValueError, match="localization_weight: got -1"):
        SubjectConfig(localization_weight=-1)
    assert SubjectConfig().localization_weight == 1e-3
