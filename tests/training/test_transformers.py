"""Adapters are trained on transformers: Flux, SD3, Qwen-Image and Z-Image."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_transformers import FAMILIES, tiny_transformer_pipe
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.style.adapter import Style, StyleAdapter
from weftwork.pipelines import conditions
from weftwork.pipelines.core.opening import conditioned_class, open_conditioned
from weftwork.scripts.benchmarks.backbones import memory
from weftwork.scripts.cli import main
from weftwork.training.core.denoisers import call_of, packed, unpacked
from weftwork.training.data.prompts import Prompts
from weftwork.training.tasks.style import StyledRecord, StyleTask
from weftwork.training.trainers.captioned import StyleConfig

PLAIN = {"caption_dropout": 0.0, "style_dropout": 0.0, "joint_dropout": 0.0}


def style_task(family: str, change: Callable[[Any], object] = lambda denoiser: None, **options: Any) -> StyleTask:
    stock = tiny_transformer_pipe(family)
    change(stock.transformer)
    pipe = conditioned_class(type(stock))(**stock.components)
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
    loss = task.loss(batch, torch.Generator().manual_seed(1), 0)
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
        task.loss(batch_of(task), torch.Generator().manual_seed(1), 0).backward()
        assert all(p.grad is None for p in task.frozen.parameters())
        grads.append([p.grad for p in task.module.parameters() if p.grad is not None])
        assert len(grads[-1]) == len(list(task.module.parameters()))
        assert any(grad.abs().max() > 0 for grad in grads[-1])
    for plain, again in zip(*grads, strict=True):
        assert torch.equal(plain, again)


class Codes(torch.Tensor):
    """Weights as whole numbers."""

    def dequantize(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.as_subclass(torch.Tensor) / 127


class Stored(torch.nn.Linear):
    """A linear layer with weights in 8 bits, in the place of those of packages."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight: Any = self.weight
        return torch.nn.functional.linear(input, weight.dequantize().to(input), self.bias)


def _to_codes(denoiser: Any) -> None:
    for owner, name, one in memory._linear_layers(denoiser):
        made = Stored(one.in_features, one.out_features, one.bias is not None)
        made.bias = one.bias
        del made._parameters["weight"]
        made.weight = (one.weight * 127).round().to(torch.int8).as_subclass(Codes)  # pyright: ignore
        setattr(owner, name, made)


QUANTIZED: dict[str, tuple[str, Callable[[Any], None]]] = {
    "stand-in": ("torch", _to_codes),
    "int8": ("torchao", memory._to_int8),
    "nf4": ("bitsandbytes", memory._to_nf4),
    "GGUF": ("gguf", memory._to_gguf),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"))
        for name, (package, _) in QUANTIZED.items()
    ],
)
def test_gradients_with_a_quantised_backbone_are_those_with_its_weights_as_plain_numbers(
    family: str, kind: str
) -> None:
    grads = []
    quantize = QUANTIZED[kind][1]
    for change in (quantize, lambda denoiser: (quantize(denoiser), memory._dequantize(denoiser))):
        task = style_task(family, change)
        task.frozen.enable_gradient_checkpointing()
        task.frozen.train()
        task.loss(batch_of(task), torch.Generator().manual_seed(1), 0).backward()
        assert all(p.grad is None for p in task.frozen.parameters())
        grads.append({name: p.grad for name, p in task.module.named_parameters()})
    for name, grad in grads[0].items():
        assert grad is not None and grad.isfinite().all() and grad.any()
        torch.testing.assert_close(grad, grads[1][name], atol=1e-5, rtol=1e-3)


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


