"""Feature caches: equal to the encoders' outputs, computed once, and again if damaged or of another encoder."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_parts, tiny_pipe
from transformers import Dinov2Config, Dinov2Model

from weftwork.attention_processors.encoders import SketchEncoder, TextEncoders
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.training.data import feature_cache, image_cache
from weftwork.training.data.feature_cache import (
    CachedSketchEncoder,
    CachedTextEncoders,
    FeatureCache,
    cached,
    encoder_key,
)


def text_encoders() -> TextEncoders:
    return TextEncoders.of(tiny_pipe(ConditionedStableDiffusionPipeline))


def sketch_encoder() -> SketchEncoder:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    return SketchEncoder(Dinov2Model(config))


def count_calls(model: Any) -> list[int]:
    calls: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    return calls


def test_texts_are_encoded_once(tmp_path: Path) -> None:
    plain = text_encoders()
    read, calls = CachedTextEncoders(plain, tmp_path), count_calls(plain.models[0])
    texts = ["a b", "c", "a b", ""]
    expected = plain.tokens(texts, 12)
    calls.clear()
    for encoder in (read, read, CachedTextEncoders(plain, tmp_path)):
        states, mask = encoder.tokens(texts, 12)
        torch.testing.assert_close(states, expected[0], atol=1e-6, rtol=1e-5)
        assert torch.equal(mask, expected[1])
    assert calls == [3]
    torch.testing.assert_close(read.pooled(texts), plain.pooled(texts), atol=1e-6, rtol=1e-5)
    assert read.tokens(["a b"], 8)[0].shape[1] == 8
    with pytest.raises(ValueError, match="tokens, expected at most"):
        read.tokens(["a " * 90], 12)


def test_images_are_encoded_once_by_content(tmp_path: Path) -> None:
    plain = sketch_encoder()
    read, calls = CachedSketchEncoder(plain, tmp_path), count_calls(plain.model)
    images = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(read(images), plain(images), atol=1e-6, rtol=1e-5)
    calls.clear()
    torch.testing.assert_close(read(images.flip(0)), plain(images.flip(0)), atol=1e-6, rtol=1e-5)
    assert calls == [3]  # of the plain one
    changed = images.clone()
    changed[1, 0, 0, 0] += 0.5
    calls.clear()
    read(changed)
    assert calls == [1]


def content(number: int) -> bytes:
    return str(number).encode()


def test_damaged_rows_are_encoded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = FeatureCache(tmp_path, "key").rows([0, 1], content, lambda some: {"x": torch.tensor(some).float()})
    assert rows["x"].tolist() == [0, 1]
    damaged = sorted(tmp_path.rglob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:20])
    made: list[list[int]] = []

    def encode(some: list[int]) -> dict[str, torch.Tensor]:
        made.append(some)
        return {"x": torch.tensor(some).float()}

    again = FeatureCache(tmp_path, "key").rows([0, 1], content, encode)
    assert again["x"].tolist() == [0, 1] and len(made) == 1 and len(made[0]) == 1
    assert "encoding again" in caplog.text
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


def test_rows_are_kept_in_memory_up_to_a_number_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "IN_MEMORY", 2 * 4 * 100)
    cache, reads = FeatureCache(tmp_path, "key"), []
    monkeypatch.setattr(feature_cache, "load_file", lambda path: reads.append(path) or load_file(path))

    def read(*items: int) -> int:
        """Returns the number of files that were read."""
        reads.clear()
        rows = cache.rows(items, content, lambda some: {"x": torch.tensor(some).float()[:, None].expand(-1, 100)})
        assert rows["x"][:, 0].tolist() == list(items)
        return len(reads)

    assert [read(0, 1, 2), read(1, 2), read(0), read(2), read(1)] == [0, 0, 1, 0, 1]


def test_other_encoders_have_other_keys() -> None:
    one, other = (tiny_parts()["text_encoder"] for _ in range(2))
    assert encoder_key("text", one) == encoder_key("text", other) != encoder_key("more", one)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1
    assert encoder_key("text", one) != encoder_key("text", other) != encoder_key("text", other.half())


def test_encoders_without_cache_are_unchanged(tmp_path: Path) -> None:
    made = cached({"text": text_encoders(), "sketch": sketch_encoder(), "audio": len}, tmp_path)
    assert isinstance(made["text"], CachedTextEncoders) and isinstance(made["sketch"], CachedSketchEncoder)
    assert made["audio"] is len


def test_of_several_at_once_one_draws_and_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synthetic dataset and its latents, requested by four threads at once."""
    calls: list[str] = []

    def made() -> Any:
        calls.append("encoded")
        time.sleep(0.2)
        return np.arange(3)

    def drawn(pixels: Path, truth: Path, *_: Any) -> None:
        calls.append("drawn")
        time.sleep(0.2)
        truth.write_text("[]")

    monkeypatch.setattr(image_cache, "_draw", drawn)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(image_cache.saved_once, tmp_path / "latents.npy", made) for _ in range(4)]
        draw = (tmp_path / "dataset.npy", tmp_path / "dataset.json", lambda _: None, [0])
        drawings = [pool.submit(image_cache.draw_once, *draw) for _ in range(4)]
        assert all(np.array_equal(job.result(), np.arange(3)) for job in jobs)
        assert all(job.result() is None for job in drawings)
    assert sorted(calls) == ["drawn", "encoded"]
