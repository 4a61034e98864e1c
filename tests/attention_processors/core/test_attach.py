"""Attaching checks everything before it changes anything, and what replaces our processors later is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from tiny import RawTokens, RawTokensAdapter, paired_adapter, paired_conditions, tiny_unet
from variants import SD, run

from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.wrapper import WrappedProcessor
from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline
from weftwork.scripts.benchmarks.backbones.tiny import flux, flux2, made


class SomeoneElsesProcessor:
    """Attention without an attention function."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
        return hidden_states


def put_processor(unet: Any, layer: str, processor: Any) -> None:
    unet.set_attn_processor({**unet.attn_processors, f"{layer}.processor": processor})


def first_layer(unet: Any) -> str:
    return next(n for n in unet.attn_processors if "attn2" in n).removesuffix(".processor")


def foreign(pipe: Any) -> dict[str, Any]:
    adapter = paired_adapter(pipe.unet)
    put_processor(pipe.unet, first_layer(pipe.unet), SomeoneElsesProcessor())
    return {"it": adapter}


def wider(pipe: Any) -> dict[str, Any]:
    return {"good": paired_adapter(pipe.unet), "it": paired_adapter(tiny_unet(block_out_channels=(32, 96)))}


def unknown_layer(pipe: Any) -> dict[str, Any]:
    adapter = paired_adapter(pipe.unet)
    layers = {**adapter.config["layers"], "up_blocks.7.attentions.0.transformer_blocks.0.attn2": 32}
    adapter.register_to_config(layers=layers)
    return {"good": paired_adapter(pipe.unet), "it": adapter}


def other_family(pipe: Any) -> dict[str, Any]:
    adapter = paired_adapter(pipe.unet)
    adapter.register_to_config(base={"family": "FluxTransformer2DModel", "context_dim": 32})
    return {"good": paired_adapter(pipe.unet), "it": adapter}


REFUSED: list[tuple[Callable[[Any], dict[str, Any]], str]] = [
    (foreign, r"down_blocks\.0\.\S+attn2: SomeoneElsesProcessor: got none in its code, expected one call of"),
    (wider, r"base: got width 96 for 'mid_block\S+', but the layer has 64; load an adapter"),
    (unknown_layer, r"base: the adapter has keys for 'up_blocks\.7\S+', which this UNet2DConditionModel does not"),
    (other_family, r"base: got an adapter for FluxTransformer2DModel, but the denoiser is a UNet2DConditionModel"),
    (
        lambda pipe: {"good": paired_adapter(pipe.unet), "it": torch.nn.Linear(2, 2)},
        "attach: 'it' is a Linear, expected",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=["foreign", "wider", "layer", "family", "type"])
def test_attach_refuses_before_it_changes_anything(make: Callable[[Any], dict[str, Any]], message: str) -> None:
    pipe = SD.make(SD.conditioned)
    adapters = make(pipe)
    before = dict(pipe.unet.attn_processors)
    with pytest.raises(ValueError, match=message):
        pipe.attach(**adapters)
    after = pipe.unet.attn_processors
    assert all(after[name] is processor for name, processor in before.items())
    assert pipe.adapters is None


def test_attach_refuses_a_taken_name_and_detach_an_unknown_one() -> None:
    pipe = SD.attached()
    mine = pipe.adapters["it"]
    with pytest.raises(ValueError, match=r"attach: 'it' is attached already; detach\('it'\) first"):
        pipe.attach(other=paired_adapter(pipe.unet), it=paired_adapter(pipe.unet))
    with pytest.raises(ValueError, match="detach: got 'other', attached are: it"):
        pipe.detach("it", "other")
    assert list(pipe.adapters) == ["it"] and pipe.adapters["it"] is mine
    with pytest.raises(ValueError, match="set_weights: got 'other', attached are: it"):
        pipe.set_weights(other=1.0)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"set_weights, it: got .* expected a finite number of at least 0"):
            pipe.set_weights(it=weight)
    pipe.set_weights(it=np.float32(0.5))
    assert pipe.adapters.weights == {"it": 0.5}
    pipe.detach()
    with pytest.raises(ValueError, match="detach: got 'it', attached are: none"):
        pipe.detach("it")


def slice_attention(pipe: Any) -> None:
    pipe.enable_attention_slicing()


def unslice_attention(pipe: Any) -> None:
    pipe.enable_attention_slicing()
    pipe.disable_attention_slicing()


def fuse(pipe: Any) -> None:
    pipe.fuse_qkv_projections()


def disable_xformers(pipe: Any) -> None:
    pipe.disable_xformers_memory_efficient_attention()


def custom(pipe: Any) -> None:
    put_processor(pipe.unet, first_layer(pipe.unet), SomeoneElsesProcessor())


@pytest.mark.parametrize(
    ("replace", "kind", "culprit"),
    [
        (slice_attention, "SlicedAttnProcessor", r"enable_attention_slicing\(\)"),
        (unslice_attention, "AttnProcessor2_0", r"disable_attention_slicing\(\)"),
        (fuse, "FusedAttnProcessor2_0", r"fuse_qkv_projections\(\)"),
        (disable_xformers, "AttnProcessor2_0", r"disable_xformers_memory_efficient_attention\(\)"),
        (custom, "SomeoneElsesProcessor", r"set_attn_processor\(\)"),
    ],
    ids=["slicing", "unslicing", "fusing", "xformers", "custom"],
)
def test_conditions_on_replaced_processors_raise(replace: Callable[[Any], None], kind: str, culprit: str) -> None:
    pipe = SD.attached()
    expected = run(pipe, conditions={"it": paired_conditions()})
    encoded = pipe.encode_conditions({"it": paired_conditions()})
    replace(pipe)
    message = rf"{kind} stands where weftwork's processor was \(this is what .*{culprit}.*detach\(\) and attach\(\)"
    with pytest.raises(RuntimeError, match=message):
        run(pipe, conditions={"it": paired_conditions()})
    with pytest.raises(RuntimeError, match=message):
        run(pipe, conditioning=encoded)
    adapter = pipe.adapters["it"]
    if replace is fuse:
        pipe.unfuse_qkv_projections()
    elif kind in ("SlicedAttnProcessor", "SomeoneElsesProcessor"):
        pipe.unet.set_attn_processor(AttnProcessor2_0())
    pipe.detach()
    pipe.attach(it=adapter)
    np.testing.assert_allclose(run(pipe, conditions={"it": paired_conditions()}), expected, atol=1e-6)


