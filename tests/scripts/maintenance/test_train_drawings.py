"""Training on drawings: both stages run on a few drawings and write folders that open again."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, FluxPipeline, StableDiffusionPipeline
from tiny import tiny_pipe
from tiny_people import people_folder
from transformers import CLIPTextModel, CLIPTokenizer

from weftwork.datasets.drawings.collection import Drawings
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.maintenance.train_drawings import main
from weftwork.training.recipes.autoencoder import build_autoencoder
from weftwork.training.recipes.backbone import build_tokenizer
from weftwork.training.recipes.drawings import CaptionedTask, DrawingAutoencoderTask, plainer
from weftwork.training.recipes.flux import FluxDenoiser, FluxTask

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


@pytest.mark.parametrize("stage", ["people", "hands"])
def test_people_or_hands_are_learned_on_the_folders_own_latents(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(start)
    short = {"samples": 8, "max_train_steps": 1, "train_batch_size": 2, "validation_steps": 0, "lr_warmup_steps": 0}
    paths = {"init_from": start, "cache_dir": tmp_path / "cache", "output_dir": tmp_path / "run"}
    if stage == "people":
        paths["drawings"] = people_folder(tmp_path, monkeypatch)
    main([stage, *(f"--{name}={one}" for name, one in (short | paths).items()), "--report_to=none", "--use_cpu"])
    before, after = (StableDiffusionPipeline.from_pretrained(one) for one in (start, tmp_path / "run/pipeline"))
    changed = {
        name: not torch.equal(weights(before, name), weights(after, name)) for name in ("vae", "unet", "text_encoder")
    }
    assert changed == {"vae": False, "unet": True, "text_encoder": True}


def weights(pipe: Any, name: str) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(pipe.components[name].parameters()).half()


def test_captions_are_drawn_from_those_of_an_image() -> None:
    task, rng = CaptionedTask(torch.nn.Identity(), DDIMScheduler(), AutoencoderKL(), []), np.random.default_rng(0)
    captions = Counter(task.caption(("a person", "a person, showing rage"), rng) for _ in range(400))
    assert set(captions) == {"", "a person", "a person, showing rage"}
    assert 0.8 < captions["a person"] / captions["a person, showing rage"] < 1.25 and 20 < captions[""] < 60


def test_a_decoder_is_trained_alone_on_the_latents_that_are_there(folder: Path) -> None:
    start = ROOT / "pretrained/tiny-drawings"
    given = [one for one in options(folder, "autoencoder") if not one.startswith("--init_from")]
    main(
        [*given, f"--init_from={start}", "--decoder_only", "--max_train_steps=2", f"--output_dir={folder / 'decoder'}"]
    )
    before, after = (
        AutoencoderKL.from_pretrained(one).state_dict() for one in (start / "vae", folder / "decoder/final")
    )
    changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    assert changed and not any(name.startswith(("encoder.", "quant_conv.")) for name in changed)


@pytest.mark.slow
def test_flux_writes_a_folder_that_draws(folder: Path) -> None:
    vae, output = ROOT / "pretrained/tiny-drawings/vae", folder / "flux"
    given = [one for one in options(folder, "flux") if not one.startswith(("--init_from", "--max_train_steps"))]
    main([*given, f"--vae={vae}", f"--output_dir={output}", "--vocabulary=500", "--max_train_steps=2"])
    pipe: Any = FluxPipeline.from_pretrained(output / "pipeline").to("cpu", torch.float32)
    assert sum(p.numel() for p in pipe.transformer.parameters()) < 12e6
    assert sum(path.stat().st_size for path in (output / "pipeline").rglob("*")) < 35e6
    pipe.set_progress_bar_config(disable=True)
    size = {"height": 128, "width": 128, "max_sequence_length": 16}
    image = pipe("A banana", num_inference_steps=1, output_type="np", true_cfg_scale=2.0, negative_prompt="", **size)
    assert image.images[0].shape == (128, 128, 3) and np.isfinite(image.images).all()
    assert "eggplant</w>" in pipe.tokenizer_2.get_vocab()


def test_the_loss_of_flux_falls_on_one_batch() -> None:
    """The first prediction is 0, and its error that of no velocity: 1 + 1."""
    task = flux_task()
    batch = task.collate([(torch.randn(16, 16, 16), "a red car"), (torch.randn(16, 16, 16), "")])
    task.caption = lambda shown, rng: shown  # pyright: ignore[reportAttributeAccessIssue]
    optimizer = torch.optim.SGD(task.module.parameters(), 0.5)
    losses = []
    for _ in range(3):
        loss = task.loss(batch, torch.Generator().manual_seed(3), 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2.0, abs=0.1)
    assert losses[0] > losses[1] > losses[2]


def test_captions_of_flux_are_padded_to_several_lengths() -> None:
    task = flux_task()
    ids = [task.tokens(["a red car", ""], length) for length in (0, 64)]
    assert [one.shape[1] for one in ids] == [5, 64]
    assert torch.equal(ids[0], ids[1][:, :5])


def test_long_captions_of_flux_have_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = flux_task(), []
    monkeypatch.setattr("weftwork.training.recipes.flux.PADDED", ((1.0, 512),))
    forward = task.module.forward
    monkeypatch.setattr(
        task.module, "forward", lambda x, t, ids: seen.append((len(x), *ids.shape)) or forward(x, t, ids)
    )
    task.denoising_loss(["a red car"] * 22, torch.randn(22, 16, 4, 4), torch.Generator().manual_seed(0))
    assert seen == [(2, 2, 512)]


def test_flux_starts_from_the_words_of_a_stable_diffusion_folder() -> None:
    folder = ROOT / "pretrained/tiny-drawings"
    module, known = FluxDenoiser.from_words(folder, 16), CLIPTextModel.from_pretrained(folder / "text_encoder")
    given, taken = (one.get_input_embeddings().weight.detach() for one in (known, module.text_encoder_2))
    assert torch.equal(given, module.text_encoder.get_input_embeddings().weight)
    assert taken.std() == pytest.approx(1.0)
    torch.testing.assert_close(taken, given / given.std())
    assert module.tokenizer.get_vocab() == CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()


def test_validation_images_of_flux_are_guided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = flux_task(), []
    monkeypatch.setattr(
        task.module.transformer, "forward", lambda hidden_states, **_: seen.append(1) or (hidden_states,)
    )
    monkeypatch.setattr(task.vae, "decode", lambda latents, **_: (torch.zeros(len(latents), 3, 8, 8),))
    task.validate(7, tmp_path)
    assert (tmp_path / "000007.png").is_file() and len(seen) == 2 * 20


def flux_task() -> FluxTask:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(iter(["a red car"] * 20), 100)
    return FluxTask(FluxDenoiser.build(tokenizer, 16), AutoencoderKL(latent_channels=16))


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
