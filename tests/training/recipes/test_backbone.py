"""The shipped Stable Diffusion backbone: its tokenizer, text encoder, denoiser and training captions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from weftwork.datasets.synthetic import rooms
from weftwork.datasets.synthetic.outfits import sample
from weftwork.training.core.config import TrainingConfig
from weftwork.training.recipes.backbone import (
    build_denoiser,
    build_text_encoder,
    build_tokenizer,
    grown_text_encoder,
    tokenizer_to_resume,
    training_caption,
)


def test_all_synthetic_datasets_have_captions() -> None:
    rng = np.random.default_rng(0)
    texts = {training_caption(sample("train", 0).garments, rng) for _ in range(40)}
    assert "" in texts
    assert any(sample("train", 0).garments[0].color in text for text in texts)
    scene = rooms.sample("train", 0, views=()).scene
    assert {"", "a room"} < {training_caption(scene, rng) for _ in range(40)}


def test_tokenizers_of_the_same_texts_are_equal() -> None:
    one, other = (build_tokenizer(iter(["a red skirt", "a blue skirt", "6 big fish: a + b"] * 20)) for _ in range(2))
    assert one.get_vocab() == other.get_vocab()  # by iteration order of a hash map, they were not


def test_a_run_goes_on_with_the_tokenizer_of_its_checkpoint(tmp_path: Path) -> None:
    config = TrainingConfig(output_dir=str(tmp_path))
    assert tokenizer_to_resume(config) is None
    assert tokenizer_to_resume(replace(config, resume_from_checkpoint="latest")) is None
    (tmp_path / "checkpoint-2/state").mkdir(parents=True)
    (tmp_path / "checkpoint-2/state/progress.json").write_text("{}")
    with pytest.raises(ValueError, match=r"checkpoint: got .*checkpoint-2 without a tokenizer.*; start a new run"):
        tokenizer_to_resume(replace(config, resume_from_checkpoint="latest"))
    assert tokenizer_to_resume(replace(config, output_dir=str(tmp_path / "new"))) is None
    saved = build_tokenizer(iter(["a red skirt"] * 20))
    saved.save_pretrained(tmp_path / "checkpoint-2/tokenizer")
    found = tokenizer_to_resume(replace(config, resume_from_checkpoint="checkpoint-2"))
    assert found is not None and found.get_vocab() == saved.get_vocab()


def test_an_extended_text_encoder_keeps_its_vectors() -> None:
    few = build_tokenizer(iter(["a red skirt", "a blue skirt"] * 20))
    more = build_tokenizer(iter(["a red skirt", "a green octopus", "a blue skirt", "a green snail"] * 20))
    torch.manual_seed(0)
    known = build_text_encoder(few).eval()
    grown = grown_text_encoder(known, few, more).eval()
    assert len(more) > len(few)
    with torch.no_grad():
        states = [
            encoder(torch.tensor([tokenizer("a blue skirt").input_ids])).last_hidden_state
            for encoder, tokenizer in ((known, few), (grown, more))
        ]
    assert torch.equal(*states)
    unknown = [len(tokenizer("octopus").input_ids) for tokenizer in (few, more)]
    assert unknown == [9, 3]


def test_a_denoiser_has_the_widths_asked_for() -> None:
    assert build_denoiser(4, (32, 64)).config["attention_head_dim"] == (1, 2)
    for widths in ((), (48, 64), (0,)):
        with pytest.raises(ValueError, match=r"block_out_channels.*expected multiples of 32"):
            build_denoiser(4, widths)
