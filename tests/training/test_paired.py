"""The training loop and its objectives on tiny real components."""

import argparse
import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import drawn_sketch, paired_adapter, tiny_pipe
from tiny_training import Records, config, losses, make_task, run

from weftwork.attention_processors.core.adapter import state_sha256
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.attention_processors.paired.adapter import PairedAdapter, SketchTextPair
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.pair_folder import PairSample
from weftwork.datasets.synthetic.outfits import sample
from weftwork.datasets.synthetic.outfits.texts import attributes
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.training.core.batches import BatchOrder
from weftwork.training.core.checkpoints import checkpoints
from weftwork.training.core.config import add_arguments, from_arguments
from weftwork.training.core.loop import _Run, train
from weftwork.training.core.objectives import _min_snr_weight, diffusion_loss, training_scheduler
from weftwork.training.core.trackers import tracker
from weftwork.training.data.image_cache import OutfitPictures
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.pairs import OutfitPairs, PairRecord, SamplePairs
from weftwork.training.tasks.paired import PairedConfig
from weftwork.training.tasks.views import ViewsConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("stop", [2, 3])
def test_an_interrupted_run_ends_with_the_bits_of_a_straight_one(tmp_path: Path, stop: int) -> None:
    """5 micro-batches an epoch, 2 a step: both stops are inside an epoch."""
    straight = run(tmp_path / "straight")
    run(tmp_path / "broken", checkpointing_steps=stop)
    for later in checkpoints(tmp_path / "broken")[1:]:
        later.rename(tmp_path / later.name)
    (tmp_path / "broken" / "metrics.jsonl").unlink()
    resumed = run(tmp_path / "broken", resume_from_checkpoint="latest")
    one, other = load_file(straight / WEIGHTS), load_file(resumed / WEIGHTS)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    whole, rest = losses(tmp_path / "straight"), losses(tmp_path / "broken")
    assert rest == {step: loss for step, loss in whole.items() if step > stop}


def test_training_changes_the_adapter_and_not_the_backbone(tmp_path: Path) -> None:
    task = make_task()
    before = state_sha256(task.pipe.unet)
    start = {n: p.clone() for n, p in task.module.named_parameters()}
    folder = train(task, Records(task.module), config(tmp_path))
    assert state_sha256(task.pipe.unet) == before
    trained = PairedAdapter.from_pretrained(folder)
    for name, parameter in trained.named_parameters():
        assert not torch.equal(parameter, start[name]), name


def test_a_checkpoint_is_a_loadable_adapter(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, checkpoints_total_limit=1)
    (folder,) = checkpoints(tmp_path)
    assert folder.name == "checkpoint-4"
    assert isinstance(PairedAdapter.from_pretrained(folder), PairedAdapter)


