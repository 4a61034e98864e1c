"""The shipped Stable Diffusion backbone: its tokenizer, text encoder, denoiser and training captions."""

import numpy as np
import pytest
import torch

from weftwork.datasets.synthetic import creatures, rooms
from weftwork.datasets.synthetic.outfits import sample
from weftwork.training.recipes.backbone import (
    build_denoiser,
    build_text_encoder,
    build_tokenizer,
    grown_text_encoder,
    training_caption,
)


def test_all_synthetic_datasets_have_captions() -> None:
    rng = np.random.default_rng(0)
    creature = creatures.sample("train", 0, style=creatures.NEUTRAL).creature
    texts = {training_caption(shown, rng) for shown in (creature, sample("train", 0).garments) for _ in range(40)}
    assert "" in texts
    assert any(creature.species in text and creature.color in text for text in texts)
    assert any(sample("train", 0).garments[0].color in text for text in texts)
    scene = rooms.sample("train", 0, views=()).scene
    assert {"", "a room"} < {training_caption(scene, rng) for _ in range(40)}


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
