"""Attention maps: right against a plain computation in float64, bounded, and without a trace in the image."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import attend, drawn_sketch, paired_adapter, paired_conditions, raw_adapter, raw_conditions
from variants import SD, picture, run

from weftwork.attention_processors.core.attention_maps import MapRecorder, overlay
from weftwork.attention_processors.core.branch import DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.strength import GUIDED, Layout
from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.attention_processors.style.adapter import StyleAdapter
from weftwork.attention_processors.style.conditions import Style


@pytest.fixture(scope="module")
def pipe() -> Any:
    return SD.attached()


def naive(branch: DecoupledBranch, query: torch.Tensor, text: torch.Tensor, row: int) -> tuple[Any, Any]:
    """Share and influence of one row, place by place and head by head, in float64."""
    parts = int(branch.token_part.max()) + 1  # pyright: ignore[reportOptionalMemberAccess]
    queries, heads, dim = query.shape[1:]
    shares, influences = np.zeros((parts, queries)), np.zeros((parts, queries))
    keys, values = (x[row].double().unflatten(-1, (heads, dim)) for x in (branch.key, branch.value))
    for place in range(queries):
        gain = float(branch.gain[row, place if branch.gain.shape[1] > 1 else 0])
        text_norm = np.mean([float(text[row, place, h].double().norm()) for h in range(heads)])
        for head in range(heads):
            logits = keys[:, head] @ query[row, place, head].double() / dim**0.5
            if branch.bias is not None:
                logits = logits + branch.bias[row, 0, place if branch.bias.shape[2] > 1 else 0].double()
            weights = logits.softmax(0)
            for part in range(parts):
                mine = branch.token_part == part
                shares[part, place] += float(weights[mine].sum()) / heads * (gain != 0)
                added = gain * (weights[mine, None] * values[mine, head]).sum(0)
                influences[part, place] += float(added.norm()) / heads / text_norm
    return shares, influences


@pytest.mark.parametrize("guidance", [True, False])
def test_maps_equal_a_naive_computation(guidance: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, queries, heads, dim, tokens = 4, 12, 3, 5, 8

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    gain = draw(rows, queries, 1, 1).abs() * (draw(rows, queries, 1, 1) > -0.5)
    part = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
    branch = DecoupledBranch(
        draw(rows, tokens, heads * dim),
        draw(rows, tokens, heads * dim),
        gain,
        draw(rows, 1, queries, tokens),
        1 if guidance else None,
        part,
    )
    query, text = draw(rows, queries, heads, dim), draw(rows, queries, heads, dim)
    layout = Layout({"layer.attn2": 0}, (3, 4), halves=GUIDED if guidance else GUIDED[1:])
    recorder = MapRecorder()
    recorder.begin(layout)
    conditioning = Conditioning({"layer.attn2": (branch,)}, {"layer.attn2": ("it",)}, layout=layout)
    own = OwnAttention(query, query, None, text)
    recorder.record("layer.attn2", conditioning.names["layer.attn2"], (branch,), query, own, [])
    share, influence = recorder.maps("share"), recorder.maps("influence")
    first = rows // 2 if guidance else 0
    assert share.shape == influence.shape == (rows - first, 3, 3, 4)
    for row in range(first, rows):
        expected = naive(branch, query, text, row)
        np.testing.assert_allclose(share[row - first].flatten(1).numpy(), expected[0], atol=1e-5)
        np.testing.assert_allclose(influence[row - first].flatten(1).numpy(), expected[1], rtol=1e-4, atol=1e-5)
    active = (gain[first:, :, 0, 0] != 0).float().unflatten(1, (3, 4))
    np.testing.assert_allclose(share.sum(1).numpy(), active.numpy(), atol=1e-6)


def test_the_influences_of_a_single_part_are_the_branch_over_the_text(pipe: Any) -> None:
    """The recorder's sum is the branch that the processor really adds."""
    seen: dict[str, Any] = {}

    class Spy(MapRecorder):
        def record(self, layer: Any, names: Any, branches: Any, query: Any, own: Any, outs: Any) -> None:
            super().record(layer, names, branches, query, own, outs)
            if layer in self._chosen:
                added = branches[0].mix(query, own.out, attend, own) - own.out
                norms = [x[1:].norm(dim=-1).mean(2) for x in (added, own.out)]
                seen[layer] = norms[0] / norms[1]

    layer = next(name for name in pipe.unet.attn_processors if "attn2" in name).removesuffix(".processor")
    spy = Spy(layers=[layer])
    run(pipe, num_inference_steps=1, conditions={"it": paired_conditions(weight=0.7)[:1]}, recorder=spy)
    np.testing.assert_allclose(spy.maps().flatten(1).numpy(), seen[layer].numpy(), rtol=1e-4)
    np.testing.assert_allclose(spy.maps("share").numpy(), 1.0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"end": 0.5}, {"region": (0.0, 0.0, 0.5, 1.0)}])
