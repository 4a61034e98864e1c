"""The shipped audio backbone: autoencoder and transformer, trained from scratch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderOobleck, StableAudioPipeline
from tiny_audio import tiny_oobleck

from weftwork.datasets.synthetic.walks import SECONDS, sample
from weftwork.pipelines.audio.cosine_scheduler import CosineScheduler
from weftwork.pipelines.audio.pipeline import VideoToAudioPipeline
from weftwork.scripts.maintenance import train_tiny_audio
from weftwork.training.data.audio import WalkSounds
from weftwork.training.recipes.audio_autoencoder import build_oobleck, distance, side_error, with_unit_latents

FOOTSTEPS = Path(__file__).parents[3] / "examples/footsteps"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_distance_depends_on_sides_and_latents_get_unit_variance() -> None:
    sounds = torch.from_numpy(np.stack([sample("train", i).audio for i in range(2)]))
    assert distance(sounds, sounds) < 1e-3 < distance(sounds.flip(1), sounds)
    vae = tiny_oobleck()
    before = vae.decode(vae.encode(sounds).latent_dist.mode()).sample
    with_unit_latents(vae, sounds)
    latents = vae.encode(sounds).latent_dist.mode()
    assert abs(latents.std().item() - 1) < 1e-3
    torch.testing.assert_close(vae.decode(latents).sample, before, atol=1e-4, rtol=1e-3)


def test_the_first_latent_encodes_the_side() -> None:
    sounds, latents = torch.zeros(2, 2, 4096), torch.zeros(2, 16, 16)
    sounds[0, 0, :2048] = sounds[1, 1, :2048] = 0.1
    latents[0, 0], latents[1, 0] = -2, 2
    latents[:, 1:] = 5
    assert side_error(latents, sounds) < 1e-3
    assert side_error(-latents, sounds) == pytest.approx(16, rel=1e-3)
    latents[:, 0, 10:] = 7  # it is silent there
    assert side_error(latents, sounds) < 1e-3


def test_audio_passes_an_untrained_autoencoder() -> None:
    torch.manual_seed(0)
    vae: Any = build_oobleck().eval()
    sounds = torch.from_numpy(np.stack([sample("train", i).audio for i in range(2)]))
    with torch.no_grad():
        posterior = vae.encode(sounds).latent_dist
        assert posterior.mean.std() > 5 * posterior.std.mean()
        one, other = vae.decode(posterior.sample(torch.Generator().manual_seed(0))).sample
        assert (one - other).std() > 0.3 * one.std() and 0.002 < one.std() < 0.05


@pytest.mark.slow
def test_a_backbone_is_trained_from_scratch_and_is_stock(cache: Path, tmp_path: Path) -> None:
    common = ["--walks", "4", "--cache_dir", str(cache), "--max_train_steps", "2", "--train_batch_size", "2",
              "--checkpointing_steps", "0", "--validation_steps", "0", "--footsteps", str(FOOTSTEPS)]  # fmt: skip
    train_tiny_audio.main(["autoencoder", "--output_dir", str(tmp_path / "vae"), *common])
    trained: Any = AutoencoderOobleck.from_pretrained(tmp_path / "vae/final")
    sounds = torch.from_numpy(WalkSounds(cache, "train", 4, footsteps=FOOTSTEPS).sounds.astype(np.float32) / 32768)
    assert abs(trained.encode(sounds).latent_dist.mode().std().item() - 1) < 0.02
    vae = str(tmp_path / "vae/final")
    again = ["--init_from", vae, "--output_dir", str(tmp_path / "again"), "--learning_rate", "1e-9"]
    train_tiny_audio.main(["autoencoder", *again, *common])
    continued: Any = AutoencoderOobleck.from_pretrained(tmp_path / "again/final")
    expected, found = (one.decode(one.encode(sounds).latent_dist.mode()).sample for one in (trained, continued))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-2)
    train_tiny_audio.main(["transformer", "--vae", vae, "--output_dir", str(tmp_path / "dit"), *common])
    folder = tmp_path / "dit/pipeline"
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "StableAudioPipeline"
    assert all("_name_or_path" not in path.read_text() for path in folder.rglob("config.json"))
    pipe: Any = VideoToAudioPipeline.from_pretrained(folder)
    known = set(pipe.tokenizer.get_vocab())
    assert {"▁across", "▁hard", "▁ice", "▁sand"} <= known and "▁gravel" not in known
    out = pipe(prompt="footsteps on snow", num_inference_steps=1, generator=torch.Generator().manual_seed(0))
    assert out.audio.shape == (2, 32_768) and np.isfinite(out.audio).all()
    pytest.importorskip("torchsde")  # without it diffusers does not open the folder's scheduler
    stock: Any = StableAudioPipeline.from_pretrained(folder, scheduler=CosineScheduler())
    assert stock("footsteps on snow", num_inference_steps=1, audio_end_in_s=SECONDS).audios.shape == (1, 2, 32_768)
