"""Adapters are trained on transformers: Flux, SD3, Qwen-Image and Z-Image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_transformers import FAMILIES, tiny_transformer_pipe

from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.pipelines import attach, conditions
from weftwork.scripts.cli import main
from weftwork.training.core.denoisers import packed, unpacked
from weftwork.training.tasks.style import StyleConfig, StyledRecord, StyleTask

PLAIN = {"caption_dropout": 0.0, "style_dropout": 0.0, "joint_dropout": 0.0}


def style_task(family: str, **options: Any) -> StyleTask:
    pipe = tiny_transformer_pipe(family)
    torch.manual_seed(0)
    adapter = StyleAdapter.for_denoiser(pipe.transformer, layers="all", styles=["ink", "oil"], token_dim=32)
    return StyleTask(adapter, pipe, StyleConfig(**{**PLAIN, **options}), ["a cat"])


def batch_of(task: StyleTask) -> Any:
    config = task.pipe.vae.config
    size = config.get("latent_channels", config.get("z_dim")), 8, 8
    draws = torch.Generator().manual_seed(0)
    records = [StyledRecord(torch.randn(size, generator=draws), style, ("a cat",)) for style in ("ink", "oil")]
    return task.collate(records)


def test_the_loss_of_flux_is_that_computed_by_hand() -> None:
    task = style_task("flux-distilled", guidance_scale=2.0, max_sequence_length=16)
    pipe, batch = task.pipe, batch_of(task)
    loss = task.loss(task.module, batch, torch.Generator().manual_seed(1), 0)
    draws = torch.Generator().manual_seed(1)
    torch.rand(2, 2, generator=draws), torch.rand(2, 2, generator=draws)  # dropout and choice of captions
    noise = torch.randn(batch.latents.shape, generator=draws)
    shares = torch.normal(0.0, 1.0, (2,), generator=draws).sigmoid()
    table = torch.linspace(1 / 1000, 1, 1000)
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (16 - 256)  # 16 tokens
    sigma = np.exp(mu) / (np.exp(mu) + 1 / table[(shares * 1000).long()] - 1)
    noisy = (1 - sigma.view(-1, 1, 1, 1)) * batch.latents + sigma.view(-1, 1, 1, 1) * noise
    states, pooled, text_ids = pipe.encode_prompt("a cat", num_images_per_prompt=2, max_sequence_length=16)
    with conditions(pipe, {"style": [[Style("ink")], [Style("oil")]]}):
        velocity = pipe.transformer(
            hidden_states=pipe._pack_latents(noisy, 2, 4, 8, 8),
            timestep=sigma,
            guidance=torch.tensor([2.0, 2.0]),
            pooled_projections=pooled,
            encoder_hidden_states=states,
            txt_ids=text_ids,
            img_ids=pipe._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32),
            return_dict=False,
        )[0]
    expected = (unpacked(velocity, noisy) - (noise - batch.latents)).square().mean()
    torch.testing.assert_close(loss, expected.to(loss), atol=1e-5, rtol=1e-4)
    assert packed(noisy).shape == velocity.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_adapters_alone_also_with_checkpointing(family: str) -> None:
    grads: list[list[torch.Tensor]] = []
    for checkpointing in (False, True):
        task = style_task(family)
        if checkpointing:
            task.frozen.enable_gradient_checkpointing()
            task.frozen.train()
        task.loss(task.module, batch_of(task), torch.Generator().manual_seed(1), 0).backward()
        assert all(p.grad is None for p in task.frozen.parameters())
        grads.append([p.grad for p in task.module.parameters() if p.grad is not None])
        assert len(grads[-1]) == len(list(task.module.parameters()))
        assert any(grad.abs().max() > 0 for grad in grads[-1])
    for plain, again in zip(*grads, strict=True):
        assert torch.equal(plain, again)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    (folder / "data").mkdir()
    rows = []
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 0, 90)).save(folder / f"data/{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": "a cat", "style": ["ink", "oil"][index % 2]}))
    (folder / "data/metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_style_is_trained_and_generated(folder: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, source, output = tiny_transformer_pipe(family), folder / family, folder / f"{family}-run"
    pipe.save_pretrained(source)

    def train(*more: str) -> None:
        options = {
            "pretrained_model_name_or_path": source, "train_data_dir": folder / "data", "cache_dir": folder / "cache",
            "resolution": 64, "train_batch_size": 2, "max_sequence_length": 16, "max_train_steps": 2,
            "checkpointing_steps": 1, "validation_steps": 0, "report_to": "none", "lr_warmup_steps": 0, "layers": "all",
        }  # fmt: skip
        given = [f"--{name}={value}" for name, value in options.items()]
        assert main(["train", "style", *given, "--use_cpu", "--cache_features", *more]) == 0

    train("--dry_run", f"--output_dir={output}")
    assert "StyleAdapter" in capsys.readouterr().out and not output.exists()
    train(f"--output_dir={output}")
    weights = (output / "final/diffusion_pytorch_model.safetensors").read_bytes()
    resumed = folder / f"{family}-again"
    resumed.mkdir()
    (output / "checkpoint-1").rename(resumed / "checkpoint-1")
    train(f"--output_dir={resumed}", "--resume_from_checkpoint=latest")
    assert (resumed / "final/diffusion_pytorch_model.safetensors").read_bytes() == weights
    adapter = StyleAdapter.from_pretrained(output / "final")
    attach(pipe, style=adapter)
    options: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "np"}

    def drawn(weight: float) -> "np.ndarray[Any, Any]":
        with conditions(pipe, {"style": Style("ink", weight=weight)}):
            return pipe("a cat", generator=torch.Generator().manual_seed(0), max_sequence_length=16, **options).images

    assert np.isfinite(drawn(1.0)).all() and np.abs(drawn(50.0) - drawn(0.0)).max() > 1e-6