def test_recording_changes_no_bit_of_the_image(pipe: Any, options: dict[str, Any]) -> None:
    conditions = {"it": paired_conditions(**options)}
    plain = run(pipe, conditions=conditions)
    recorder = MapRecorder()
    assert np.array_equal(run(pipe, conditions=conditions, recorder=recorder), plain)
    assert np.array_equal(run(pipe, conditions=conditions), plain)
    share = recorder.maps("share", size=(64, 64))
    assert share.shape == (1, 2, 64, 64) and torch.isfinite(share).all()
    active = share.sum(1) > 0
    np.testing.assert_allclose(share.sum(1)[active].numpy(), 1.0, atol=1e-5)
    assert active.all() == ("region" not in options)


def test_no_influence_outside_a_region(pipe: Any) -> None:
    recorder = MapRecorder(layers="down_blocks.0.*attn2")
    run(pipe, conditions={"it": paired_conditions(region=(0.0, 0.0, 0.5, 1.0))}, recorder=recorder)
    for kind in ("share", "influence"):
        left, right = recorder.maps(kind).chunk(2, -1)
        assert right.abs().max() == 0 and left.sum(1).min() > 0
    assert recorder.maps(size=(64, 64))[..., 40:].abs().max() == 0


def test_each_pair_has_its_own_map(pipe: Any) -> None:
    halves = [
        SketchTextPair(drawn_sketch(0), "a red jacket", region=(0.0, 0.0, 0.5, 1.0)),
        SketchTextPair(drawn_sketch(1), "a blue skirt", region=(0.5, 0.0, 1.0, 1.0)),
    ]
    recorder = MapRecorder()
    run(pipe, height=72, width=40, conditions={"it": halves}, recorder=recorder)
    influence = recorder.maps(size=(72, 40))
    assert influence.shape == (1, 2, 72, 40)
    assert influence[0, 0, :, 0].min() > 0 == influence[0, 1, :, 0].abs().max()
    assert influence[0, 1, :, -1].min() > 0 == influence[0, 0, :, -1].abs().max()


def test_rows_are_the_images_of_the_call_in_order(pipe: Any) -> None:
    designs = [paired_conditions(0), None]
    recorder = MapRecorder()
    options = {"prompt": ["a", "b"], "num_images_per_prompt": 2, "conditions": {"it": designs}}
    run(pipe, **options, recorder=recorder)
    influence = recorder.maps()
    assert influence.shape[:2] == (4, 2)
    assert influence[:2].min() > 0 == influence[2:].abs().max()
    run(pipe, conditions={"it": paired_conditions()[:1]}, recorder=recorder)
    assert recorder.maps().shape[:2] == (1, 1)


def test_steps_and_layers_are_chosen(pipe: Any) -> None:
    conditions = {"it": paired_conditions(end=0.5)}
    early, late, both = MapRecorder(steps=[0]), MapRecorder(steps=[1]), MapRecorder()
    for recorder in (early, late, both):
        run(pipe, conditions=conditions, recorder=recorder)
    assert late.maps().abs().max() == 0 and late.maps("share").abs().max() == 0
    np.testing.assert_allclose(both.maps().numpy(), early.maps().numpy() / 2, rtol=1e-5)
    np.testing.assert_allclose(both.maps("share").numpy(), early.maps("share").numpy(), rtol=1e-5)
    parts = [MapRecorder(layers=layers) for layers in ("encoder", "middle", "decoder", "all")]
    for recorder in parts:
        run(pipe, conditions=conditions, recorder=recorder)
    counts = [len(recorder._sums["it"]) for recorder in parts]
    assert counts[3] == sum(counts[:3]) == 4
    with pytest.raises(ValueError, match="layers: got 'nowhere', which matches none of"):
        run(pipe, conditions=conditions, recorder=MapRecorder(layers="nowhere"))


