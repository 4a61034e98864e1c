"""The LoRA baseline of styles, and the image encoder of creatures."""

from pathlib import Path

import pytest

from weftwork.attention_processors.encoders import ImageEncoder
from weftwork.scripts.maintenance.train_baselines import main as train_baseline


@pytest.mark.slow
def test_a_lora_and_an_image_encoder_train_on_creatures(tmp_path: Path) -> None:
    few = ["--samples", "16", "--cache_dir", str(tmp_path / "cache"), "--max_train_steps", "1", "--lr_warmup_steps"]
    few += ["0", "--train_batch_size", "8", "--validation_steps", "0", "--checkpointing_steps", "0"]
    train_baseline(["lora", "--output_dir", str(tmp_path / "lora"), *few])
    assert (tmp_path / "lora" / "final" / "pytorch_lora_weights.safetensors").is_file()
    train_baseline(["encoder", "--output_dir", str(tmp_path / "encoder"), *few])
    encoder = ImageEncoder.from_pretrained(str(tmp_path / "encoder" / "final"))
    assert encoder.model.config.projection_dim == 128