def test_ctrl_c_saves_a_checkpoint(tmp_path: Path) -> None:
    task = make_task()
    original, seen = task.loss, []

    def loss(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    task.loss = loss  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KeyboardInterrupt):
        train(task, Records(task.module), config(tmp_path))
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-3"]
    whole = run(tmp_path / "whole")
    resumed = run(tmp_path, resume_from_checkpoint="latest")
    one, other = load_file(whole / WEIGHTS), load_file(resumed / WEIGHTS)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises, also in a process that was started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_an_update_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usable = _Run._usable

    def interrupted(self: _Run, loss: float) -> bool:
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)
        return usable(self, loss)

    monkeypatch.setattr(_Run, "_usable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-3"]
    assert sorted(losses(tmp_path)) == [1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_cannot_be_read_leave_a_checkpoint(tmp_path: Path, workers: int) -> None:
    damaged = list(BatchOrder((0,) * 10, 2, seed=0))[3][0]  # in the second step

    class Damaged(Records):
        def __getitem__(self, index: int) -> PairRecord:
            if index == damaged:
                os._exit(1) if workers else read_image(tmp_path)
            return super().__getitem__(index)

    task = make_task()
    with pytest.raises(RuntimeError if workers else ValueError):
        train(task, Damaged(task.module), config(tmp_path, dataloader_num_workers=workers))
    (kept,) = checkpoints(tmp_path)
    assert kept.name in (["checkpoint-0", "checkpoint-1"] if workers else ["checkpoint-1"])
    resumed = load_file(run(tmp_path, resume_from_checkpoint="latest") / WEIGHTS)
    straight = load_file(run(tmp_path / "straight") / WEIGHTS)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, written, save = make_task(), [], safetensors.torch.save_file

    def save_file(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.append(path)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(tensors, path)

    monkeypatch.setattr("weftwork.training.core.loop.save_file", save_file)
    with pytest.raises(OSError, match="No space left"):
        train(task, Records(task.module), config(tmp_path, checkpointing_steps=2))
    assert [kept.name for kept in checkpoints(tmp_path)] == ["checkpoint-2"]
    monkeypatch.undo()
    resumed = load_file(run(tmp_path, resume_from_checkpoint="latest") / WEIGHTS)
    straight = load_file(run(tmp_path / "straight") / WEIGHTS)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    task = make_task()
    task.loss = lambda *_: torch.tensor(float("nan"), requires_grad=True)  # pyright: ignore
    before = state_sha256(task.module)
    with pytest.raises(FloatingPointError, match="step 1, so nothing was updated"):
        train(task, Records(task.module), config(tmp_path))
    assert state_sha256(task.module) == before


def test_errors_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset: got 10 samples, expected at least one batch of 64"):
        run(tmp_path, train_batch_size=64)
    with pytest.raises(ValueError, match=r"resume_from_checkpoint: got 'nowhere', expected 'latest' or one of: none"):
        run(tmp_path, resume_from_checkpoint="nowhere")
    with pytest.raises(ValueError, match=r"learning_rate: got 0, expected a number above 0"):
        config(tmp_path, learning_rate=0)
    with pytest.raises(ValueError, match=r"pair_dropout: got 1.5, expected a share"):
        PairedConfig(pair_dropout=1.5)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("snr_gamma", [None, 5.0])
def test_a_perfect_prediction_has_no_loss(kind: str, snr_gamma: float | None) -> None:
    scheduler = DDIMScheduler(prediction_type=kind, rescale_betas_zero_snr=True)
    latents = torch.randn(4, 4, 8, 8)

    def perfect(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        alpha = scheduler.alphas_cumprod[times].view(-1, 1, 1, 1).double()
        noise = (noisy.double() - alpha.sqrt() * latents) / (1 - alpha).sqrt()
        by_kind = {
            "epsilon": noise,
            "sample": latents,
            "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * latents,
        }
        return by_kind[kind].float()

    loss = diffusion_loss(perfect, scheduler, latents, torch.Generator().manual_seed(0), snr_gamma=snr_gamma)
    assert loss < 1e-6
    worse = diffusion_loss(
        lambda x, t: perfect(x, t) + 1, scheduler, latents, torch.Generator().manual_seed(0), snr_gamma=snr_gamma
    )
    assert torch.isfinite(worse) and worse > 1e-3


def test_flow_matching_asks_for_the_velocity_from_data_to_noise() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    latents = torch.randn(2, 4, 8, 8)

    def perfect(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        sigma = (times / 1000).view(-1, 1, 1, 1)
        return (noisy - latents) / sigma

    assert diffusion_loss(perfect, scheduler, latents, torch.Generator().manual_seed(0)) < 1e-6


def test_worlds_are_drawn_once_and_read_back(tmp_path: Path) -> None:
    pictures = OutfitPictures(tmp_path, "train", 3)
    assert all((pictures.images[i] == sample("train", i).image).all() for i in range(3))
    assert pictures.garments[1] == sample("train", 1).garments
    latents = np.zeros((3, 4, 8, 8), np.float16)
    pairs = OutfitPairs(tmp_path, pictures, latents, size=64)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    record, merged = pairs[1], OutfitPairs(tmp_path, pictures, latents, size=64, merged=True)[1]
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before
    assert [p.text for p in record.pairs] == list(sample("train", 1).texts)
    assert [tuple(p.pixels.shape) for p in record.pairs if p.pixels is not None] == [(2, 64, 64)] * len(record.pairs)
    assert len(merged.pairs) == 1 and merged.pairs[0].text == ", ".join(sample("train", 1).texts)
    unnamed = OutfitPairs(tmp_path, pictures, latents, size=64, unnamed_share=1)[1]
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


def test_weights_of_times_are_those_published() -> None:
    """min-SNR for velocities (arXiv 2303.09556), and MoAI's, which adds 1 to the ratio before it is capped."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    times = torch.tensor([0, 200, 700, 999])
    snr = scheduler.alphas_cumprod[times] / (1 - scheduler.alphas_cumprod[times])
    for offset in (0.0, 1.0):
        expected = (snr + offset).clamp_max(5) / (snr + 1)
        torch.testing.assert_close(_min_snr_weight(scheduler, times, 5.0, offset), expected, atol=1e-6, rtol=1e-4)
    assert (
        _min_snr_weight(scheduler, times, 5.0, 1.0)[-1] == 1 and _min_snr_weight(scheduler, times, 5.0, 0.0)[-1] < 1e-6
    )


def test_none_can_be_said_on_the_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, ViewsConfig)
    assert from_arguments(ViewsConfig, parser.parse_args([])).snr_gamma == 5
    assert from_arguments(ViewsConfig, parser.parse_args(["--snr_gamma", "none"])).snr_gamma is None
    with pytest.raises(ValueError, match="distillation_kind: got 'cosine', expected one of kl, mse, logits"):
        ViewsConfig(distillation_kind="cosine")


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_noise_of_training_is_no_sampler_s(kind: Any) -> None:
    """Euler's scales otherwise, and both follow the times of the last call."""
    sampler = kind(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    sampler.set_timesteps(3)
    scheduler = training_scheduler(sampler)
    latents, noise, times = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), torch.tensor([0, 999])
    noisy = scheduler.add_noise(latents, noise, times)[:, 0, 0, 0]
    assert torch.allclose(noisy, (1 - sampler.alphas_cumprod[times]) ** 0.5)
    assert scheduler.config.prediction_type == sampler.config.prediction_type
    flow = FlowMatchEulerDiscreteScheduler()
    assert training_scheduler(flow) is flow


# From the command line


def command(folder: Path, *more: str) -> list[str]:
    return ["train", "style", "--train_data_dir", str(folder / "data"), "--output_dir", str(folder / "run"),
            "--pretrained_model_name_or_path", str(folder / "model"), "--cache_dir", str(folder / "cache"),
            "--train_batch_size", "2", "--checkpointing_steps", "0", "--validation_steps", "0", *more]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tiny model, and three captioned pictures of one style."""
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = []
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 0, 0)).save(tmp_path / "data" / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": "a thing", "style": "red"}))
    (tmp_path / "data/metadata.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "paired --train_data_dir x --merged",
        "paired --world outfits --pair_buckets",
        "style --world all --aspect_buckets",
        "aligned-views --world rooms --cache_features",
        "spatial-audio --world walks --resolution 64",
    ],
)
def test_options_that_change_nothing_are_refused(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words.split(), "--output_dir", str(tmp_path / "run")]) == 2
    assert "has no effect with" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_the_backbone_goes_where_training_is(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        num_processes, is_main_process, device = 1, True, torch.device("cuda:3")

        def __init__(self, cpu: bool = False) -> None:
            self.device = torch.device("cpu") if cpu else self.device

    moved: list[Any] = []
    monkeypatch.setattr("accelerate.PartialState", Elsewhere)
    monkeypatch.setattr(ConditionedStableDiffusionPipeline, "to", lambda _, *given: moved.extend(given))
    assert main([*command(own), "--max_train_steps", "1"]) == 0
    assert main([*command(own), "--max_train_steps", "1", "--use_cpu"]) == 0
    assert moved == [torch.device("cuda:3"), torch.device("cpu")]


def test_columns_of_own_data_can_be_named(own: Path) -> None:
    rows = [json.dumps({"file_name": f"{i}.png", "words": "a thing", "look": "red"}) for i in range(3)]
    (own / "data/metadata.jsonl").write_text("\n".join(rows) + "\n")
    named = ["--caption_column", "words", "--style_column", "look"]
    assert main([*command(own, *named), "--max_train_steps", "1"]) == 0
    assert json.loads((own / "run/final/config.json").read_text())["styles"] == ["red"]


def test_texts_that_are_too_long_are_listed_before_anything_is_trained(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.dumps({"file_name": f"{i}.png", "text": "a b " * (8 + 30 * i), "style": "red"}) for i in range(3)]
    (own / "data/metadata.jsonl").write_text("\n".join(rows) + "\n")
    assert main(command(own)) == 2
    said = capsys.readouterr().err
    assert "got 2 that are too long" in said and "row 2: 'a b" in said and "row 3: 'a b" in said
    assert not (own / "run").exists()
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pair: Any = [PairSample(Image.new("RGB", (64, 64)), (drawn_sketch(),), ("a b " * 60,), "a b", None, "1")]
    with pytest.raises(ValueError, match=r"texts: got 1 that are too long; shorten these:\n  sample 1: 'a b a"):
        SamplePairs(pair, paired_adapter(pipe.unet), pipe.vae, own / "cache", Sizes(64), text=TextEncoders.of(pipe))


def test_a_dry_run_says_what_would_be_and_writes_nothing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(own, "--dry_run", "--max_train_steps", "4")) == 0
    said = capsys.readouterr().out
    for line in (
        "data: 3 samples, 1 batches of 2",
        "steps: 4, 1 per epoch: 4.0 epochs",
        "latents: [2, 4, 8, 8] float32",
    ):
        assert line in said
    assert "parameters of StyleAdapter" in said and "vae" in said and str(own / "run/final") in said
    assert not (own / "run").exists() and not (own / "cache").exists()


def test_epochs_count_instead_of_steps(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--dry_run", "--num_train_epochs", "7", "--gradient_accumulation_steps", "2")
    assert main(command(own, *more)) == 0
    assert "steps: 4, 0.5 per epoch: 8.0 epochs" in capsys.readouterr().out  # 7 batches, two a step
    assert main(command(own, "--num_train_epochs", "0")) == 2
    assert "num_train_epochs: got 0, expected at least 1" in capsys.readouterr().err
    assert main(command(own, "--num_train_epochs", "1", "--max_train_steps", "9")) == 2
    assert "num_train_epochs: got 1 beside max_train_steps 9" in capsys.readouterr().err


def test_validation_draws_prompts_of_its_own(own: Path) -> None:
    drawn = command(own, "--max_train_steps", "1", "--validation_prompt", "a b", "c", "a")
    drawn[drawn.index("--validation_steps") + 1] = "1"
    assert main(drawn) == 0
    assert len(list((own / "run/validation").glob("*.png"))) == 3  # and not one per picture


@pytest.mark.parametrize("option", [["--frozen_dtype", "bfloat16"], ["--gradient_checkpointing"]])
def test_what_saves_memory_trains_too(own: Path, option: list[str]) -> None:
    assert main(command(own, "--max_train_steps", "2", "--lr_warmup_steps", "0", *option)) == 0
    trained = load_file(own / "run/final" / WEIGHTS)
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in trained.values())
    assert (
        main(command(own, "--max_train_steps", "2", "--lr_warmup_steps", "0", "--output_dir", str(own / "plain"))) == 0
    )
    plain = load_file(own / "plain/final" / WEIGHTS)
    same = all(torch.equal(trained[name], plain[name]) for name in plain)
    assert same is (option == ["--gradient_checkpointing"])


def test_a_file_holds_options_and_flags_replace_them(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own / "run.toml"
    path.write_text(
        "max_train_steps = 2\nlearning_rate = 1e-3\nuse_ema = false\nfusion = 'gated'\nlr_warmup_steps = 0\n"
    )
    assert main(command(own, "--config", str(path), "--max_train_steps", "1")) == 0
    written = json.loads((own / "run/training.json").read_text())
    assert written["max_train_steps"] == 1 and written["learning_rate"] == 1e-3 and written["use_ema"] is False
    assert json.loads((own / "run/final/config.json").read_text())["fusion"] == "gated"
    for text, message in (
        ("learning_rat = 1e-3", "unknown option 'learning_rat'; did you mean 'learning_rate'?"),
        ("use_ema = ", "cannot be read as TOML"),
        ("learning_rate = true", "got true for 'learning_rate', which takes a value"),
        ("seed = {a = 1}", "expected a number, a text or a list"),
    ):
        path.write_text(text)
        assert main(command(own, "--config", str(path))) == 2
        assert message in capsys.readouterr().err
    assert main(command(own, "--config", str(own / "none.toml"))) == 2


def test_steps_without_a_number_are_skipped_and_counted(tmp_path: Path) -> None:
    task = make_task()
    original, seen = task.loss, []

    def loss(*arguments: Any) -> Any:
        seen.append(1)
        return original(*arguments) * (float("nan") if len(seen) in (3, 7, 9) else 1.0)

    task.loss = loss  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        FloatingPointError, match=r"at step 5, so nothing was updated \(last checkpoint: checkpoint-4\)"
    ):
        train(task, Records(task.module), config(tmp_path, max_skipped_steps=1, checkpointing_steps=1))
    assert [name for name, loss in losses(tmp_path).items() if loss is None] == [2, 4]
    weights = [load_file(tmp_path / f"checkpoint-{step}/{WEIGHTS}") for step in (3, 4)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("name", ["adafactor", "sgd"])
def test_other_optimizers_train_too(name: str, tmp_path: Path) -> None:
    task = make_task()
    before = state_sha256(task.module)
    train(task, Records(task.module), config(tmp_path, optimizer=name, max_train_steps=2, lr_warmup_steps=0))
    assert state_sha256(task.module) != before


def test_optimizers_that_are_not_there_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="optimizer: got 'adam', expected one of adamw, adamw8bit"):
        config(tmp_path, optimizer="adam")
    with pytest.raises(UserError, match="needs prodigyopt, which is not there; pip install prodigyopt"):
        run(tmp_path, optimizer="prodigy")


def test_offset_noise_is_one_number_per_channel() -> None:
    seen: list[torch.Tensor] = []

    def denoise(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append(noisy)
        return noisy

    scheduler = DDIMScheduler(prediction_type="epsilon")
    for offset in (0.0, 0.5):
        diffusion_loss(
            denoise, scheduler, torch.zeros(2, 3, 4, 4), torch.Generator().manual_seed(0),
            logit_normal=(0.0, 1e-6), noise_offset=offset,
        )  # fmt: skip
    added = seen[1] - seen[0]
    assert added.abs().amin() > 0
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-5, rtol=0)
    assert len(added[:, :, 0, 0].unique()) == 6


def test_what_would_save_pieces_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    task = make_task()
    with pytest.raises(ValueError, match=r"accelerate: got DeepSpeed, .*launch with --multi_gpu"):
        train(task, Records(task.module), config(tmp_path / "run"))
    assert main(["train", "paired", "--world", "outfits", "--output_dir", str(tmp_path / "run")]) == 2
    assert "accelerate: got DeepSpeed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_more_scores_stand_beside_those_of_the_task(tmp_path: Path) -> None:
    task, seen = make_task(), []

    def evaluate(sheet: Path) -> dict[str, float]:
        seen.append((task.module.training, sheet.name))
        return {"color_accuracy": 0.25}

    train(task, Records(task.module), config(tmp_path, max_train_steps=3, validation_steps=2), evaluate)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("color_accuracy") for row in rows] == [None, 0.25, 0.25]
    assert seen == [(False, "000002-cases.png"), (False, "000003-cases.png")]


def test_tensorboard_is_told_scores_and_shown_pictures(tmp_path: Path) -> None:
    task = make_task()
    task.validation = [("a b", [SketchTextPair(drawn_sketch(), "a thing")])]
    train(task, Records(task.module), config(tmp_path, max_train_steps=2, validation_steps=2))
    events = EventAccumulator(str(tmp_path / "logs" / "training"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert [event.step for event in events.Images("validation")] == [2]
    train(task, Records(task.module), config(tmp_path / "quiet", report_to="none"))
    assert not (tmp_path / "quiet" / "logs").exists()


def test_trackers_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="report_to: got 'paper', expected none or one of those installed"):
        tracker("paper")
    monkeypatch.setattr("weftwork.training.core.trackers.get_available_trackers", list)
    assert tracker("tensorboard") is None
    with pytest.raises(ValueError, match=r"report_to: got 'wandb', .* installed \(there is none\)"):
        tracker("wandb")


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, max_train_steps=4)
    for path in checkpoints(tmp_path)[1:]:
        path.rename(tmp_path / f"away-{path.name}")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    run(tmp_path, resume_from_checkpoint="latest", max_train_steps=4)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_a_log_of_a_run_that_left_no_checkpoint_starts_anew(tmp_path: Path) -> None:
    tmp_path.joinpath("metrics.jsonl").write_text('{"step": 1, "loss": 0.0}\n{"step": 2, "loss": 0.0}\n')
    run(tmp_path, resume_from_checkpoint="latest", max_train_steps=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(row["loss"] > 0 for row in rows)


def test_checkpoints_of_another_run_are_left_alone(tmp_path: Path) -> None:
    run(tmp_path, checkpointing_steps=2, max_train_steps=4)
    kept = [path.name for path in checkpoints(tmp_path)]
    with pytest.raises(ValueError, match=r"output_dir: got .* holds checkpoint-4 of another run; go on .* latest"):
        run(tmp_path, checkpointing_steps=1)
    assert [path.name for path in checkpoints(tmp_path)] == kept and len(losses(tmp_path)) == 4


def test_the_result_has_a_card_with_samples(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(own), "--max_train_steps", "2", "--validation_steps", "1", "--license", "apache-2.0"]) == 0
    card = (own / "run/final/README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "| steps | 2 |" in card and "| seed | 0 |" in card
    pictures = [path.name for path in (own / "run/final/samples").iterdir()]
    assert pictures and all(name[:6] == "000002" and f"samples/{name}" in card for name in pictures)
    assert str(own) not in card
    assert "trained parameters" in card and "minutes of steps on" in card


def test_an_upload_that_fails_keeps_the_result(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main([*command(own), "--max_train_steps", "1", "--push_to_hub", "me/mine"]) == 2
    assert "push_to_hub: 'me/mine' could not be written" in capsys.readouterr().err
    assert (own / "run/final/README.md").is_file()
