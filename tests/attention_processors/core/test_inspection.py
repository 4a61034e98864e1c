"""Inspection: measures of attention known by construction, exact ablations, and no trace in the image."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import RawTokensAdapter, attend, paired_conditions, raw_conditions
from torch import Tensor
from variants import SD, run

from weftwork.attention_processors.core.ablation import WHOLE
from weftwork.attention_processors.core.branch import Branch, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_layout
from weftwork.attention_processors.core.inspection import Inspector
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install
from weftwork.attention_processors.core.strength import GUIDED, ImageTokens, Layout
from weftwork.scripts.benchmarks.backbones import tiny

HEADS, DIM, PLACES = 3, 4, 6
LAYER = "layer.attn2"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return SD.attached()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def inspected(
    branches: dict[str, Branch], query: Tensor, own: OwnAttention, tokens: ImageTokens | None = None
) -> dict[str, dict[str, Tensor]]:
    """Measures of one layer at one step, in a batch of both halves of guidance."""
    inspector, outs = Inspector(), [own.out]
    inspector.begin(Layout({LAYER: 0}, (2, 3), halves=GUIDED, tokens=tokens))
    for branch in branches.values():
        outs.append(branch.mix(query, outs[-1], attend, own))
    inspector.record(LAYER, list(branches), tuple(branches.values()), query, own, outs[1:])
    return {name: {n: x[0] for n, x in one.items()} for name, one in inspector.measured()[LAYER].items()}


def own_attention(key: Tensor, query: Tensor, mask: Tensor | None = None) -> OwnAttention:
    value = draw(*key.shape) + 1
    return OwnAttention(key, value, mask, attend(query, key, value, mask))


def branch(key: Tensor, value: Tensor, parts: list[int], gain: float = 0.5) -> DecoupledBranch:
    gains = torch.full((key.shape[0], 1, 1, 1), gain)
    return DecoupledBranch(key.flatten(2), value.flatten(2), gains, None, 1, torch.tensor(parts))


def test_equal_keys_are_read_alike() -> None:
    query, keys = draw(2, PLACES, HEADS, DIM), torch.zeros(2, 5, HEADS, DIM)
    added = branch(torch.ones(2, 8, HEADS, DIM), draw(2, 8, HEADS, DIM), [0, 0, 0, 0, 0, 0, 1, 1])
    found = inspected({"it": added}, query, own_attention(keys, query))
    for name in ("first", "last", "most"):
        np.testing.assert_allclose(found["text"][name], 1 / 5, rtol=1e-6)
    np.testing.assert_allclose(found["it"]["most"], 1 / 8, rtol=1e-6)
    for name in ("text", "it"):
        np.testing.assert_allclose(found[name]["entropy"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["it 1"]["share"], 6 / 8, rtol=1e-6)
    np.testing.assert_allclose(found["it 2"]["share"], 2 / 8, rtol=1e-6)
    total = sum(found[name]["read"] for name in ("text", "it 1", "it 2"))
    np.testing.assert_allclose(total, 1, rtol=1e-6)  # pyright: ignore[reportArgumentType]


def test_a_sink_is_found_at_its_key() -> None:
    query = torch.ones(2, PLACES, HEADS, DIM)
    keys = torch.zeros(2, 5, HEADS, DIM)
    keys[:, 4, 1] = 100.0  # in one head
    text = inspected({"it": branch(keys, keys, [0] * 5)}, query, own_attention(keys, query))["text"]
    np.testing.assert_allclose(text["most"], [0.2, 1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(text["last"], [0.2, 1, 0.2], rtol=1e-6)
    np.testing.assert_allclose(text["entropy"], [1, 0, 1], atol=1e-6)
    assert int(text["most_key"][1]) == 4


def test_masked_keys_are_no_keys() -> None:
    query, keys = draw(2, PLACES, HEADS, DIM), torch.zeros(2, 5, HEADS, DIM)
    mask = torch.tensor([True, True, False, False, False]).view(1, 1, 1, 5)
    own = own_attention(keys, query, mask)
    text = inspected({"it": branch(keys, keys, [0] * 5)}, query, own)["text"]
    np.testing.assert_allclose(text["first"], 0.5)
    np.testing.assert_allclose(text["entropy"], 1, rtol=1e-6)


def test_influence_is_the_size_of_what_is_added_in_conditional_rows() -> None:
    query, keys = draw(2, PLACES, HEADS, DIM), draw(2, 5, HEADS, DIM)
    query[0] = torch.nan  # the unconditional half
    own, gain = own_attention(keys, query), 0.7
    value = draw(2, 1, HEADS, DIM)
    found = inspected({"it": branch(draw(2, 1, HEADS, DIM), value, [0], gain)}, query, own)
    sizes = gain * value[1, 0].norm(dim=-1) / own.out[1].norm(dim=-1).mean(0)
    for name in ("it", "it 1"):
        np.testing.assert_allclose(found[name]["influence"], sizes, rtol=1e-5)
    np.testing.assert_allclose(found["it 1"]["read"], sizes / (1 + sizes), rtol=1e-5)


def test_joint_layers_share_attention_between_text_and_image() -> None:
    text = 4
    query = draw(2, PLACES + text, HEADS, DIM)
    keys = torch.zeros(2, PLACES + text, HEADS, DIM)
    tokens = ImageTokens((1, 2, 3), PLACES)  # behind the text
    added = replace(branch(draw(2, 2, HEADS, DIM), draw(2, 2, HEADS, DIM), [0, 0]), image=tokens)
    found = inspected({"it": added}, query, own_attention(keys, query), tokens)
    np.testing.assert_allclose(found["text"]["share"], text / (PLACES + text), rtol=1e-6)
    np.testing.assert_allclose(found["text"]["last"], 1 / (PLACES + text), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"end": 0.5, "region": (0.0, 0.0, 0.5, 1.0)}])
def test_inspection_changes_no_bit_of_the_image(pipe: Any, options: dict[str, Any]) -> None:
    conditions = {"it": paired_conditions(**options)}
    plain, inspector = run(pipe, conditions=conditions), Inspector()
    assert np.array_equal(run(pipe, conditions=conditions, recorder=inspector), plain)
    assert np.array_equal(run(pipe, conditions=conditions), plain)
    assert list(inspector.changes) == [1] and inspector.recorded_steps == [0, 1]
    ablated, last = inspector.totals[1]["it"], inspector.measured()
    assert (ablated == 0) == ("end" in options)
    assert all((one["it"]["influence"][1].max() == 0) == ("end" in options) for one in last.values())


def test_a_head_without_output_weights_changes_nothing(pipe: Any) -> None:
    layers = attention_layers(pipe.unet)
    name = next(name for name in layers if name.endswith("attn2"))
    weight = layers[name].to_out[0].weight  # pyright: ignore[reportOptionalSubscript]
    before, width = weight.data.clone(), weight.shape[1] // layers[name].heads
    try:
        weight.data[:, width : 2 * width] = 0
        inspector = Inspector(layers=[name], ablate=[0])
        run(pipe, conditions={"it": paired_conditions()}, recorder=inspector)
    finally:
        weight.data.copy_(before)
    for change in inspector.changes[0][name].values():
        assert change.heads[1] == 0 and change.heads[0] > 0 and change.layer > 0


def test_changes_are_those_of_the_prediction() -> None:
    """Against runs of the denoiser with other weights, or without the conditions."""
    model, inputs = tiny.parts(tiny.unet)
    made = of_raw_tokens(model, inputs)
    name = next(iter(made.branches))
    inspector = Inspector(layers=[name], ablate=[0])
    whole = predicted(model, inputs, replace(made, recorder=inspector), inspector)

    def change(prediction: Tensor) -> float:
        return float(((prediction - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)).mean())

    np.testing.assert_allclose(inspector.totals[0]["it"], change(tiny.run(model, inputs)), rtol=1e-4)
    alone = replace(made, branches={n: () if n == name else some for n, some in made.branches.items()})
    np.testing.assert_allclose(
        inspector.changes[0][name]["it"].layer, change(predicted(model, inputs, alone)), rtol=1e-4
    )
    attention_layers(model)[name].to_out[0].weight.data.zero_()  # pyright: ignore[reportOptionalSubscript]
    np.testing.assert_allclose(
        inspector.changes[0][name][WHOLE].layer, change(predicted(model, inputs, made)), rtol=1e-4
    )


@pytest.mark.parametrize("backbone", [tiny.flux, tiny.sd3, tiny.z_image, tiny.wan], ids=lambda one: one.__name__)
def test_transformers_are_inspected(backbone: Any) -> None:
    model, inputs = tiny.parts(backbone)
    made, inspector = of_raw_tokens(model, inputs), Inspector(ablate=[0])
    plain = predicted(model, inputs, made)
    assert torch.equal(predicted(model, inputs, replace(made, recorder=inspector), inspector), plain)
    assert set(inspector.changes[0]) == set(made.branches) and inspector.totals[0]["it"] > 0
    joint = backbone is not tiny.wan
    for layer, sources in inspector.measured().items():
        share = sources["text"]["share"]
        assert (share < 0.99).all() and (share > 0).all() if joint else torch.allclose(share, torch.ones(1))
        for change in inspector.changes[0][layer].values():
            assert len(change.heads) == share.shape[1] and 0 < max(change.heads) <= 10 * change.layer


def of_raw_tokens(model: Any, inputs: Any) -> Conditioning:
    adapter = RawTokensAdapter.for_denoiser(model).requires_grad_(False)
    install(model)
    return Conditioning.of({"it": adapter(adapter.collate([raw_conditions()] * 2))}, call_layout(model, inputs))


def predicted(model: Any, inputs: Any, made: Conditioning, inspector: Inspector | None = None) -> Tensor:
    """The prediction of one call, which is one step."""
    if inspector is not None:
        assert made.layout is not None
        inspector.begin(made.layout)
    with torch.no_grad(), conditioned(model, made):
        out = tiny.run(model, inputs)
        made.on_step_end(0, 1)
    return out
