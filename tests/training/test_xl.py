"""Training of XL backbones uses the prompt embeddings of their pipelines."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_parts
from variants import xl_parts

from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.pipelines.core.mixin import (
    ConditionedStableDiffusionPipeline,
    ConditionedStableDiffusionXLPipeline,
)
from weftwork.pipelines.core.opening import open_conditioned
from weftwork.scripts.cli import main
from weftwork.training.core.denoisers import call_of
from weftwork.training.data.feature_cache import FeatureCache
from weftwork.training.data.prompts import Prompts
from weftwork.training.tasks.style import StyleConfig, StyledRecord, StyleTask


def xl_pipe() -> Any:
    pipe: Any = ConditionedStableDiffusionXLPipeline(**{k: v for k, v in xl_parts().items() if k in XL})
    pipe.set_progress_bar_config(disable=True)
    return pipe


XL = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler")


def test_prompts_are_those_of_the_pipeline(tmp_path: Path) -> None:
    pipe = xl_pipe()
    cache = FeatureCache(tmp_path, "key")
    for prompts in (Prompts(pipe, call_of(pipe.unet)), Prompts(pipe, call_of(pipe.unet), cache=cache)):
        embeds = prompts(["a b", ""], (64, 96))
        states, empty, pooled, empty_pooled = pipe.encode_prompt("a b", do_classifier_free_guidance=True)
        torch.testing.assert_close(embeds["encoder_hidden_states"], torch.cat([states, empty]), atol=1e-5, rtol=1e-5)
        added = embeds["added_cond_kwargs"]
        torch.testing.assert_close(added["text_embeds"], torch.cat([pooled, empty_pooled]), atol=1e-5, rtol=1e-5)
        assert not empty.any() and added["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]] * 2


def test_the_objective_of_xl_is_that_of_its_denoiser(tmp_path: Path) -> None:
    pipe = xl_pipe()
    adapter = StyleAdapter.for_denoiser(pipe.unet, layers="all", styles=["ink", "pastel"], token_dim=64)
    task = StyleTask(adapter, pipe, StyleConfig(caption_dropout=0, style_dropout=1, joint_dropout=0))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = task.collate([StyledRecord(one, "ink", ("a b",)) for one in latents])
    batch = replace(batch, conditions=batch.conditions.scaled(0.0))
    loss = task.loss(batch, torch.Generator().manual_seed(1), 0)
    noise = torch.Generator().manual_seed(1)
    torch.rand(2, 2, generator=noise), torch.rand(2, 2, generator=noise)
    drawn = torch.randn(latents.shape, generator=noise)
    times = (torch.rand(2, generator=noise) * 1000).long()
    states, _, pooled, _ = pipe.encode_prompt(["a b"] * 2, do_classifier_free_guidance=False)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
    predicted = pipe.unet(
        pipe.scheduler.add_noise(latents, drawn, times), times, states, added_cond_kwargs=added
    ).sample  # fmt: skip
    assert pipe.scheduler.config.prediction_type == "epsilon"
    torch.testing.assert_close(loss, (predicted - drawn).square().mean(), atol=1e-5, rtol=1e-5)


def test_an_xl_folder_is_trained_from_the_command_line(tmp_path: Path) -> None:
    xl_pipe().save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = []
    for i in range(3):
        Image.fromarray(np.full((64, 64, 3), 60 * i, np.uint8)).save(tmp_path / f"data/{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": f"a {i}", "style": "gray"}))
    (tmp_path / "data/metadata.jsonl").write_text("\n".join(rows) + "\n")
    command = ["train", "style", "--train_data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "run"),
               "--pretrained_model_name_or_path", str(tmp_path / "model"), "--cache_dir", str(tmp_path / "cache"),
               "--train_batch_size", "2", "--max_train_steps", "2", "--validation_steps", "2",
               "--cache_features"]  # fmt: skip
    assert main(command) == 0
    assert list((tmp_path / "cache/features").rglob("*.safetensors"))
    pipe = open_conditioned(tmp_path / "model")
    pipe.load_adapter(tmp_path / "run/final", "style")
    assert isinstance(pipe, ConditionedStableDiffusionXLPipeline)


def test_other_pipelines_are_refused(tmp_path: Path) -> None:
    ConditionedStableDiffusionPipeline(
        **tiny_parts(), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(tmp_path)
    assert type(open_conditioned(tmp_path)) is ConditionedStableDiffusionPipeline
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "StableCascadePriorPipeline", "prior": index["unet"]})
    )
    with pytest.raises(ValueError, match="model: got a StableCascadePriorPipeline, expected Stable Diffusion"):
        open_conditioned(tmp_path)