def test_set_default_attn_processor_is_refused_by_diffusers_itself() -> None:
    pipe = SD.attached()
    with pytest.raises(ValueError, match="Cannot call `set_default_attn_processor`"):
        pipe.unet.set_default_attn_processor()
    assert all(isinstance(p, WrappedProcessor) for p in pipe.unet.attn_processors.values())


PAIR = SketchTextPair(text="a red jacket")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": {"other": [PAIR]}}, r"conditions: got 'other', attached are: it; attach\(other=…\) first"),
        ({"conditions": {"it": [[PAIR], [PAIR]]}}, r"conditions\['it'\]: got 2 lists for 1 prompts; pass one list"),
        (
            {"prompt": ["a", "b"], "conditions": {"it": [[PAIR]]}},
            r"conditions\['it'\]: got 1 lists for 2 prompts; pass one list \(or None\) per prompt",
        ),
        (
            {"conditions": {"it": 3}},
            r"conditions\['it'\]: got a int, expected SketchTextPair or GlobalSketch or a list",
        ),
        ({"conditions": {"it": "jacket"}}, r"conditions\['it'\]: got a str, expected SketchTextPair"),
        (
            {"conditions": {"it": [PAIR, RawTokens(torch.zeros(3, 24))]}},
            r"conditions\['it'\]: got a RawTokens, expected SketchTextPair or GlobalSketch",
        ),
    ],
)
def test_wrong_conditions_are_named(options: dict[str, Any], message: str) -> None:
    pipe = SD.attached()
    with pytest.raises(ValueError, match=message):
        run(pipe, **options)


def test_conditions_without_adapters_are_refused() -> None:
    pipe = SD.make(SD.conditioned)
    with pytest.raises(ValueError, match=r"conditions: got 'it', attached are: none; attach\(it=…\) first"):
        run(pipe, conditions={"it": [PAIR]})


def test_encoded_conditions_for_another_batch_are_refused() -> None:
    pipe = SD.attached()
    encoded = pipe.encode_conditions({"it": [PAIR]})
    with pytest.raises(ValueError, match="conditions, conditioning: got both; pass the encoded one or the raw ones"):
        run(pipe, conditions={"it": [PAIR]}, conditioning=encoded)
    with pytest.raises(ValueError, match="conditioning: got keys of 2 rows for a batch of 6; pass one condition list"):
        run(pipe, prompt=["a", "b", "c"], conditioning=encoded)
    regional = pipe.encode_conditions({"it": [SketchTextPair(text="a", region=(0, 0, 0.5, 1))]})
    with pytest.raises(ValueError, match="region: got a grid of 64 places for a layer with 96 queries"):
        run(pipe, height=64, width=96, conditioning=regional)


def test_two_pipelines_share_a_denoiser() -> None:
    first = SD.make(SD.conditioned)
    found = dict(first.unet.attn_processors)
    first.attach(it=paired_adapter(first.unet))
    first.unet.set_attention_backend("native")
    second = ConditionedStableDiffusionPipeline.from_pipe(first)
    second.set_progress_bar_config(disable=True)
    assert {str(p._attention_backend) for p in second.unet.attn_processors.values()} == {"AttentionBackendName.NATIVE"}
    conditions = {"it": paired_conditions()}
    assert np.array_equal(run(second, conditions=conditions), run(first, conditions=conditions))
    expected = run(first, conditions=conditions)
    second.detach()
    assert np.array_equal(run(first, conditions=conditions), expected)
    first.detach()
    after = second.unet.attn_processors
    assert all(after[name] is processor for name, processor in found.items())


def test_other_weights_of_the_same_base_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    from weftwork.attention_processors.core.adapter_files import state_sha256

    pipe = SD.make(SD.conditioned)
    adapter = paired_adapter(pipe.unet)
    adapter.register_to_config(training={"base_sha256": state_sha256(pipe.unet)})
    pipe.attach(it=adapter)
    assert not caplog.records
    pipe.detach("it")
    adapter.register_to_config(training={"base_sha256": "0" * 64})
    pipe.attach(it=adapter)
    assert "the adapter was trained on weights 000000000000" in caplog.text


# -- other families ----------------------------------------------------------------------------------------


def test_adapters_for_other_families() -> None:
    model, _ = made(flux)
    adapter = RawTokensAdapter.for_denoiser(model, layers=r"transformer_blocks\..*attn")
    assert adapter.config["layers"] == {"transformer_blocks.0.attn": 32}
    adapter.check_base(model)
    assert set(RawTokensAdapter.for_denoiser(model).config["layers"]) == set(layer_levels(model))
    fused, _ = made(flux2)  # its single blocks have one matrix for queries, keys, values and more
    widths = RawTokensAdapter.for_denoiser(fused).config["layers"]
    assert widths == {"transformer_blocks.0.attn": 32, "single_transformer_blocks.0.attn": 32}