def test_two_adapters_are_told_apart(pipe: Any) -> None:
    pipe.attach(other=raw_adapter(pipe.unet))
    recorder = MapRecorder()
    run(pipe, conditions={"it": paired_conditions(), "other": raw_conditions()[:1]}, recorder=recorder)
    pipe.detach("other")
    assert recorder.maps(adapter="it").shape[1] == 2 and recorder.maps(adapter="other").shape[1] == 1
    with pytest.raises(ValueError, match="adapter: got None, recorded are: it, other; name one of them"):
        recorder.maps()


def test_adapters_without_maps_are_refused_before_the_drawing(pipe: Any) -> None:
    """A style in one softmax with the text alone; beside pairs, the maps are theirs."""
    pipe.attach(style=StyleAdapter.for_denoiser(pipe.unet, styles=("ink",), fusion="concat"))
    calls: list[object] = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: calls.append(module))
    conditions = {"style": [Style("ink")]}
    with pytest.raises(ValueError, match=r"maps: got conditions of style alone, .* add conditions of an adapter that"):
        run(pipe, conditions=conditions, recorder=MapRecorder())
    hook.remove()
    recorder = MapRecorder()
    run(pipe, conditions={**conditions, "it": paired_conditions()}, recorder=recorder)
    pipe.detach("style")
    assert not calls and recorder.adapters == {"it"}


def test_an_encoding_is_recorded_too_and_guidance_cut_off(pipe: Any) -> None:
    from diffusers.callbacks import SDCFGCutoffCallback

    encoded = pipe.encode_conditions({"it": paired_conditions()})
    recorder, again = MapRecorder(), MapRecorder()
    run(pipe, conditions={"it": paired_conditions()}, recorder=recorder)
    run(pipe, conditioning=encoded, recorder=again)
    assert torch.equal(recorder.maps(), again.maps())
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    run(pipe, conditions={"it": paired_conditions()}, recorder=recorder, callback_on_step_end=cut)
    assert recorder.maps().shape == (1, 2, 8, 8)
    unguided = MapRecorder(steps=[0])
    run(pipe, conditions={"it": paired_conditions()}, recorder=unguided, guidance_scale=1.0)
    guided = MapRecorder(steps=[0])
    run(pipe, conditions={"it": paired_conditions()}, recorder=guided)
    np.testing.assert_allclose(unguided.maps().numpy(), guided.maps().numpy(), rtol=1e-3)


def test_nothing_recorded_is_said(pipe: Any) -> None:
    recorder = MapRecorder(steps=[7])
    with pytest.raises(ValueError, match="recorder: got one without conditions, so there is nothing to record"):
        run(pipe, recorder=recorder)
    run(pipe, conditions={"it": paired_conditions()}, recorder=recorder)
    with pytest.raises(ValueError, match=r"maps: nothing was recorded with layers='all' and steps=\[7\]; pass the"):
        recorder.maps()
    with pytest.raises(ValueError, match="kind: got 'mass', expected 'share' or 'influence'"):
        recorder.maps("mass")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("how", ["function", "method", "block"])
def test_recording_under_compile_is_refused(how: str) -> None:
    pipe = SD.make(SD.conditioned)
    pipe.attach(it=paired_adapter(pipe.unet))
    if how == "function":
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    elif how == "method":
        pipe.unet.compile(backend="eager")
    else:
        pipe.unet.mid_block.compile(backend="eager")
    with pytest.raises(RuntimeError, match="recorder: got a compiled denoiser, expected an eager one"):
        run(pipe, conditions={"it": paired_conditions()}, recorder=MapRecorder())


def test_overlay() -> None:
    image = picture(size=(32, 48))
    values = torch.zeros(4, 6)
    values[0, 0] = 2.0
    covered = overlay(image, values)
    assert covered.size == image.size and covered.mode == "RGB"
    change = np.abs(np.asarray(covered, int) - np.asarray(image, int)).sum(-1)
    assert change[16:, 24:].max() == 0 < change[:4, :4].min() + 1
    assert change[:4, :4].mean() > 50
    assert np.array_equal(np.asarray(overlay(image, torch.zeros(4, 6))), np.asarray(image))
    assert overlay(Image.new("L", (8, 8)), torch.ones(2, 2)).getpixel((0, 0)) == (153, 0, 0)
    with pytest.raises(ValueError, match=r"values: got shape \(1, 4, 6\), expected one map \[height, width\]"):
        overlay(image, values[None])
