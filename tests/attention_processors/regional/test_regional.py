"""Regional prompts: parts of the prompt that the image sees in a region alone, on every family with text keys."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_unet
from torch import Tensor
from torch._dynamo.utils import counters

from weftwork.attention_processors.core.branch import Attend, Branch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout, family_of
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.core.strength import GUIDED
from weftwork.attention_processors.in_context.adapter import InContextAdapter
from weftwork.attention_processors.in_context.conditions import InContextReference
from weftwork.attention_processors.regional.adapter import RegionalAdapter
from weftwork.attention_processors.regional.conditions import RegionalPrompt, joined_prompts
from weftwork.scripts.benchmarks.backbones.tiny import BACKBONES, Made, flux, ids, noise, parts, pixart, run, sd3, wan

LEFT, SPAN = (0.0, 0.0, 0.5, 1.0), (5, 7)


def unet() -> Made:
    inputs = {"sample": noise(2, 4, 8, 8), "timestep": 500, "encoder_hidden_states": noise(2, 7, 32)}
    return tiny_unet(), inputs


FAMILIES = (unet, *(one for one in BACKBONES if "audio" not in one.__name__ and one.__name__ != "ace_step"))
every = pytest.mark.parametrize("backbone", FAMILIES, ids=lambda one: one.__name__)


class Spy(Branch):
    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        self.out, self.queries = own.out, query.shape[1]
        return out


def laid_out(model: Any, inputs: Any, *prompts: RegionalPrompt, halves: Any = GUIDED[1:]) -> Conditioning:
    adapter = RegionalAdapter.for_denoiser(model)
    rows = [list(prompts)] * (1 if len(halves) > 1 else 2)
    encoded = adapter(adapter.features(adapter.collate(rows), {}))
    return Conditioning.of({"it": encoded}, call_layout(model, inputs, halves=halves))


def output(model: Any, inputs: Any, *prompts: RegionalPrompt, **options: Any) -> Tensor:
    with conditioned(model, laid_out(model, inputs, *prompts, **options)):
        return run(model, inputs)


@every
@torch.no_grad()
def test_a_region_acts_in_its_places(backbone: Callable[[], Made]) -> None:
    """In the first layer, places outside of the region compute what they do without the text, and no others."""
    model, inputs = parts(backbone)
    stock = run(model, inputs)
    install(model)
    outs = {}
    for name, prompt in (("off", {"weight": 0.0}), ("left", {"region": LEFT}), ("on", {})):
        conditioning = laid_out(model, inputs, RegionalPrompt(tokens=SPAN, **prompt))
        first = next(iter(conditioning.branches))
        spy = Spy()
        branches = {**conditioning.branches, first: (*conditioning.branches[first], spy)}
        with conditioned(model, Conditioning(branches)):
            final = run(model, inputs)
        tokens = family_of(model).tokens(model, inputs)
        assert tokens is not None
        begin, end = tokens.span(spy.queries)
        grid = call_layout(model, inputs).grid(first)
        outs[name] = spy.out[0, begin:end].flatten(1).unflatten(0, (-1, *grid))
        assert (final - stock).abs().max() > 1e-7 or name == "on"
    half = outs["off"].shape[2] // 2
    torch.testing.assert_close(outs["left"][..., half:, :], outs["off"][..., half:, :], atol=1e-6, rtol=0)
    torch.testing.assert_close(outs["left"][..., :half, :], outs["on"][..., :half, :], atol=1e-6, rtol=0)
    assert ((outs["on"] - outs["off"]).abs().amax(-1) > 0).all()


@pytest.mark.parametrize("backbone", [unet, flux, sd3, wan, pixart], ids=lambda one: one.__name__)
@torch.no_grad()
def test_zero_is_the_prompt_without_the_text(backbone: Callable[[], Made]) -> None:
    model, inputs = parts(backbone)
    shorter = {**inputs, "encoder_hidden_states": inputs["encoder_hidden_states"][:, :5]}
    if "txt_ids" in inputs:
        shorter["txt_ids"] = inputs["txt_ids"][:5]
    wanted, stock = run(model, shorter), run(model, inputs)
    install(model)
    torch.testing.assert_close(
        output(model, inputs, RegionalPrompt(tokens=SPAN, weight=0.0)), wanted, atol=1e-5, rtol=0
    )
    assert (wanted - stock).abs().max() > 1e-4


@torch.no_grad()
def test_schedules_and_halves_of_guidance() -> None:
    model, inputs = parts(flux)
    stock = run(model, inputs)
    install(model)
    off, on = (output(model, inputs, RegionalPrompt(tokens=SPAN, weight=weight)) for weight in (0.0, 1.0))
    conditioning = laid_out(model, inputs, RegionalPrompt(tokens=SPAN, start=0.5))
    with conditioned(model, conditioning):
        for step, wanted in ((0, off), (1, off), (2, on), (3, on)):
            conditioning.set_step(step, 4)
            torch.testing.assert_close(run(model, inputs), wanted, atol=1e-6, rtol=0)
    got = output(model, inputs, RegionalPrompt(tokens=SPAN, weight=0.0), halves=GUIDED)
    torch.testing.assert_close(got[:1], stock[:1], atol=1e-6, rtol=0)
    torch.testing.assert_close(got[1:], off[1:], atol=1e-6, rtol=0)


@torch.no_grad()
def test_two_regions_swap_with_their_texts() -> None:
    """Two parts: the same texts in another order, with their regions, are the same image."""
    model, inputs = parts(flux)
    install(model)
    base, first, second = inputs["encoder_hidden_states"].split([3, 2, 2], 1)
    results = []
    for order in ((first, second), (second, first)):
        embeds, spans = joined_prompts(base, *order)
        assert spans == [(0, 3), (3, 5), (5, 7)]
        regions = [LEFT if one is first else (0.5, 0, 1, 1) for one in order]
        prompts = (RegionalPrompt(tokens=span, region=region) for span, region in zip(spans[1:], regions, strict=True))
        results.append(output(model, {**inputs, "encoder_hidden_states": embeds}, *prompts))
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
    assert (results[0] - run(model, inputs)).abs().max() > 1e-4


@torch.no_grad()
def test_together_with_references_in_one_call() -> None:
    """Both at 0 are the model without the text and without the reference."""
    model, inputs = parts(flux)
    inputs = {**inputs, "hidden_states": noise(2, 22, 4), "img_ids": torch.cat([ids(4, 4), ids(2, 3, image=1)])}
    without = {
        "hidden_states": inputs["hidden_states"][:, :16],
        "img_ids": ids(4, 4),
        "encoder_hidden_states": inputs["encoder_hidden_states"][:, :5],
        "txt_ids": inputs["txt_ids"][:5],
    }
    wanted = run(model, {**inputs, **without})
    install(model)
    references, texts = InContextAdapter.for_denoiser(model), RegionalAdapter.for_denoiser(model)

    def both(weight: float, region: Any = None) -> Tensor:
        options: dict[str, Any] = {"weight": weight, "region": region}
        given = references.collate([[InContextReference(0, **options)]] * 2)
        prompts = texts.collate([[RegionalPrompt(tokens=SPAN, **options)]] * 2)
        made = {"references": references(given), "texts": texts(prompts)}
        with conditioned(model, Conditioning.of(made, call_layout(model, inputs))):
            return run(model, inputs)[:, :16]

    torch.testing.assert_close(both(0.0), wanted, atol=1e-5, rtol=0)
    halves = both(1.0, LEFT).unflatten(1, (4, 4))
    everywhere = both(1.0, (0, 0, 1, 1)).unflatten(1, (4, 4))
    assert (halves - everywhere).abs().max() > 1e-4
    none = wanted.unflatten(1, (4, 4))
    nearer = [(halves[:, :, side] - other[:, :, side]).abs().mean() for side in (slice(2), slice(2, 4))
              for other in (everywhere, none)]  # fmt: skip
    assert nearer[0] < nearer[1] and nearer[3] < nearer[2]


def test_bad_prompts() -> None:
    for given in ({}, {"prompt": "a", "tokens": (0, 1)}):
        with pytest.raises(ValueError, match=r"prompt: got .* expected one of both"):
            RegionalPrompt(**given)
    with pytest.raises(ValueError, match="prompt: got ' ', expected a text"):
        RegionalPrompt(" ")
    with pytest.raises(ValueError, match=r"^prompt: got .*, with half a character at 3; write it again"):
        RegionalPrompt("a \ud83d")
    for tokens in (np.array([1, 4]), (np.int64(1), 4), torch.tensor([[1, 4]])):
        assert RegionalPrompt(tokens=tokens).spans == ((1, 4),)  # pyright: ignore[reportArgumentType]
    for tokens in ((3, 3), (-1, 2), (), [(0, 1), (4, 2)], 3, (0.0, 1.0), [("0", "1")], [(0, 1), (3,)], (False, True)):
        with pytest.raises(ValueError, match="tokens: got"):
            RegionalPrompt(tokens=tokens)  # pyright: ignore[reportArgumentType]
    for embeds in ((), (noise(1, 3, 4), noise(1, 3, 5)), (noise(3, 4),)):
        with pytest.raises(ValueError, match="embeds: got shapes"):
            joined_prompts(*embeds)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_blocks_take_new_strengths_and_spans() -> None:
    """Of seven tokens; spans that end in one power of two have one graph, and those beyond the prompt are refused."""
    model, inputs = parts(flux)
    install(model)
    given = [laid_out(model, inputs, RegionalPrompt(tokens=one, region=LEFT, end=0.5)) for one in ((5, 7), (1, 5))]
    wanted = []
    for one in given:
        with conditioned(model, one):
            wanted.append(run(model, inputs))
    torch._dynamo.reset()
    counters.clear()
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    graphs = []
    for conditioning, eager in zip(given, wanted, strict=True):
        with conditioned(model, conditioning):
            for step in (0, 3, 0):
                conditioning.set_step(step, 4)
                assert torch.equal(run(model, inputs), eager) == (step == 0)
                graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == 1 and not torch.equal(*wanted)
    with (
        conditioned(model, laid_out(model, inputs, RegionalPrompt(tokens=(5, 8), region=LEFT))),
        pytest.raises(RuntimeError, match="tokens: got some beyond the prompt"),
    ):
        run(model, inputs)
