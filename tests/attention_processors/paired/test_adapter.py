"""The paired method: the authors' layer to the last digits, ragged designs, options, conditions and encoders."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tiny import drawn_sketch, paired_adapter, paired_conditions, tiny_pipe, tiny_unet
from variants import run

from weftwork.attention_processors.core.conditioning import Conditioning, EncodedTokens
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.core.strength import GUIDED, Layout, Schedule
from weftwork.attention_processors.encoders import SketchEncoder, TextEncoders
from weftwork.attention_processors.paired.adapter import GlobalSketch, PairedAdapter, SketchTextPair
from weftwork.attention_processors.paired.batch import PairedFeatures
from weftwork.pipelines.core.mixin import ConditionedStableDiffusionPipeline

REFERENCE = Path(__file__).parents[2] / "data" / "lots_reference.safetensors"
PAIR = SketchTextPair(drawn_sketch(0), "a red jacket")


# -- the authors' layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_one_layer_equals_the_authors_processor(masked: bool) -> None:
    """float32 on both sides; the sums run in another order."""
    values = load_file(REFERENCE)
    layer = Attention(64, cross_attention_dim=64, heads=4, dim_head=16)
    layer.load_state_dict({n.removeprefix("layer/"): v for n, v in values.items() if n.startswith("layer/")})
    install(layer)
    tokens, pairs = values["out/pair_tokens"], values["in/pair_mask"].bool()
    per_pair = tokens.shape[1] // pairs.shape[1]
    mask = pairs.repeat_interleave(per_pair, 1)
    key, value = (tokens @ values[f"ckpt/cross_attn/1.to_{n}_lots.weight"].T for n in "kv")
    encoded = EncodedTokens(
        {"": (key, value)},
        None,
        mask if masked else torch.ones_like(mask),
        torch.arange(pairs.shape[1]).repeat_interleave(per_pair),
        torch.ones(pairs.shape),
        [[Schedule()] * pairs.shape[1]] * pairs.shape[0],
    )
    conditioning = Conditioning.of({"it": encoded}, Layout({"": 0}, (8, 8)))
    with torch.no_grad(), conditioned(layer, conditioning):
        out = layer(values["in/one_layer_hidden_states"], values["in/global_text"])
    expected = values[f"out/one_layer_{'masked' if masked else 'unmasked'}"]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


# -- designs -----------------------------------------------------------------------------------------------


def encode(adapter: PairedAdapter, designs: list[list[Any]], pipe: Any = None, **encoders: Any) -> EncodedTokens:
    pipe = pipe or tiny_pipe(ConditionedStableDiffusionPipeline)
    batch = adapter.collate(designs)
    with torch.no_grad():
        return adapter(adapter.features(batch, {"text": TextEncoders.of(pipe), **encoders}))


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet()


def test_ragged_designs(unet: Any) -> None:
    adapter = paired_adapter(unet)
    designs = [[PAIR, *paired_conditions(1)], [PAIR], []]
    encoded = encode(adapter, designs)
    keys = next(iter(encoded.key_value.values()))[0]
    assert keys.shape[:2] == (3, 12) and encoded.null is not None
    assert encoded.token_mask.sum(1).tolist() == [12, 4, 0]
    assert encoded.token_part.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert encoded.weight.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    branches, _ = encoded.build(Layout(layer_levels(unet), (8, 8), repeat=2, halves=GUIDED))
    for branch in branches.values():
        assert branch.key.shape[:2] == branch.value.shape[:2] == (12, 16)  # pyright: ignore
        active = branch.gain.flatten() > 0  # pyright: ignore[reportAttributeAccessIssue]
        assert branch.bias.shape[-1] == 16 and branch.bias[active, ..., 12:].max() == -math.inf  # pyright: ignore
        assert torch.isfinite(branch.gain).all()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_tokens_are_padded_to_a_power_of_two(unet: Any, count: int) -> None:
    encoded = encode(paired_adapter(unet), [[PAIR] * count])
    branches, _ = encoded.build(Layout(layer_levels(unet), (8, 8)))
    lengths = {branch.key.shape[1] for branch in branches.values()}  # pyright: ignore[reportAttributeAccessIssue]
    assert lengths == {4 if count == 1 else max(16, 1 << math.ceil(math.log2(4 * count)))}


@pytest.mark.parametrize("text_states", [0, 5], ids=["pooled", "states"])
def test_pairs_are_isolated_to_the_last_bit(unet: Any, text_states: int) -> None:
    """The keys and values of a pair's features do not know its neighbours, their number, or the padding."""
    adapter = paired_adapter(unet, isolation="per_pair", sketch_encoder="frozen", text_states=text_states)
    image = torch.randn(2, 5, 17, 16)
    text = torch.randn(2, 5, text_states, 32) if text_states else torch.randn(2, 5, 32)

    def keys(mask: list[list[bool]], start: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        designs, pairs = slice(start, start + len(mask)), slice(0, len(mask[0]))
        there = torch.tensor(mask)
        features = PairedFeatures(
            weight=there.float(),
            guided=torch.ones(there.shape),
            schedules=tuple((Schedule(),) * len(row) for row in mask),
            pair_mask=there,
            has_sketch=there,
            has_text=there,
            image=image[designs, pairs],
            text=text[designs, pairs],
        )
        with torch.no_grad():
            return adapter(features).key_value

    alone = keys([[True]], start=1)
    for first in ([True] * 5, [False] * 5, [True, True, False, False, False]):
        for second in ([True] * 5, [True, False, False, False, False], [True, True, False, False, False]):
            together = keys([first, second])
            for layer, pair in alone.items():
                for mine, ours in zip(pair, together[layer], strict=True):
                    assert torch.equal(mine[0, :4], ours[1, :4]), layer


def test_shared_norm_leaks_as_the_authors_code_does(unet: Any) -> None:
    adapter = paired_adapter(unet, isolation="shared_norm")
    alone, together = encode(adapter, [[PAIR]]), encode(adapter, [[PAIR, *paired_conditions(1)]])
    layer = next(iter(alone.key_value))
    assert (alone.key_value[layer][0][0, :4] - together.key_value[layer][0][0, :4]).abs().max() > 1e-3


def test_half_pairs_lack_what_they_lack(unet: Any) -> None:
    """A sketch-only pair does not hear of texts; two text-only pairs differ by their texts alone."""
    adapter = paired_adapter(unet)
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    sketch = SketchTextPair(drawn_sketch(0))
    raw = adapter.collate([[sketch, SketchTextPair(text="a red jacket"), PAIR]])
    features = adapter.features(raw, {"text": TextEncoders.of(pipe)})
    assert features.text[0, 0].abs().max() == 0 and torch.equal(features.text[0, 1], features.text[0, 2])
    image = adapter._image(features)
    assert image[0, 1].abs().max() == 0 and torch.equal(image[0, 0], image[0, 2])
    keys = next(iter(adapter(features).key_value.values()))[0].unflatten(1, (3, 4))[0]
    assert min((keys[a] - keys[b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-4
    assert torch.isfinite(keys).all()
    pipe.attach(it=adapter)
    outputs = [run(pipe, conditions={"it": [c]}) for c in (sketch, SketchTextPair(text="a red jacket"), PAIR)]
    assert all(np.abs(a - b).max() > 1e-6 for a, b in pairwise(outputs))


@pytest.mark.parametrize("text_states", [0, 20], ids=["pooled", "states"])
@pytest.mark.parametrize("masking", ["compression", "pair", "modality", "all"])
@pytest.mark.parametrize("fusion", ["deferred", "mean"])
def test_options_make_finite_images(unet: Any, masking: str, fusion: str, text_states: int) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    adapter = paired_adapter(pipe.unet, masking=masking, fusion=fusion, text_states=text_states)
    designs = [[PAIR, *paired_conditions(1)], [], [SketchTextPair(text="a hat")]]
    encoded = encode(adapter, designs, pipe)
    per_pair = {"compression": 4, "all": 4}.get(masking, 4 + (text_states or 2))
    parts = 1 if fusion == "mean" else 3
    assert encoded.token_mask.sum(1).tolist() == [n * per_pair for n in ((1, 0, 1) if parts == 1 else (3, 0, 1))]
    assert encoded.weight.shape[1] == parts
    pipe.attach(it=adapter)
    prompts = ["a", "b", "c"]
    changed = run(pipe, prompt=prompts, conditions={"it": designs}, num_inference_steps=1)
    assert np.isfinite(changed).all()
    np.testing.assert_allclose(changed[1], run(pipe, prompt=prompts, num_inference_steps=1)[1], atol=1e-5)


def test_one_token_part_and_weight_per_pair_with_regions(unet: Any) -> None:
    """Every part of `token_part` has a weight, a schedule and a region, whatever the options."""
    for options in ({}, {"fusion": "mean"}, {"global_sketch": True}, {"fusion": "mean", "global_sketch": True}):
        adapter = paired_adapter(unet, **options)
        whole = [GlobalSketch(drawn_sketch(5))] if "global_sketch" in options else []
        encoded = encode(adapter, [[*paired_conditions(0, region="sketch"), *whole], [PAIR]])
        parts = int(encoded.token_part.max()) + 1
        assert encoded.weight.shape[1] == parts, options
        assert all(len(row) == parts for row in encoded.schedules), options
        assert encoded.region is not None and encoded.region.shape[1] == parts, options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masking": "none"}, "masking: got 'none', expected one of compression, pair, modality, all"),
        ({"fusion": "sum"}, "fusion: got 'sum', expected one of deferred, mean"),
        ({"isolation": "no"}, "isolation: got 'no', expected one of shared_norm, per_pair"),
        ({"num_heads": 5}, "num_heads: got 5 for a width of 32, expected a divisor of it"),
        ({"norm_groups": 0}, "norm_groups: got 0 for a width of 32, expected a divisor of it"),
        ({"sketch_patch": 3}, "sketch_patch: got 3, expected one of 16, 8, 4, 2"),
        ({"skip_blank": True, "masking": "all"}, "skip_blank: got sketch_encoder='strokes' and masking='all'"),
        ({"anchored": 0.2, "num_readout_tokens": 5}, "num_readout_tokens: got 5, expected a square"),
    ],
)
def test_wrong_options_are_named(unet: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_adapter(unet, **options)


# -- the sketch of the whole -------------------------------------------------------------------------------


def test_global_sketch_acts_by_its_weight_and_schedule() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=paired_adapter(pipe.unet, global_sketch=True, sketch_encoder="tiny"))
    pipe.set_encoders(sketch=tiny_dinov2())
    pairs = paired_conditions()

    def picture(*conditions: Any) -> np.ndarray:
        return run(pipe, conditions={"it": list(conditions)})

    without, whole = picture(*pairs), picture(*pairs, GlobalSketch(drawn_sketch(5)))
    assert np.abs(whole - without).max() > 1e-5
    assert np.abs(whole - picture(*pairs, GlobalSketch(drawn_sketch(6)))).max() > 1e-6
    assert np.isfinite(picture(GlobalSketch(drawn_sketch(5)))).all()
    assert np.abs(whole - picture(*pairs, GlobalSketch(drawn_sketch(5), end=0.5))).max() > 1e-6


def test_global_sketch_with_the_small_encoder() -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=paired_adapter(pipe.unet, global_sketch=True))
    whole = run(pipe, conditions={"it": [*paired_conditions(), GlobalSketch(drawn_sketch(5))]})
    assert np.abs(whole - run(pipe, conditions={"it": paired_conditions()})).max() > 1e-6


def test_global_sketches_that_do_not_fit_are_refused(unet: Any) -> None:
    whole = GlobalSketch(drawn_sketch(5))
    with pytest.raises(ValueError, match="conditions: got a GlobalSketch, but this adapter was trained without one"):
        paired_adapter(unet).collate([[PAIR, whole]])
    with pytest.raises(ValueError, match="conditions: got several GlobalSketch in one design, expected at most one"):
        paired_adapter(unet, global_sketch=True).collate([[whole, whole]])


# -- conditions --------------------------------------------------------------------------------------------

BLACK = Image.new("L", (32, 32), 0)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "pair: got neither sketch nor text; give at least one of them"),
    ({"text": "  "}, "text: got an empty text; describe the object, or leave text out"),
    (
        {"text": "a", "weight": -0.1},
        "weight: got -0.1, expected a finite number of at least 0 and at most 1000",
    ),
    ({"text": "a", "weight": math.nan}, "weight: got nan, expected a finite number"),
    ({"text": "a", "weight": math.inf}, "weight: got inf, expected a finite number"),
    ({"text": "a", "weight": "1"}, "weight: got '1', expected a finite number"),
    ({"text": "a", "start": 0.6, "end": 0.4}, "schedule: got start 0.6 and end 0.4, expected 0 <= start <= end <= 1"),
    ({"text": "a", "end": 1.5}, "schedule: got start 0.0 and end 1.5"),
    ({"text": "a", "region": "sketch"}, 'region: got "sketch" for a pair without a sketch; give a box'),
    ({"text": "a", "region": (0.0, 0.0, 1.2, 1.0)}, "region: got .*1.2.*fractions of the canvas"),
    ({"text": "a", "region": (0.5, 0.0, 0.5, 1.0)}, "region: got .*expected 0 <= left < right <= 1"),
    ({"text": "a", "region": (0.0, 1.0)}, "region: got .*, expected four numbers: left, top, right, bottom"),
    ({"text": "a", "region": (0.0, 0.0, math.nan, 1.0)}, "region: got .*, expected four numbers"),
    ({"text": "a", "region": BLACK}, "region: got a mask that is black everywhere"),
    ({"text": "a", "region": np.full((4, 4), 2.0)}, r"region: got numbers outside \[0, 1\] in an array of floats"),
    ({"sketch": 3}, "sketch: got a int, expected an image, an array or a path"),
    ({"sketch": np.zeros((4, 4), np.int64)}, "sketch: got an array of int64 with shape"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_pairs_are_refused_when_they_are_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SketchTextPair(**options)


def test_texts_beyond_the_tokenizer_are_refused(unet: Any) -> None:
    with pytest.raises(ValueError, match=r"text: 'aa.*' has 99 tokens, expected at most 75; shorten it"):
        encode(paired_adapter(unet), [[SketchTextPair(text="a" * 99)]])


# -- frozen encoders ---------------------------------------------------------------------------------------


def tiny_dinov2() -> SketchEncoder:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(4)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2
    )
    return SketchEncoder(Dinov2Model(config))


