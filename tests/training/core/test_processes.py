"""Several processes train and generate the same as one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny import drawn_sketch, paired_adapter, tiny_pipe
from tiny_transformers import tiny_transformer_pipe

from weftwork.datasets.readers.pair_folder import PairSample, write_pair_folder
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.pretrained import available

ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true"}
WEIGHTS = "final/diffusion_pytorch_model.safetensors"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tiny model and adapter, and eight images with one to three pairs each."""
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(tmp_path / "model")
    paired_adapter(pipe.unet).save_pretrained(tmp_path / "paired")
    samples = []
    for i in range(8):
        count = 1 + i % 3
        sketches, texts = (drawn_sketch(i + j) for j in range(count)), (f"thing {j}" for j in range(count))
        image = Image.new("RGB", (64, 64), (30 * i, 0, 90))
        samples.append(PairSample(image, tuple(sketches), tuple(texts), f"picture {i}", None, str(i)))
    write_pair_folder(samples, tmp_path / "data")
    return tmp_path


def weftwork(processes: int, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "weftwork.scripts.cli", *arguments]
    settings = ENVIRONMENT | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=settings)


def train(own: Path, name: str, processes: int, accumulated: int, *more: str, **environment: str) -> Any:
    done = weftwork(
        processes, "train", "paired", "--train_data_dir", str(own / "data"), "--output_dir", str(own / name),
        "--pretrained_model_name_or_path", str(own / "model"), "--init_from", str(own / "paired"), "--cache_dir",
        str(own / "cache"), "--train_batch_size", "2", "--gradient_accumulation_steps", str(accumulated),
        "--max_train_steps", "5", "--checkpointing_steps", "0", "--validation_steps", "0", "--lr_warmup_steps", "0",
        "--use_cpu", "--optimizer", "sgd", "--learning_rate", "0.1", "--no-use_ema", *more, **environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (own / name / "printed").write_text(done.stdout)
    return load_file(own / name / WEIGHTS)


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(own: Path) -> None:
    two, one = train(own, "two", 2, 1), train(own, "one", 1, 2)  # two first, who find nothing encoded
    assert all("| batch | 4 |" in (own / name / "final/README.md").read_text() for name in ("one", "two"))
    start = load_file(own / "paired/diffusion_pytorch_model.safetensors")
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-5
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 1e-3
    logs = [(own / name / "metrics.jsonl").read_text().splitlines()[0] for name in ("one", "two")]
    assert json.loads(logs[0])["loss"] != json.loads(logs[1])["loss"]  # that of the first process alone


@pytest.mark.slow
@pytest.mark.skipif("spatial-audio" not in available(), reason="the shipped models are not installed")
@pytest.mark.parametrize("method", ["spatial-audio --synthetic walks", "aligned-views --synthetic rooms"])
def test_two_processes_train_modules_of_several_parts(method: str, tmp_path: Path) -> None:
    trained = []
    for processes in (1, 2):
        done = weftwork(
            processes, "train", *method.split(), "--samples", "4", "--output_dir", str(tmp_path / str(processes)),
            "--cache_dir", str(tmp_path / "cache"), "--train_batch_size", "1", "--gradient_accumulation_steps",
            str(2 // processes), "--max_train_steps", "2", "--checkpointing_steps", "0", "--validation_steps", "0",
            "--lr_warmup_steps", "0", "--use_cpu", "--optimizer", "sgd", "--learning_rate", "0.1", "--no-use_ema",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        files = sorted((tmp_path / str(processes) / "final").rglob("*.safetensors"))
        trained.append({(file.parent.name, name): t for file in files for name, t in load_file(file).items()})
    one, two = trained
    assert one and one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-5


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
"""As `accelerate launch --use_fsdp --fsdp_version 2` sets them."""


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {"FSDP_RESHARD_AFTER_FORWARD": "false"}])
def test_a_sharded_backbone_trains_the_same(own: Path, changed: dict[str, str]) -> None:
    validated = ("--validation_steps", "4", "--gradient_checkpointing")
    split, whole = train(own, "split", 2, 1, *validated, **(FSDP | changed)), train(own, "whole", 2, 1, *validated)
    assert split.keys() == whole.keys()
    assert max(float((split[name] - whole[name]).abs().max()) for name in whole) <= 1e-5
    here, total = re.findall(r"backbone: ([\d,]+) of ([\d,]+) numbers", (own / "split/printed").read_text())[0]
    assert int(here.replace(",", "")) * 2 == pytest.approx(int(total.replace(",", "")), rel=0.01)
    images = [np.asarray(Image.open(own / name / "validation/000004.png"), np.int16) for name in ("split", "whole")]
    assert np.abs(images[0] - images[1]).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image", "z-image"])
def test_a_sharded_transformer_trains_the_same(family: str, tmp_path: Path) -> None:
    tiny_transformer_pipe(family).save_pretrained(tmp_path / "model")
    rows = []
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 0, 90)).save(tmp_path / f"{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": "a cat", "style": ["ink", "oil"][index % 2]}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    options = {
        "pretrained_model_name_or_path": tmp_path / "model", "train_data_dir": tmp_path, "resolution": 64,
        "cache_dir": tmp_path / "cache", "train_batch_size": 1, "max_sequence_length": 16, "max_train_steps": 3,
        "validation_steps": 0, "checkpointing_steps": 0, "lr_warmup_steps": 0, "layers": "all", "optimizer": "sgd",
        "learning_rate": 0.1,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    words += ["--use_cpu", "--no-use_ema", "--gradient_checkpointing"]
    trained = []
    for name, settings in (("split", FSDP), ("whole", {})):
        done = weftwork(2, "train", "style", *words, f"--output_dir={tmp_path / name}", **settings)
        assert done.returncode == 0, done.stderr[-3000:]
        printed = re.findall(r"backbone: ([\d,]+) of ([\d,]+) numbers", done.stdout)
        assert bool(printed) == (name == "split")
        trained.append(load_file(tmp_path / name / WEIGHTS))
    split, whole = trained
    assert split.keys() == whole.keys()
    assert max(float((split[name] - whole[name]).abs().max()) for name in whole) <= 1e-5


@pytest.mark.slow
def test_unsupported_sharding_is_refused(own: Path) -> None:
    command = ("--output_dir", str(own / "refused"), "--use_cpu")
    done = weftwork(2, "train", "paired", "--synthetic", "outfits", *command, ACCELERATE_USE_FSDP="true")
    assert done.returncode and "fsdp_version: got 1, expected 2" in done.stderr
    done = weftwork(2, "train", "aligned-views", "--synthetic", "rooms", *command, **FSDP)
    assert done.returncode and "fsdp: got it for aligned-views" in done.stderr
    assert not (own / "refused").exists()


AGREE = """
import torch
from accelerate import PartialState
from weftwork.training.core.gradients import average_gradients, broadcast_parameters

rank = PartialState(cpu=True).process_index
both, one, none = (torch.nn.Parameter(torch.full((2, 2), float(rank))) for _ in range(3))
broadcast_parameters([both, one, none])
assert all((p == 0).all() for p in (both, one, none))
both.grad = torch.full((2, 2), rank + 1.0)
one.grad = torch.full((2, 2), 4.0) if rank else None
average_gradients([both, one, none])
assert (both.grad == 1.5).all() and (one.grad == 2).all() and none.grad is None
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_agree_on_weights_and_gradients(tmp_path: Path) -> None:
    (tmp_path / "agree.py").write_text(AGREE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(tmp_path / "agree.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_share_the_designs(own: Path) -> None:
    rows = [{"name": f"n{i}", "prompt": f"a {i}", "num_inference_steps": 2} for i in range(3)]
    (own / "all.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for processes in (1, 2):
        output = str(own / f"out{processes}")
        words = ["--input", str(own / "all.jsonl"), "--output", output, "--model", str(own / "model")]
        done = weftwork(processes, "generate", *words)
        assert done.returncode == 0, done.stderr[-3000:]
    for row in rows:
        one, two = (np.asarray(Image.open(own / f"out{count}/{row['name']}.png"), np.int16) for count in (1, 2))
        assert np.abs(one - two).max() <= 1
