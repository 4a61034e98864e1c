"""The recipes on a CUDA device; skipped where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import config
from torch.utils.data import ConcatDataset

from weftwork.training.core.loop import train
from weftwork.training.recipes.autoencoder import AutoencoderTask, PatchCode, build_autoencoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_an_autoencoder_is_trained_and_validated(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    code = PatchCode(torch.from_numpy(images), 12)
    task = AutoencoderTask(build_autoencoder(), images[:4], code, guided_steps=2, crop=32)
    settings = config(tmp_path, use_cpu=False, max_train_steps=4, validation_steps=4, gradient_accumulation_steps=1)
    train(task, ConcatDataset([images]), settings)
    assert (tmp_path / "validation" / "000004.png").is_file()
