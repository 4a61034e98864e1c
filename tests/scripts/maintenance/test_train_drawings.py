"""Training on drawings: both stages run on a few drawings and write folders that open again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from weftwork.datasets.drawings.collection import Drawings
from weftwork.scripts.maintenance.train_drawings import main
from weftwork.training.recipes.autoencoder import build_autoencoder
from weftwork.training.recipes.drawings import DrawingAutoencoderTask, plainer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample, folder = Drawings.read(ROOT / "examples/drawings"), tmp_path_factory.mktemp("training")
    sample.only(["twemoji", "noto"], ["1F346", "1F34C", "1F690", "1F685"]).save(folder / "drawings")
    return folder


def options(folder: Path, *more: str) -> list[str]:
    short = {"max_train_steps": 1, "train_batch_size": 2, "scenes": 4, "outfits": 2, "validation_steps": 0}
    paths = {
        "drawings": folder / "drawings",
        "cache_dir": folder / "cache",
        "init_from": ROOT / "pretrained/tiny-diffusion",
    }
    given = [f"--{name}={value}" for name, value in (short | paths).items()]
    return [*more, *given, "--report_to=none", "--use_cpu"]


def test_both_stages_write_a_folder_that_draws(folder: Path) -> None:
    main(options(folder, "autoencoder", f"--output_dir={folder / 'vae'}"))
    vae = folder / "vae/final"
    main(options(folder, "denoiser", f"--output_dir={folder / 'denoiser'}", f"--vae={vae}", "--vocabulary=500"))
    early, whole = folder / "early", folder / "denoiser/pipeline"
    main(["export", str(folder / "denoiser/final"), f"--vae={vae}", f"--output_dir={early}"])  # or a checkpoint
    written = {path.relative_to(early): path.read_bytes() for path in early.rglob("*") if path.is_file()}
    assert written == {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    pipe = StableDiffusionPipeline.from_pretrained(early).to("cpu")
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a banana", num_inference_steps=1, output_type="np").images[0]
    assert image.shape == (128, 128, 3) and np.isfinite(image).all()
    assert "eggplant</w>" in pipe.tokenizer.get_vocab()


def test_plain_garments_may_go_without_the_word() -> None:
    words = "a person wearing a red plain jacket, a blue hat without a pattern and solid brown boots"
    said = {plainer(words, np.random.default_rng(seed)) for seed in range(20)}
    assert "person wearing red jacket, blue hat and brown boots" in said
    assert words in said
    assert "a person wearing a red jacket, a blue hat and brown boots" in said


def test_edges_count_in_the_error() -> None:
    task = DrawingAutoencoderTask(build_autoencoder(), np.zeros((1, 64, 64, 3), np.uint8))
    flat, step = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    step[..., 4:] = 0.5
    shifted = step.roll(1, 3)
    assert task.error(step, step) == 0
    assert task.error(flat + 0.1, flat) < task.error(shifted, step)
