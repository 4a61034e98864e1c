"""Several processes train and generate what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny import drawn_sketch, paired_adapter, tiny_pipe

from weft.datasets.pair_folder import PairSample, write_pair_folder
from weft.pipelines.conditioned import ConditionedStableDiffusionPipeline

ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true"}
WEIGHTS = "final/diffusion_pytorch_model.safetensors"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A tiny model and adapter, and eight pictures with one to three pairs each."""
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.save_pretrained(tmp_path / "model")
    paired_adapter(pipe.unet).save_pretrained(tmp_path / "paired")
    samples = []
    for i in range(8):
        count = 1 + i % 3
        sketches, texts = (drawn_sketch(i + j) for j in range(count)), (f"thing {j}" for j in range(count))
        picture = Image.new("RGB", (64, 64), (30 * i, 0, 90))
        samples.append(PairSample(picture, tuple(sketches), tuple(texts), f"picture {i}", None, str(i)))
    write_pair_folder(samples, tmp_path / "data")
    return tmp_path


def weft(processes: int, *arguments: str) -> None:
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "weft.scripts.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]


def train(own: Path, name: str, processes: int, accumulated: int) -> Any:
    weft(
        processes, "train", "paired", "--train_data_dir", str(own / "data"), "--output_dir", str(own / name),
        "--pretrained_model_name_or_path", str(own / "model"), "--init_from", str(own / "paired"), "--cache_dir",
        str(own / "cache"), "--train_batch_size", "2", "--gradient_accumulation_steps", str(accumulated),
        "--max_train_steps", "5", "--checkpointing_steps", "0", "--validation_steps", "0", "--lr_warmup_steps", "0",
        "--use_cpu", "--optimizer", "sgd", "--learning_rate", "0.1", "--no-use_ema",
    )  # fmt: skip
    return load_file(own / name / WEIGHTS)


@pytest.mark.slow
def test_two_processes_train_what_one_does_with_twice_the_batch(own: Path) -> None:
    two, one = train(own, "two", 2, 1), train(own, "one", 1, 2)  # two first, who find nothing encoded
    assert all("| batch | 4 |" in (own / name / "final/README.md").read_text() for name in ("one", "two"))
    start = load_file(own / "paired/diffusion_pytorch_model.safetensors")
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-5
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 1e-3
    logs = [(own / name / "metrics.jsonl").read_text().splitlines()[0] for name in ("one", "two")]
    assert json.loads(logs[0])["loss"] != json.loads(logs[1])["loss"]  # that of the first process alone


@pytest.mark.slow
def test_two_processes_share_the_designs(own: Path) -> None:
    rows = [{"name": f"n{i}", "prompt": f"a {i}", "num_inference_steps": 2} for i in range(3)]
    (own / "all.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for processes in (1, 2):
        weft(processes, "generate", "--input", str(own / "all.jsonl"), "--output", str(own / f"out{processes}"),
             "--model", str(own / "model"))  # fmt: skip
    for row in rows:
        one, two = (np.asarray(Image.open(own / f"out{count}/{row['name']}.png"), np.int16) for count in (1, 2))
        assert np.abs(one - two).max() <= 1
