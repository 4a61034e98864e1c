"""Training of IP-Adapters on user images, each its own reference, with a frozen image encoder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny import tiny_pipe
from tiny_training import losses_of
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.core.adapter_files import state_sha256
from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.attention_processors.reference.adapter import Reference, ReferenceAdapter
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.cli import main
from weftwork.training.data.feature_cache import FeatureCache
from weftwork.training.tasks.reference import ReferencedImages, ReferencedRecord, ReferenceTask
from weftwork.training.tasks.style import StyleConfig, StyledRecord


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("encoder")
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture
def command(encoder: Path, tmp_path: Path) -> list[str]:
    """Training command on four images of two aspects, with captions and an unused style."""
    images, lines = tmp_path / "images", []
    images.mkdir()
    for i in range(4):
        Image.new("RGB", (64, 32 * (1 + i % 2)), (60 * i, 20, 90)).save(images / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": "a fox", "style": "" if i else "ink"}))
    (images / "metadata.jsonl").write_text("\n".join(lines))
    tiny_pipe(ConditionedStableDiffusionPipeline).save_pretrained(tmp_path / "model")
    return ["train", "reference", "--train_data_dir", str(images), "--image_encoder", str(encoder), "--output_dir",
            str(tmp_path / "out"), "--pretrained_model_name_or_path", str(tmp_path / "model"), "--aspect_buckets",
            "--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "2", "--train_batch_size", "2",
            "--lr_warmup_steps", "0", "--validation_steps", "2"]  # fmt: skip


@pytest.mark.parametrize("projection", ["basic", pytest.param("plus", marks=pytest.mark.slow)])
def test_user_images_are_trained_on_and_generated_from(
    projection: str, command: list[str], encoder: Path, tmp_path: Path
) -> None:
    assert main([*command, "--projection", projection]) == 0
    with Image.open(tmp_path / "out/validation/000002.png") as sheet:
        assert sheet.size == (4 * 64, 3 * 64)  # references, step 0, step 2
    pipe: Any = ConditionedStableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(tmp_path / "out/final", "reference")
    pipe.set_encoders(image=ImageEncoder.from_pretrained(str(encoder)))
    about = pipe.adapters["reference"].config
    assert (about["image_dim"], about["training"]["samples"]) == ({"basic": 8, "plus": 16}[projection], 4)
    drawn = [
        pipe(
            "a fox", conditions={"reference": Reference(Image.new("RGB", (32, 32), color))}, num_inference_steps=2,
            generator=torch.Generator().manual_seed(0), output_type="pt",
        ).images for color in ("red", "blue")
    ]  # fmt: skip
    assert not torch.equal(*drawn)
    more = ["--output_dir", str(tmp_path / "more"), "--resume_from_checkpoint", "latest"]
    assert main([*command, "--init_from", str(tmp_path / "out/final"), *more]) == 0


def test_the_adapter_learns_and_the_backbone_stays(encoder: Path, tmp_path: Path) -> None:
    pipe: Any = tiny_pipe(ConditionedStableDiffusionPipeline)
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    latents = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    adapter: Any = ReferenceAdapter.for_denoiser(pipe.unet, image_dim=8, token_dim=32, num_tokens=2, image_size=32)
    records = [StyledRecord(one, "any", ("a fox",)) for one in latents]
    data = ReferencedImages(
        records, images, adapter, ImageEncoder.from_pretrained(str(encoder)), FeatureCache(tmp_path, "any")
    )
    task, before = ReferenceTask(adapter, pipe, StyleConfig(style_dropout=0, joint_dropout=0)), state_sha256(pipe.unet)
    batch = task.collate([data[0], data[1]])
    losses = losses_of(task, batch, 0.01, 4)
    assert losses[-1] < losses[0] and state_sha256(pipe.unet) == before
    pipe.detach()
    dropped = ReferenceTask(adapter, pipe, StyleConfig(style_dropout=1))
    assert batch.conditions.embeds is not None
    swapped = replace(batch, conditions=replace(batch.conditions, embeds=batch.conditions.embeds.flip(0)))
    alone, other = (dropped.loss(b, torch.Generator().manual_seed(0), 0).item() for b in (batch, swapped))
    assert alone == other  # nothing of the reference is left


@pytest.mark.parametrize("projection", ["basic", "plus", "full"])
def test_dropped_references_are_the_null_of_generation(encoder: Path, projection: str) -> None:
    pipe: Any = tiny_pipe(ConditionedStableDiffusionPipeline)
    vision = ImageEncoder.from_pretrained(str(encoder))
    pipe.set_encoders(image=vision)
    sizes: dict[str, Any] = dict(image_dim=8 if projection == "basic" else 16, token_dim=32, image_size=32)
    sizes |= dict(num_tokens=2, hidden_dim=64, num_heads=1) if projection == "plus" else {}
    adapter: Any = ReferenceAdapter.for_denoiser(pipe.unet, projection=projection, **sizes)
    task = ReferenceTask(adapter, pipe, StyleConfig(style_dropout=1))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    embeds = (vision.pooled(pixels) if projection == "basic" else vision.states(pixels))[0]
    seen: list[Any] = []
    handle = adapter.register_forward_hook(lambda module, given, encoded: seen.append(encoded))
    batch = task.collate([ReferencedRecord(torch.zeros(4, 8, 8), embeds, ("a fox",))])
    task.loss(batch, torch.Generator().manual_seed(0), 0)
    handle.remove()
    generated = pipe.encode_conditions({"reference": Reference(embeds=embeds)}).encoded["reference"]
    for layer, pair in generated.null.items():
        for dropped, null in zip(seen[0].key_value[layer], pair, strict=True):
            torch.testing.assert_close(dropped, null, atol=1e-6, rtol=1e-6)


def test_user_images_are_encoded_once(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pooled = ImageEncoder.pooled
    monkeypatch.setattr(ImageEncoder, "pooled", lambda self, px: (read.append(len(px)), pooled(self, px))[1])
    assert main([*command, "--validation_steps", "0", "--dry_run"]) == 0
    assert read == [1] and not (tmp_path / "cache").exists()
    for folder in ("first", "second"):
        assert main([*command, "--validation_steps", "0", "--output_dir", str(tmp_path / folder)]) == 0
    assert read == [1, 4]
    one, other = ((tmp_path / name / "final").glob("*.safetensors") for name in ("first", "second"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_an_encoder_is_required(command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = command.index("--image_encoder")
    assert main(command[:place] + command[place + 2 :]) == 2
    assert "image_encoder: got none; name a CLIP vision model" in capsys.readouterr().err
    assert main([*command, "--synthetic", "drawings"]) == 2
    assert "data: got --train_data_dir and --synthetic" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
