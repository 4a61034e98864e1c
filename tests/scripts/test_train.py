"""`weftwork train` on own data."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import drawn_sketch, paired_adapter, tiny_pipe

from weftwork.attention_processors.encoders import TextEncoders
from weftwork.datasets.readers.pair_folder import PairSample
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.training.data.image_latents import Sizes
from weftwork.training.data.pairs import SamplePairs
from weftwork.training.data.prompts import PromptTokens

WEIGHTS = "diffusion_pytorch_model.safetensors"


def command(folder: Path, *more: str) -> list[str]:
    return ["train", "style", "--train_data_dir", str(folder / "data"), "--output_dir", str(folder / "run"),
            "--pretrained_model_name_or_path", str(folder / "model"), "--cache_dir", str(folder / "cache"),
            "--train_batch_size", "2", "--checkpointing_steps", "0", "--validation_steps", "0", *more]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tiny model, and three captioned images of one style."""
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
        "paired --synthetic outfits --merged --pair_buckets",
        "style --synthetic outfits --aspect_buckets",
        "aligned-views --synthetic rooms --cache_features",
        "spatial-audio --synthetic walks --resolution 64",
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
    assert main([*command(own, "--output_dir", str(own / "other")), "--max_train_steps", "1", "--use_cpu"]) == 0
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
        tokens = TextEncoders.of(pipe), PromptTokens.of(pipe)
        SamplePairs(pair, paired_adapter(pipe.unet), pipe.vae, own / "cache", Sizes(64), tokens=tokens)


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
    for steps in ("9", "2000"):  # the default, too, where it is given
        assert main(command(own, "--num_train_epochs", "1", "--max_train_steps", steps)) == 2
        assert f"num_train_epochs: got 1 beside max_train_steps {steps}" in capsys.readouterr().err


def test_validation_draws_prompts_of_its_own(own: Path) -> None:
    drawn = command(own, "--max_train_steps", "1", "--validation_prompt", "a b", "c", "a")
    drawn[drawn.index("--validation_steps") + 1] = "1"
    assert main(drawn) == 0
    assert len(list((own / "run/validation").glob("000001*.png"))) == 3  # and not one per picture


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


def test_the_result_has_a_card_with_samples(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command(own), "--max_train_steps", "2", "--validation_steps", "2", "--license", "apache-2.0"]) == 0
    card = (own / "run/final/README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and "| steps | 2 |" in card and "| seed | 0 |" in card
    pictures = [path.name for path in (own / "run/final/samples").iterdir()]
    assert pictures and all(name[:6] == "000002" and f"samples/{name}" in card for name in pictures)
    assert str(own) not in card
    assert "trained parameters" in card and "minutes of steps on" in card


def test_a_run_with_class_images_and_held_out_samples(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design = {"prompt": "a thing", "num_inference_steps": 1, "conditions": {"style": [{"style": "red"}]}}
    (own / "kept.json").write_text(json.dumps(design))
    kept = ["--class_designs", str(own / "kept.json"), "--num_class_images", "2"]
    held_out = ["--validation_split", "0.3", "--validation_steps", "1", "--early_stopping_patience", "3"]
    assert main(command(own, *kept, *held_out, "--max_train_steps", "2", "--lr_warmup_steps", "0")) == 0
    assert "held out for the validation loss: 1 of 3 samples, number" in capsys.readouterr().err
    rows = [json.loads(line) for line in (own / "run/metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["validation_loss"] > 0) for row in rows] == [(0, True), (1, True), (2, True)]
    made = sorted((own / "run/class_images").iterdir())
    assert [path.name for path in made] == ["00000.png", "00001.png"]
    written = json.loads((own / "run/final/config.json").read_text())["training"]
    assert (written["samples"], written["class_images"]) == (2, 2)
    assert written["steps"] == min(rows, key=lambda row: row["validation_loss"])["step"]
    before = [path.stat().st_mtime_ns for path in made]
    more = ["--max_train_steps", "3", "--resume_from_checkpoint", "latest", "--lr_warmup_steps", "0"]
    assert main(command(own, *kept, *held_out, *more)) == 0
    assert [path.stat().st_mtime_ns for path in made] == before
