"""Attention control on stock pipelines: positions of words, halves of guidance, batches, memory, and what it leaves."""

from typing import Any

import pytest
import torch
from tiny import ALL_LEVELS, paired_adapter, paired_conditions, tiny_pipe, tiny_unet
from tiny_pipelines import PIPELINES, Tiny, run_tiny
from tiny_transformers import tiny_transformer_pipe
from torch import Tensor
from variants import run

from weftwork.attention_processors import Attend, AttentionControlAdapter
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.encoders.words import PromptWords
from weftwork.pipelines import ConditionedStableDiffusionPipeline, attach, conditions, detach

PROMPT = "a red cat and a dog"
VISUAL = [one for one in PIPELINES if one.name not in ("stable_audio", "ace_step")]


def sd(**config: Any) -> Any:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline, unet=tiny_unet(**ALL_LEVELS))
    pipe.attach(it=AttentionControlAdapter.for_denoiser(pipe.unet, **config))
    return pipe


def given(*words: str, **options: Any) -> dict[str, list[Attend]]:
    return {"it": [Attend(one, **options) for one in words]}


@pytest.mark.parametrize("tiny", VISUAL, ids=lambda one: one.name)
def test_tokens_on_every_pipeline(tiny: Tiny) -> None:
    pipe = tiny.make()
    stock = run_tiny(pipe, tiny.arguments())
    attach(pipe, it=AttentionControlAdapter.for_denoiser(pipe.transformer))
    with conditions(pipe, {"it": Attend(tokens=(1, 3), weight=0.0)}):
        assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)
    with conditions(pipe, {"it": Attend(tokens=(1, 3))}):
        made = run_tiny(pipe, tiny.arguments())
    assert made.isfinite().all() and (made - stock).abs().max() > 1e-6
    detach(pipe)
    assert torch.equal(run_tiny(pipe, tiny.arguments()), stock)


def embeddings(pipe: Any, prompt: str) -> Tensor:
    return pipe.encode_prompt(prompt, device="cpu", num_images_per_prompt=1)[0][0]


@pytest.mark.parametrize("family", ["sd", "qwen-image"])
def test_positions_are_where_causal_encoders_first_differ(family: str) -> None:
    if family == "sd":
        pipe: Any = tiny_pipe(ConditionedStableDiffusionPipeline)
        pipe.encode_prompt = lambda p, **_: type(pipe).encode_prompt(pipe, p, "cpu", 1, False)
        denoiser = pipe.unet
    else:
        pipe = tiny_transformer_pipe(family)
        denoiser = pipe.transformer
    tokens = PromptWords.of(pipe, family_of(denoiser).text)
    [(first, end)] = tokens.spans(PROMPT, "cat")
    [(behind, _)] = tokens.spans(PROMPT, "dog")
    whole, other = embeddings(pipe, PROMPT), embeddings(pipe, PROMPT.replace("cat", "fox"))
    differs = (whole - other).abs().amax(-1) > 1e-6
    assert int(differs.nonzero()[0]) == first and end <= behind
    with_tail = embeddings(pipe, PROMPT.replace("dog", "fox"))
    assert int(((whole - with_tail).abs().amax(-1) > 1e-6).nonzero()[0]) == behind


def test_words_are_read_by_every_encoder_whose_tokens_are_keys() -> None:
    pipe = tiny_transformer_pipe("sd3")
    spans = PromptWords.of(pipe, family_of(pipe.transformer).text).spans(PROMPT, "red cat")
    assert len(spans) == 2 and spans[1][0] - spans[0][0] == pipe.tokenizer.model_max_length
    pipe = tiny_transformer_pipe("flux")
    attach(pipe, it=AttentionControlAdapter.for_denoiser(pipe.transformer))
    [span] = PromptWords.of(pipe, family_of(pipe.transformer).text).spans(PROMPT, "cat")
    drawn = []
    for one in (Attend("Cat"), Attend(tokens=span), Attend("dog")):
        with conditions(pipe, {"it": one}):
            drawn.append(run(pipe, prompt=PROMPT, height=32, width=32))
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


