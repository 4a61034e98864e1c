"""Layer factors, guidance and regions of pairs and global sketches."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import drawn_sketch, paired_adapter, paired_conditions, tiny_pipe
from variants import run

from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.encoders import TextEncoders
from weftwork.attention_processors.paired.adapter import GlobalSketch, PairedAdapter, SketchTextPair
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=paired_adapter(pipe.unet, global_sketch=True))
    return pipe


def conditions(**options: Any) -> list[Any]:
    return [*paired_conditions(**options), GlobalSketch(drawn_sketch(3), **options)]


def encoded(pipe: Any, adapter: PairedAdapter, *rows: list[Any]) -> EncodedTokens:
    with torch.no_grad():
        return adapter(adapter.features(adapter.collate(rows), {"text": TextEncoders.of(pipe)}))


def test_a_layer_factor_of_zero_is_an_adapter_without_that_layer() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    whole = paired_adapter(pipe.unet, global_sketch=True)
    left = [name for name in whole.config["layers"] if not name.startswith("up_blocks")]
    part = paired_adapter(pipe.unet, global_sketch=True, layers=left)
    part.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if name in part.state_dict()})
    pipe.attach(whole=whole, part=part)
    off = run(pipe, conditions={"whole": conditions(layers={"decoder": 0.0})})
    assert np.array_equal(off, run(pipe, conditions={"part": conditions()}))
    assert np.abs(off - run(pipe, conditions={"whole": conditions()})).max() > 1e-6


def test_a_layer_factor_scales_the_weight(pipe: Any) -> None:
    half = run(pipe, conditions={"it": conditions(layers={"all": 0.5})})
    assert np.array_equal(half, run(pipe, conditions={"it": conditions(weight=0.5)}))
    with pytest.raises(ValueError, match="layers: got 'self', which matches none of"):
        run(pipe, conditions={"it": conditions(layers={"self": 0.0})})


@pytest.mark.parametrize("region", [None, (0.0, 0.0, 0.5, 1.0)])
def test_cond_only_leaves_the_unconditional_half_to_the_frozen_model(pipe: Any, region: Any) -> None:
    found: dict[str, list[torch.Tensor]] = {}
    alone = conditions(cfg="cond_only", region=region)
    for name, given in (("stock", None), ("both", conditions(region=region)), ("alone", alone)):
        handle = pipe.unet.register_forward_hook(lambda *a, name=name: found.setdefault(name, []).append(a[-1][0]))
        run(pipe, conditions=given and {"it": given}, num_inference_steps=1)
        handle.remove()
    stock, both, alone = (found[name][0] for name in ("stock", "both", "alone"))
    assert torch.equal(alone[0], stock[0]) and torch.equal(alone[1], both[1])
    assert not torch.equal(both[0], stock[0]) and not torch.equal(alone[1], stock[1])


def test_a_region_of_a_global_sketch_is_where_it_acts(pipe: Any) -> None:
    left = encoded(pipe, pipe.adapters["it"], [GlobalSketch(drawn_sketch(3), region=(0.0, 0.0, 0.5, 1.0))])
    layer = next(iter(left.key_value))
    branches, _ = left.build(Layout({name: 0 for name in left.key_value}, (8, 8)))
    gain: Any = branches[layer].gain[0, :, 0, 0].unflatten(0, (8, 8))  # pyright: ignore[reportAttributeAccessIssue]
    assert (gain[:, :4] == 1).all() and (gain[:, 4:] == 0).all()
    whole = GlobalSketch(drawn_sketch(3), region=(0, 0, 1, 0.5))
    beside = encoded(pipe, pipe.adapters["it"], [*paired_conditions(), whole])
    assert beside.region is not None
    assert (beside.region[0, :2] == 1).all()
    top, bottom = beside.region[0, 2].chunk(2)
    assert (top == 1).all() and (bottom == 0).all()


def test_the_mean_of_pairs_is_as_strong_as_the_strongest(pipe: Any) -> None:
    adapter = paired_adapter(pipe.unet, fusion="mean")
    pairs = [
        SketchTextPair(text="a hat", weight=0.5, layers={"decoder": 0.0}),
        SketchTextPair(text="a shoe", weight=0.2, cfg="cond_only"),
    ]
    merged = encoded(pipe, adapter, pairs, [SketchTextPair(text="a hat", weight=0.0)])
    assert merged.null_weight is not None
    torch.testing.assert_close(merged.weight, torch.tensor([[0.5], [0.0]]))
    torch.testing.assert_close(merged.null_weight, torch.tensor([[0.5], [0.0]]))
    for layer, factor in merged.layer_weight.items():
        expected = 0.2 if layer.startswith("up_blocks") else 0.5
        torch.testing.assert_close((factor * merged.weight)[0, 0], torch.tensor(expected))