@pytest.mark.parametrize("center_crop", [False, True])
def test_a_frozen_vision_encoder(center_crop: bool) -> None:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    adapter = paired_adapter(pipe.unet, sketch_encoder="facebook/dinov2-small", center_crop=center_crop)
    pipe.attach(it=adapter)
    conditions = {"it": [*paired_conditions(), SketchTextPair(text="a hat")]}
    message = r"sketch encoder: this adapter reads sketches through 'facebook/dinov2-small'; call pipe.set_encoders\("
    with pytest.raises(ValueError, match=message):
        run(pipe, conditions=conditions)
    encoder = tiny_dinov2()
    pipe.set_encoders(sketch=encoder)
    keys = list(adapter.state_dict())
    assert np.abs(run(pipe, conditions=conditions) - run(pipe)).max() > 1e-5
    assert list(adapter.state_dict()) == keys and not any("dino" in key for key in keys)
    assert not any(p.requires_grad for p in encoder.model.parameters())
    batch = adapter.collate([conditions["it"]])
    assert batch.sketch.shape == (1, 3, 3, 32, 32) and 0 <= batch.sketch.min() <= batch.sketch.max() <= 1
    features = adapter.features(batch, {"text": TextEncoders.of(pipe), "sketch": encoder})
    assert features.image is not None and features.image.shape == (1, 3, 17, 16)
    assert features.image[0, 2].abs().max() == 0 < features.image[0, :2].abs().amax((1, 2)).min()


