"""Remedies in errors of `weftwork train`: the same command succeeds after them."""

import argparse
import inspect
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
from remedies import Wrong, array, as_json, check_call, check_command, image, sound, text
from tiny import drawn_sketch, tiny_pipe
from tiny_baselines import tiny_vision_model

from weftwork.attention_processors.core.method import load, methods
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.scripts.train import _processes, add_arguments
from weftwork.training.core.model_card import push
from weftwork.training.tasks.style import StyleTask

MODEL = "--pretrained_model_name_or_path model --cache_dir cache --train_batch_size 2 --validation_steps 0"
STYLE = f"train style --train_data_dir styles {MODEL} --output_dir run"
DRY = f"{STYLE} --dry_run"
PAIRED = f"train paired --train_data_dir pairs {MODEL} --output_dir run --dry_run"
REFERENCE = f"train reference --train_data_dir styles {MODEL} --output_dir run --dry_run"
STYLED = f"train style --synthetic outfits --samples 2 {MODEL} --output_dir run --dry_run"
STREAM = f"train style --dataset_name stream --streaming --styles red {MODEL} --output_dir run --dry_run"
VIEWS = f"train aligned-views --train_data_dir clips --margin 2 {MODEL} --output_dir run --dry_run"
SKETCHY = f"train paired --train_data_dir sketchy {MODEL} --train_batch_size 1 --output_dir run --dry_run"
AUDIO = "train spatial-audio --train_data_dir sounds --train_batch_size 1 --output_dir run --dry_run"
FILES = {
    "unknown": ("learning_rat = 1e-3", "unknown option 'learning_rat'; did you mean 'learning_rate'"),
    "strange": ("zzz = 1", "unknown option 'zzz'; see --help for all options"),
    "broken": ("use_ema = ", "cannot be read as TOML .*; correct the file"),
    "switched": ("learning_rate = true", "got true for 'learning_rate', which takes a value; write one"),
    "nested": ("seed = {a = 1}", "expected a number, a text or a list; write one of these"),
    "numbered": ("use_ema = 1", "got 1 for 'use_ema', expected true or false; write one of them"),
    "worded": ("seed = 'a'", "got 'a' for 'seed', expected int; correct it"),
    "chosen": ("frozen_dtype = 'float8'", "expected one of float32, bfloat16, float16; write one of these"),
}
GOOD = "learning_rate = 1e-3\nuse_ema = true\nseed = 1\nfrozen_dtype = 'float32'\n"
TRAININGS: dict[str, list[Wrong]] = {
    f"{DRY} --config good.toml": [
        *((f"{DRY} --config {name}.toml", words) for name, (_, words) in FILES.items()),
        (
            f"train style {MODEL} --output_dir run",
            "data: got none; pass exactly one of --train_data_dir, --dataset_name",
        ),
        (f"{DRY} --synthetic outfits", "got --train_data_dir and --synthetic; pass exactly one of"),
        (f"{DRY} --num_train_epochs 0", "got 0, expected at least 1; raise it"),
        (f"{DRY} --num_train_epochs 1 --max_train_steps 1", "beside max_train_steps 1; leave one of them out"),
        (f"{DRY} --validation_cases 2", "has cases to score; leave it out, and look at the validation images"),
        (f"{DRY} --drawings x", "drawings: has no effect without --synthetic drawings; leave it out"),
        (f"{DRY} --optimizer x", "optimizer: got 'x', expected one of adamw, .*; pass one of these"),
        (f"{DRY} --optimizer adamw8bit", "needs bitsandbytes, which is not installed; pip install bitsandbytes"),
        (f"{DRY} --quantization int8", "int8: needs torchao, which is not installed; pip install torchao"),
        (f"{DRY} --weighting_scheme x", "expected one of logit_normal, .*; pass one of these"),
        (f"{DRY} --weighting_scheme mode", "weighting_scheme: has no effect with .*; leave it out"),
        (f"{DRY} --weighting_scheme mode --logit_mean 1", "weighting_scheme 'mode'; leave one of them out"),
        (f"{DRY} --resolution 60", "got 60, expected a multiple of 16; the backbone needs it"),
        (f"{DRY} --train_batch_size 64", "got 2 samples, .* 64 per process; lower --train_batch_size or add data"),
        (f"{DRY} --streaming", "streaming: got it without --dataset_name.*; stream a dataset, in squares"),
        (f"{DRY} --styles red", "styles: has no effect without --streaming, .*; leave it out"),
        (f"{DRY} --samples 3", "samples: has no effect with own data of style; leave it out"),
        (
            "train expressions --synthetic people --validation_prompt a --output_dir run",
            "validation_prompt: has no effect with a synthetic dataset of expressions; leave it out",
        ),
        (f"{DRY} --report_to zzz", "report_to: got 'zzz', .*; install it or choose another"),
        (f"{DRY} --train_data_dir long", "texts: got 1 that are too long; shorten these:\n  row 2: 'a a"),
        (f"{DRY} --validation_split 1", r"got 1.0, expected a share in \[0, 1\); lower it"),
        (f"{DRY} --validation_split 0.9", "got 0.9 of 2 samples, .* none to train on; pass less, or add data"),
        (f"{DRY} --validation_prompt {'a' * 400}", "texts: got 1 that are too long; shorten these:\n  validation"),
    ],
    f"{DRY} --validation_split 0.5 --validation_steps 1 --early_stopping_patience 1 --train_batch_size 1": [
        (f"{DRY} --early_stopping_patience 1", "a validation loss; pass --validation_split and --validation_steps"),
        (f"{DRY} --early_stopping_patience -1", "got -1, expected 0 or more; change it"),
    ],
    f"{DRY} --class_designs kept.json": [
        (
            f"{DRY} --class_designs other.json",
            "design 1 has conditions for paired, .* for style alone, .*; leave others",
        ),
        (
            f"{DRY} --class_designs elsewhere.json",
            "got design 1 for tiny-rooms, expected designs for the backbone in training; remove its model, or pass",
        ),
        (f"{DRY} --class_designs kept.json --num_class_images 0", "got 0, expected at least 1; raise it"),
        (f"{DRY} --num_class_images 2", "num_class_images: has no effect without --class_designs; pass them"),
        (f"{DRY} --class_designs kept.json --prior_loss_weight -1", "prior_loss_weight: got -1.0, .*; raise it"),
    ],
    f"{REFERENCE} --image_encoder encoder": [
        (REFERENCE, "image_encoder: got none; name a CLIP vision model, for example"),
    ],
    STYLED: [
        (f"{STYLED} --style a", "style: has no effect with a synthetic dataset of style; leave it out"),
        (f"{STYLED} --resolution 64", "resolution: has no effect with a synthetic dataset of style; leave it out"),
        (
            f"{STYLED} --aspect_buckets",
            "aspect_buckets: has no effect with a synthetic dataset of style; leave it out",
        ),
    ],
    f"{STREAM} --max_train_steps 1": [
        (f"{STREAM} --validation_split 0.1", "of which nothing can be held out; leave the option out"),
        (f"{STREAM} --num_train_epochs 1", "got 1 of a stream, whose length is not known; give --max_train_steps"),
        (STREAM.replace("--styles red", ""), "styles: got none for the column 'style', .*; pass them, in order"),
    ],
    VIEWS: [
        (VIEWS.replace("clips", "flat"), "got a frame without depth, .*; write the output of a depth model to it"),
        (f"{VIEWS} --distillation_kind x", "expected one of kl, mse, logits; pass one of these"),
        (f"{VIEWS} --geometry_weight -1", "geometry_weight: got -1.0, expected a number of at least 0; raise it"),
        (f"{VIEWS} --class_designs kept.json", "class_designs: has no effect with own data .*; leave it out"),
        (f"{VIEWS} --cache_features", "cache_features: has no effect with own data of aligned-views; leave it out"),
    ],
    SKETCHY: [(f"{SKETCHY} --ink dark", "ink: has no effect with Sketchy, whose strokes are dark; leave it out")],
    AUDIO: [
        (f"{AUDIO} --time_mean nan", "time_mean: got nan, expected a finite number; 0 is Stable-V2A's"),
        (f"{AUDIO} --resolution 64", "resolution: has no effect with own data of spatial-audio; leave it out"),
    ],
    PAIRED: [
        (
            f"train paired --synthetic outfits --merged --validation_cases 2 {MODEL} --output_dir run",
            "has no effect with --merged, .*; leave it out, and look at the validation images",
        ),
        (
            f"{PAIRED} --sketch_encoder facebook/dinov2-small --sketch_patch 8",
            "sketch_patch: has no effect with --sketch_encoder, whose patches are its own; leave it out",
        ),
        (f"{PAIRED} --merged", "merged: has no effect with own data of paired; leave it out"),
        (f"{PAIRED} --train_data_dir empty", "metadata.jsonl: got no such file in 'empty', .*; write one"),
    ],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A tiny model, captioned images, pairs and files of options."""
    folder = tmp_path_factory.mktemp("files")
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(folder / "model")
    rows = {
        "styles": [{"file_name": f"{i}.png", "text": "a thing", "style": "red"} for i in range(2)],
        "long": [{"file_name": f"{i}.png", "text": "a " * (1 + 99 * i), "style": "red"} for i in range(2)],
        "pairs": [{"file_name": f"{i}.png", "pairs": [{"text": "a", "sketch": "0.png"}]} for i in range(2)],
    }
    for name, lines in rows.items():
        (folder / name).mkdir()
        for i in range(2):
            drawn_sketch(i).convert("RGB").save(folder / name / f"{i}.png")
        (folder / name / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "empty").mkdir()
    kept = {"prompt": "a", "conditions": {"style": [{"style": "red"}]}}
    as_json(kept, "kept.json")(folder)
    as_json({**kept, "model": "tiny-rooms"}, "elsewhere.json")(folder)
    as_json({"prompt": "a", "conditions": {"paired": [{"text": "a"}]}}, "other.json")(folder)
    jacket = {"id": 1, "image_id": 5, "category_name": "jacket", "description": "a"}
    rows = {"images": [{"id": 5, "file_name": "5.png"}], "annotations": [jacket]}
    as_json(rows, "sketchy/train_sketchy.json")(folder)
    for part in ("images/5/5", "full_sketches/5/5", "partial_sketches/5/1"):
        image(drawn_sketch(), name=f"sketchy/train/{part}.png")(folder)
    rows = {"image": [drawn_sketch()] * 2, "text": ["a", "b"], "style": ["red"] * 2}
    (folder / "stream").mkdir()
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(folder / "stream/a.parquet")
    tiny_vision_model().save_pretrained(folder / "encoder")
    sound(0.1 * np.sin(np.arange(800)), "sounds/a.wav")(folder)
    lens = "0.5 0.5 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"
    for name in ("clips", "flat"):
        text("\n".join(["", *(f"{time} {lens}" for time in range(4))]), f"{name}/one.txt")(folder)
        for time in range(4):
            image(drawn_sketch(), name=f"{name}/one/{time}.png")(folder)
            if name == "clips":
                array(2 + np.linspace(0, 1, 64)[:, None] + np.zeros((64, 64)), f"clips/one/{time}.npy")(folder)
    for name, (options, _) in {**FILES, "good": (GOOD, "")}.items():
        (folder / f"{name}.toml").write_text(options)
    return sorted(folder.iterdir())


@pytest.fixture
def place(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with links to these files."""
    for path in files:
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", files[0].parent / "datasets")
    return tmp_path


@pytest.mark.parametrize("right", TRAININGS, ids=lambda right: " ".join(right.split()[1:4]))
@pytest.mark.usefixtures("place")
def test_remedies_of_train(right: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_command(right, TRAININGS[right], capsys)


@pytest.mark.usefixtures("place")
def test_runs_are_continued_or_begun_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    run = f"{STYLE} --lr_warmup_steps 0 --report_to none --checkpointing_steps 1 --max_train_steps 1"
    assert main(run.split()) == 0
    latest = f"{run} --resume_from_checkpoint latest --max_train_steps 2"
    wrong = [
        (run, "holds checkpoint-1 of another run; resume it with --resume_from_checkpoint latest"),
        (f"{run} --resume_from_checkpoint x", "expected 'latest' or one of: checkpoint-1; pass one of these"),
        (f"{latest} --seed 7", "seed: got 7 for a run of 0, which cannot change; pass 0"),
        (f"{latest} --num_tokens 2", "; resume with the options of the adapter that the run began with"),
    ]
    check_command(latest, wrong, capsys)
    wrong = [
        (f"{latest} --max_train_steps 1", "max_train_steps: got 1 for a run of 2 steps; pass more, or another folder"),
        (f"{latest} --seed 7", "or start a new run in another folder with --init_from run/checkpoint-2"),
        (run, "or pass another folder"),
    ]
    check_command(f"{run} --seed 7 --init_from run/checkpoint-2 --output_dir new", wrong, capsys)


@pytest.mark.usefixtures("place")
def test_a_backbone_that_was_changed_is_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = f"{STYLE} --report_to none --checkpointing_steps 1 --max_train_steps 1 --lr_warmup_steps 0"
    loss = StyleTask.loss

    def changing(task: StyleTask, *given: Any) -> Any:
        next(task.pipe.unet.parameters()).data += 1
        return loss(task, *given)

    with monkeypatch.context() as patch:
        patch.setattr(StyleTask, "loss", changing)
        with pytest.raises(RuntimeError, match=r"backbone: its weights changed in training .*; remove run$"):
            main(run.split())
    shutil.rmtree("run")
    assert main(run.split()) == 0


@pytest.mark.usefixtures("place")
def test_the_command_of_an_upload_that_failed_uploads_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = pytest.importorskip("huggingface_hub.cli.hf").app
    run = f"{STYLE} --report_to none --max_train_steps 1 --lr_warmup_steps 0 --push_to_hub me/mine"
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert main(run.split()) == 2
    words = "the result is in run/final: log in with `hf auth login` and run `hf (upload .*)`"
    (command,) = re.findall(words, capsys.readouterr().err)
    sent: list[dict[str, Any]] = []

    def create_repo(_: Any, repo_id: str, **options: Any) -> Any:
        sent.append({"repo": repo_id, "private": options["private"]})
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(_: Any, *, repo_id: str, folder_path: Any, **options: Any) -> str:
        sent.append({"to": repo_id, "from": Path(folder_path), "path": options.get("path_in_repo") or "."})
        return repo_id

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload_folder)
    push(Path("run/final"), "me/mine")
    cli(command.split(), standalone_mode=False)
    assert sent[:2] == sent[2:] and sent[1]["from"] == Path("run/final")
    assert not [
        path for path in Path("run/final").rglob("*") if path.name.startswith(".") or path.parent.name == "state"
    ]


def test_cases_are_of_datasets_that_the_method_is_trained_on() -> None:
    for method in methods().values():
        given = load(method.trainer).synthetic_datasets if method.trainer else ()
        assert set(method.validation) <= set(given), method.name
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        for synthetic, (path, _, *options) in method.validation.items():
            known = parser.parse_args([method.name, "--synthetic", synthetic, "--output_dir", "run"])
            assert list(inspect.signature(load(path)).parameters)[2:] == options, path
            assert set(options) <= vars(known).keys(), path


@pytest.mark.parametrize("name", [one.name for one in methods().values() if one.trainer])
def test_options_of_a_new_adapter_are_refused_beside_init_from(name: str) -> None:
    kind = load(methods()[name].trainer or "")
    data = ["--train_data_dir=x"] if "seconds" in kind.own_only else [f"--synthetic={kind.synthetic_datasets[0]}"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def checked(options: list[str]) -> bool:
        kind(parser.parse_args([name, *data, "--output_dir=run", *options])).check()
        return True

    assert checked(["--init_from", "before"])
    for entry in fields(kind.model_options):
        choice = next((one for one in entry.metadata["choices"] or () if one != entry.default), 7)
        option = [f"--{entry.name}"] if entry.type is bool else [f"--{entry.name}", str(choice)]
        if entry.name in ("image_encoder", "audio_encoder"):  # an adapter reads through it, but does not contain it
            assert checked([*option, "--init_from", "before"])
            continue
        words = rf"{entry.name}: got \S+ beside --init_from, expected none, .*; leave one of them out"
        check_call(checked, [*option, "--init_from", "before"], words, ["--init_from", "before"])


def test_remedies_of_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    def launched(options: dict[str, Any]) -> Any:
        plugin, trainer = options.get("plugin"), options.get("shards", True)
        monkeypatch.setattr("weftwork.training.core.sharding.sharding", lambda: plugin)
        given = {name: options.get(name) for name in ("quantization", "class_designs")}
        arguments = argparse.Namespace(method="style", use_cpu=True, **given)
        return _processes(arguments, SimpleNamespace(shards=trainer))  # pyright: ignore[reportArgumentType]

    fsdp, kind = {"plugin": object()}, {"quantization": "int8"}
    words = "fsdp: got it for style, which does not split; launch with --multi_gpu"
    check_call(launched, {**fsdp, "shards": False}, words, {"shards": False})
    words = "fsdp: got it with --quantization, which does not split; leave one of them out"
    for right in (fsdp, kind):
        check_call(launched, {**fsdp, **kind}, words, right)
    words, kept = "whose images need a whole model; leave one of them out", {"class_designs": Path("kept.json")}
    for right in (fsdp, kept):
        check_call(launched, {**fsdp, **kept}, words, right)
