"""Remedies in errors of training: the same call succeeds after them."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate.utils import patch_environment
from remedies import Row, check, given, row, table, text
from tiny import tiny_unet
from tiny_training import run

from weftwork.attention_processors.views.instillation import Recorded
from weftwork.training.core.checkpoints import check_unused, only_run
from weftwork.training.core.denoisers import call_of
from weftwork.training.core.quantization import quantization_options
from weftwork.training.core.sharding import sharding
from weftwork.training.tasks.attention_distillation import attention_distillation_loss

FSDP = {"accelerate_use_fsdp": "true"}


def launched(options: dict[str, str]) -> Any:
    with patch_environment(fsdp_cpu_ram_efficient_loading="true", **options):
        return [sharding()]


def held(folder: Path, other: Path) -> list[Path]:
    """Two runs at once."""
    with only_run(folder), only_run(other):
        return [folder, other]


def maps(places: int = 4) -> Recorded:
    return Recorded(torch.rand(1, places, 2, 8), torch.rand(1, 4, 2, 8), True)


ONE = {"one": maps()}


def quantized(kind: str | None) -> Any:
    """Options as with all packages, without a GPU."""
    packages, gpu = "weftwork.datasets.readers.errors.find_spec", "torch.cuda.is_available"
    with patch(packages, lambda name: name), patch(gpu, lambda: False):
        return quantization_options(kind, "float32")


def new(folder: Path) -> Path:
    (folder / "new").mkdir(exist_ok=True)
    return folder / "new"


@table(
    row(
        launched,
        given({"accelerate_use_deepspeed": "true"}),
        "got DeepSpeed, .*; launch with --multi_gpu",
        given({}),
    ),
    row(
        launched,
        given({"accelerate_use_megatron_lm": "true"}),
        "or with --use_fsdp --fsdp_version 2",
        given({**FSDP, "fsdp_version": "2"}),
    ),
    row(launched, given(FSDP), "got 1, expected 2; launch with --use_fsdp", given({**FSDP, "fsdp_version": "2"})),
    (
        "to which another run writes; pass another folder, or wait",
        lambda folder: held(folder, folder),
        lambda folder: [held(folder, new(folder)), held(folder, new(folder))],
    ),
    row(
        lambda folder: [check_unused(folder)],
        lambda folder: text("", "final/config.json")(folder).parents[1],
        "holds the result of another run; pass another folder, with --init_from .*final to train that result further",
        new,
    ),
    (
        "loss: got nan at step 2, .*; lower --learning_rate",
        lambda folder: run(folder / "high", learning_rate=1e30, lr_warmup_steps=0, max_train_steps=2),
        lambda folder: run(folder / "low", learning_rate=1e-3, lr_warmup_steps=0, max_train_steps=2),
    ),
    row(
        lambda kind: attention_distillation_loss(ONE, ONE, kind),
        given("l1"),
        "kind: got 'l1', expected one of kl, mse, logits; pass one of these",
        given("mse"),
    ),
    row(
        lambda other: attention_distillation_loss(ONE, other),
        given({"two": maps()}),
        "from one of teacher and student only; record the same layers of both",
        given({"one": maps()}),
    ),
    row(quantized, given("nf4"), "for which diffusers needs a GPU; use int8, or leave it out", given(None)),
    row(
        call_of,
        given(torch.nn.Linear(1, 1)),
        "denoiser: got Linear, expected one of UNet2DConditionModel, .*; train on one of these",
        lambda _: tiny_unet(),
    ),
    row(
        lambda other: attention_distillation_loss(ONE, other),
        given({"one": maps(9)}),
        "expected equal ones; choose layers that agree",
        given({"one": maps(4)}),
    ),
)
def test_remedies_of_training(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