def test_a_sketch_of_the_whole_beside_anchored_pairs_speaks_everywhere() -> None:
    unet = tiny_unet()
    adapter = paired_adapter(unet, masking="pair", anchored=0.2, global_sketch=True)
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    pipe.attach(it=adapter)
    encoded = pipe.encode_conditions({"it": [*paired_conditions(), GlobalSketch(drawn_sketch(3))]}).encoded["it"]
    whole = encoded.token_part == 2
    assert encoded.anchors.shape == (len(encoded.token_part), 2)
    assert encoded.anchors[whole].isnan().all()
    assert (~encoded.anchors[~whole].isnan()).any()


def test_a_token_stands_for_one_patch_of_the_sketch(unet: Any) -> None:
    counts = {}
    for patch in (16, 8, 4):
        adapter = paired_adapter(unet, masking="pair", anchored=0.1, sketch_patch=patch)
        pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
        pipe.attach(it=adapter)
        anchors = pipe.encode_conditions({"it": paired_conditions()}).encoded["it"].anchors
        counts[patch] = int((~anchors.isnan().any(1)).sum()) / len(paired_conditions())
    assert counts == {16: 2 * 2, 8: 4 * 4, 4: 8 * 8}  # sketches of 32 pixels


def test_blank_parts_of_sketches_are_skipped(unet: Any) -> None:
    adapter = paired_adapter(unet, masking="pair", sketch_patch=8, skip_blank=True)
    seen: list[int] = []
    adapter.pair_former.blocks[0].register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    corner, frame = (Image.new("L", (32, 32), 255) for _ in range(2))
    corner.paste(0, (2, 2, 6, 6))
    ImageDraw.Draw(frame).rectangle((0, 0, 31, 31), outline=0)
    encode(adapter, [[SketchTextPair(corner, "a box")], [SketchTextPair(frame, "a box")]])
    encode(adapter, [[SketchTextPair(text="a box")]])
    assert seen == [2 + 3, 2 + 16, 2, 2, 2]  # texts and parts with strokes; the second, fourth are the null condition