def test_a_batch_is_its_designs_and_beside_other_conditions() -> None:
    pipe = sd(max_refinements=2)
    pipe.attach(pairs=paired_adapter(pipe.unet))
    rows = [[Attend("cat"), Attend("dog")], None, [Attend("hat", weight=0.5)]]
    prompts = [PROMPT, "a bed", "one hat"]
    pairs = [paired_conditions(), paired_conditions(1), None]

    def latents(chosen: slice, **settings: Any) -> Any:
        generator = [torch.Generator().manual_seed(i) for i in range(3)][chosen]
        made = {"it": rows[chosen], "pairs": pairs[chosen]}
        return run(pipe, prompt=prompts[chosen], conditions=made, generator=generator, **settings)

    both = latents(slice(0, 3))
    for i in range(3):
        single = latents(slice(i, i + 1))
        assert abs(both[i] - single[0]).max() < 1e-3
    assert abs(latents(slice(0, 1), guidance_scale=1.0) - both[:1]).max() > 1e-3


def test_checkpointing_and_trained_weights_change_nothing() -> None:
    pipe = sd(thresholds=[(0.0, 1.0)], max_refinements=1)
    wanted = run(pipe, prompt=PROMPT, conditions=given("cat"))
    pipe.unet.requires_grad_(True)
    pipe.unet.enable_gradient_checkpointing()
    made = run(pipe, prompt=PROMPT, conditions=given("cat"))
    assert abs(made - wanted).max() < 1e-5
    assert all(one.requires_grad and one.grad is None for one in pipe.unet.parameters())


def test_a_region_and_the_end_of_the_run() -> None:
    pipe = sd(max_refinements=2)
    whole = run(pipe, prompt=PROMPT, conditions=given("cat"))
    assert (run(pipe, prompt=PROMPT, conditions=given("cat", region=(0, 0, 0.5, 1))) != whole).any()
    latents = []
    run(
        pipe, prompt=PROMPT, conditions=given("cat", end=0.5), num_inference_steps=2,
        callback_on_step_end=lambda _pipe, _step, _time, values: latents.append(values["latents"]) or values,
    )  # fmt: skip
    stock = run(pipe, prompt=PROMPT, num_inference_steps=2)
    assert (latents[1].numpy() != stock).any()
    user = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    before = user.clone()
    run(pipe, prompt=PROMPT, latents=user, conditions=given("cat"))
    assert torch.equal(user, before)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"conditions": given("fox")}, "words: got 'fox', expected words of the prompt, which are a, red, cat, and, dog;"),
    ({"conditions": given("a")}, "words: got 'a', which the prompt has 2 times, expected a single place; add the"),
    ({"conditions": {"it": Attend(tokens=(70, 90))}}, "tokens: got some up to 90, but the prompt has 77; give those"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=["absent", "twice", "beyond"])
def test_refused(options: dict[str, Any], message: str) -> None:
    pipe = sd(max_refinements=1)
    with pytest.raises(ValueError, match=message):
        run(pipe, prompt=PROMPT, **options)
    assert abs(run(pipe, prompt=PROMPT, conditions=given("cat"))).max() > 0


def test_refused_states() -> None:
    pipe = sd()
    embeds = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0]
    with pytest.raises(ValueError, match="words: got 'cat' without a prompt to find them in"):
        run(pipe, prompt=None, prompt_embeds=embeds, guidance_scale=1.0, conditions=given("cat"))
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch\.no_grad"):
        run(pipe, prompt=PROMPT, conditions=given("cat"))
    for wrong in ({}, {"words": "a", "tokens": (0, 1)}, {"words": " "}, {"words": "a", "layers": {"all": 0.5}}):
        with pytest.raises(ValueError, match=r"^(words|layers): got"):
            Attend(**wrong)
