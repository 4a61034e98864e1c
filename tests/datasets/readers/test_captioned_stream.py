"""Streams of captioned images: an order by seed and epoch, shares of processes, wrong rows left out and counted."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import tiny_pipe

from weftwork.datasets.readers.captioned_stream import CaptionedStream
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main

STYLES = ("ink", "neon")


def rows(count: int = 12, **columns: list[Any]) -> datasets.Dataset:
    content: dict[str, Any] = {
        "image": [Image.new("RGB", (64, 64), (20 * i, 0, 0)) for i in range(count)],
        "text": [f"thing {i}" for i in range(count)],
        "style": [STYLES[i % 2] for i in range(count)],
    }
    return datasets.Dataset.from_dict(content | columns).cast_column("image", datasets.Image())


def stream(data: datasets.Dataset, shards: int = 4, **options: Any) -> CaptionedStream:
    return CaptionedStream(data.to_iterable_dataset(shards), styles=STYLES, **options)


def captions(source: CaptionedStream, epoch: int = 0, process: int = 0, processes: int = 1) -> list[str]:
    source.place(epoch, process, processes)
    return [one.caption for one in source]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = captions(stream(rows()))
    assert sorted(first) == sorted(f"thing {i}" for i in range(12))
    assert captions(stream(rows())) == first
    assert captions(stream(rows()), epoch=1) != first
    assert captions(stream(rows(), seed=1)) != first


@pytest.mark.parametrize("shards", [1, 4])
def test_processes_read_shares(shards: int) -> None:
    source = stream(rows(), shards)
    shares = [captions(source, 0, process, 2) for process in (0, 1)]
    assert [len(share) for share in shares] == [6, 6]
    assert sorted(shares[0] + shares[1]) == sorted(captions(source))


def test_wrong_rows_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    source = stream(rows(4, text=["a", "", "c", "d"], style=["ink", "ink", "pastel", "neon"]))
    assert sorted(captions(source)) == ["a", "d"]
    assert source.left_out == 2
    assert "style: got 'pastel', expected one of ink, neon; add it to styles" in caplog.text


def test_labels_bring_their_names() -> None:
    data = rows(2, style=[1, -1]).cast_column("style", datasets.ClassLabel(names=["ink", "neon"]))
    source = CaptionedStream(data.to_iterable_dataset())
    assert source.styles == STYLES
    source.place(0)
    assert [one.style for one in source] == ["neon"]


def test_a_stream_may_leave_styles_out() -> None:
    source = CaptionedStream(rows(2).to_iterable_dataset(), styled=False)
    source.place(0)
    assert source.styles == ("any",) and [one.style for one in source] == ["any"] * 2


@pytest.mark.parametrize("options", [{"styled": False}, {"style": "ink"}, {}])
def test_names_of_styles_that_are_known_are_refused(options: dict[str, Any]) -> None:
    data = rows(2, style=[1, 0]).cast_column("style", datasets.ClassLabel(names=["ink", "neon"]))
    data = data.remove_columns("style") if "style" in options else data
    with pytest.raises(ValueError, match=r"styles: has no effect with data whose styles are (ink|any|ink, neon); "):
        stream(data, 1, **options)


def test_unknown_options_are_refused() -> None:
    options: dict[str, Any] = {"caption_colum": "text"}
    with pytest.raises(TypeError, match="caption_colum"):
        stream(rows(2), 1, **options)


def test_names_of_styles_are_asked_for() -> None:
    with pytest.raises(ValueError, match="styles: got none for the column 'style', expected its names"):
        CaptionedStream(rows(2).to_iterable_dataset())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A tiny model, and a data set in two files."""
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    for part in range(2):
        rows(5).to_parquet(tmp_path / "data" / f"train-{part}.parquet")
    return tmp_path


@pytest.mark.slow
def test_training_on_a_stream_goes_on_with_the_same_bits(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", files / "cache")
    command = ["train", "style", "--dataset_name", str(files / "data"), "--streaming", "--styles", *STYLES,
               "--pretrained_model_name_or_path", str(files / "model"), "--train_batch_size", "4",
               "--max_train_steps", "4", "--lr_warmup_steps", "0", "--validation_steps", "0",
               "--report_to", "none", "--use_cpu"]  # fmt: skip
    assert main([*command, "--dry_run", "--output_dir", str(files / "dry")]) == 0
    assert main([*command, "--checkpointing_steps", "3", "--output_dir", str(files / "run")]) == 0
    whole = load_file(files / "run/final/diffusion_pytorch_model.safetensors")
    assert main([*command, "--resume_from_checkpoint", "latest", "--output_dir", str(files / "run")]) == 0
    again = load_file(files / "run/final/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert '"samples": "a stream"' in (files / "run/final/config.json").read_text()


def test_saved_sets_are_streamed_too(tmp_path: Path) -> None:
    rows(4).save_to_disk(tmp_path / "saved")
    assert sorted(captions(CaptionedStream.from_name(tmp_path / "saved", styles=STYLES))) == [
        f"thing {i}" for i in range(4)
    ]