def command(folder: Path, family: str, method: str, output: Path, *more: str) -> list[str]:
    if not (folder / family).is_dir():
        tiny_transformer_pipe(family).save_pretrained(folder / family)
    options = {
        "pretrained_model_name_or_path": folder / family, "train_data_dir": folder / "data", "output_dir": output,
        "cache_dir": folder / "cache", "resolution": 64, "train_batch_size": 2, "max_sequence_length": 16,
        "max_train_steps": 2, "validation_steps": 0, "report_to": "none", "lr_warmup_steps": 0, "layers": "all",
    }  # fmt: skip
    return ["train", method, *(f"--{name}={value}" for name, value in options.items()), "--use_cpu", *more]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_style_is_trained_resumed_and_generated(folder: Path, family: str) -> None:
    output, resumed = folder / f"{family}-run", folder / f"{family}-again"
    more = ["--cache_features", "--checkpointing_steps=1"]
    assert main(command(folder, family, "style", output, *more)) == 0
    weights = (output / "final/diffusion_pytorch_model.safetensors").read_bytes()
    resumed.mkdir()
    (output / "checkpoint-1").rename(resumed / "checkpoint-1")
    assert main(command(folder, family, "style", resumed, *more, "--resume_from_checkpoint=latest")) == 0
    assert (resumed / "final/diffusion_pytorch_model.safetensors").read_bytes() == weights
    pipe = open_conditioned(folder / family, use_safetensors=True)
    pipe.load_adapter(output / "final", "style")
    pipe.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "max_sequence_length": 16}

    def drawn(weight: float) -> "np.ndarray[Any, Any]":
        given = {**options, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
        return pipe("a cat", conditions={"style": Style("ink", weight=weight)}, **given).images

    assert np.isfinite(drawn(1.0)).all() and np.abs(drawn(50.0) - drawn(0.0)).max() > 1e-6


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image", "z-image"])
def test_a_backbone_in_8_bits_trains(folder: Path, family: str) -> None:
    whole, output = folder / f"{family}-whole", folder / f"{family}-int8"
    plain = ["--max_train_steps=1", "--optimizer=sgd", "--learning_rate=0.1", "--no-use_ema"]
    assert main(command(folder, family, "style", whole, *plain)) == 0
    assert (
        main(command(folder, family, "style", output, *plain, "--quantization=int8", "--gradient_checkpointing")) == 0
    )
    expected, trained = (load_file(one / "final/diffusion_pytorch_model.safetensors") for one in (whole, output))
    start = StyleAdapter.from_pretrained(output / "final").state_dict()
    assert trained.keys() == expected.keys() == start.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, atol=0.02, rtol=0)


def test_quantization_needs_its_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("weftwork.datasets.readers.errors.find_spec", lambda _: None)
    assert main(command(folder, "flux", "style", folder / "none", "--quantization=nf4")) == 2
    assert (
        "quantization nf4: needs bitsandbytes, which is not installed; pip install bitsandbytes"
        in capsys.readouterr().err
    )
    assert not (folder / "none").exists()


@pytest.mark.parametrize("family", ["flux", pytest.param("qwen-image", marks=pytest.mark.slow)])
def test_pairs_are_trained_with_their_validation_images(folder: Path, family: str) -> None:
    """A sketch alone, words alone and both; the words are read by CLIP, or by the language model."""
    sketch, own = Image.new("L", (64, 64), 255), folder / f"{family}-own"
    sketch.paste(0, (10, 30, 50, 34))
    own.mkdir()
    sketch.save(own / "line.png")
    sketch.transpose(Image.Transpose.ROTATE_90).save(own / "other.png")
    pairs = [{"sketch": "line.png"}, {"text": "a red leg"}, {"sketch": "other.png", "text": "a blue arm"}]
    for index in range(4):
        (own / f"{index}.png").write_bytes((folder / f"data/{index}.png").read_bytes())
    rows = [{"file_name": f"{index}.png", "caption": "a cat", "pairs": pairs} for index in range(4)]
    (own / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = folder / f"{family}-pairs"
    more = [f"--train_data_dir={own}", "--validation_steps=2", "--text_states=20"]
    assert main(command(folder, family, "paired", output, *more)) == 0
    with Image.open(output / "validation/000002.png") as sheet:
        assert sheet.size == (4 * 64, 4 * 64)


def test_references_are_trained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "vision")
    more = [f"--image_encoder={folder / 'vision'}", "--dry_run"]
    assert main(command(folder, "z-image", "reference", folder / "references", *more)) == 0
    assert "trained: " in capsys.readouterr().out and not (folder / "references").exists()


def test_options_of_other_backbones_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(folder, "sd3", "style", folder / "refused", "--snr_gamma=5")) == 2
    assert "snr_gamma: has no effect with SD3Transformer2DModel" in capsys.readouterr().err
    assert not (folder / "refused").exists()


def test_prompts_are_as_long_as_in_generation() -> None:
    pipe = tiny_transformer_pipe("flux")
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        tokenizer.model_max_length = 20
    states = Prompts(pipe, call_of(pipe.transformer))(["a cat"], (64, 64))["encoder_hidden_states"]
    assert isinstance(states, torch.Tensor) and states.shape[1] == 20
