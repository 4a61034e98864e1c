"""Regions and weights of pairs, through whole pipelines and at one layer."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import attend, drawn_sketch, paired_conditions
from variants import SD, half_mask, picture, run

from weftwork.attention_processors.audio.conditions import BoxTrack
from weftwork.attention_processors.core.branch import OwnAttention
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.paired.adapter import SketchTextPair
from weftwork.attention_processors.style.conditions import Style


def pairs(*weights: float, **options: Any) -> list[SketchTextPair]:
    words = ("a red jacket", "a blue skirt", "black shoes")
    return [SketchTextPair(drawn_sketch(i), words[i], weight=weight, **options) for i, weight in enumerate(weights)]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return SD.attached()


@pytest.fixture(scope="module")
def stock() -> np.ndarray:
    return run(SD.make(SD.stock))


def branch_outputs(pipe: Any, conditions: list[SketchTextPair], size: tuple[int, int] = (8, 8)) -> dict[str, Any]:
    """Returns by layer what one denoiser call adds to the text attention: [row, query, head, dim], conditional rows."""
    added: dict[str, Any] = {}

    class Recorder:
        on_call = None

        def record(self, layer: str, _: Any, branches: Any, query: Any, text: OwnAttention, _outs: Any) -> None:
            added[layer] = branches[0].mix(query, text.out, attend, text) - text.out

    encoded = pipe.encode_conditions({"it": conditions}, height=8 * size[0], width=8 * size[1])
    conditioning = Conditioning.of(encoded.encoded, encoded.layout, Recorder())
    generator = torch.Generator().manual_seed(0)
    noisy, context = torch.randn(2, 4, *size, generator=generator), torch.randn(2, 5, 32, generator=generator)
    with torch.no_grad(), conditioned(pipe.unet, conditioning):
        pipe.unet(noisy, 3, context)
    return {layer: values[1:] for layer, values in added.items()}


# -- weights -----------------------------------------------------------------------------------------------


def test_a_pair_at_zero_is_absent(pipe: Any) -> None:
    both = run(pipe, conditions={"it": pairs(1.0, 1.0)})
    with_off = run(pipe, conditions={"it": pairs(1.0, 1.0, 0.0)})
    np.testing.assert_allclose(with_off, both, atol=1e-5)  # rounding, enlarged by the network and guidance
    for absent, present in ((pairs(1.0, 1.0, 0.0), pairs(1.0, 1.0)), (pairs(1.0, 0.0), pairs(1.0))):
        ours, theirs = branch_outputs(pipe, absent), branch_outputs(pipe, present)
        first = next(iter(ours))
        np.testing.assert_allclose(ours[first].numpy(), theirs[first].numpy(), atol=1e-6)


def test_all_pairs_at_zero_are_nothing(pipe: Any, stock: np.ndarray) -> None:
    assert np.array_equal(run(pipe, conditions={"it": pairs(0.0, 0.0, 0.0)}), stock)
    off = pairs(0.0, 0.0, region=(0.0, 0.0, 0.5, 1.0))
    assert np.array_equal(run(pipe, conditions={"it": off}), stock)


def test_equal_weights_scale_the_branch(pipe: Any) -> None:
    once, twice = branch_outputs(pipe, pairs(1.0, 1.0)), branch_outputs(pipe, pairs(2.0, 2.0))
    first = next(iter(once))
    np.testing.assert_allclose(twice[first].numpy(), 2 * once[first].numpy(), atol=1e-6)
    assert once[first].abs().max() > 1e-3


def test_unequal_weights_move_the_softmax(pipe: Any) -> None:
    """a = (1, w): the softmax over both pairs' tokens with the second's odds times w, A = 1."""
    first = next(iter(branch_outputs(pipe, pairs(1.0))))
    alone, both = branch_outputs(pipe, pairs(1.0))[first], branch_outputs(pipe, pairs(1.0, 1.0))[first]
    nearly = branch_outputs(pipe, pairs(1.0, 1e-6))[first]
    np.testing.assert_allclose(nearly.numpy(), alone.numpy(), atol=1e-4)
    between = branch_outputs(pipe, pairs(1.0, 0.5))[first]
    assert (between - alone).abs().max() < (both - alone).abs().max()


def test_weights_of_adapters_multiply(pipe: Any) -> None:
    expected = run(pipe, conditions={"it": pairs(0.5, 0.5)})
    pipe.set_weights(it=0.5)
    halved = run(pipe, conditions={"it": pairs(1.0, 1.0)})
    pipe.set_weights(it=1.0)
    assert np.array_equal(halved, expected)


# -- regions -----------------------------------------------------------------------------------------------


def test_a_region_everywhere_is_no_region(pipe: Any) -> None:
    expected = run(pipe, conditions={"it": pairs(1.0, 1.0)})
    white = Image.new("L", (64, 64), 255)
    for region in (white, np.ones((32, 32), np.float32), (0.0, 0.0, 1.0, 1.0)):
        np.testing.assert_allclose(run(pipe, conditions={"it": pairs(1.0, 1.0, region=region)}), expected, atol=1e-6)


@pytest.mark.parametrize("region", [(0.5, 0.0, 1.0, 1.0), half_mask()], ids=["box", "mask"])
def test_a_region_over_a_half_acts_there_only(pipe: Any, region: Any) -> None:
    everywhere, half = branch_outputs(pipe, pairs(1.0, 1.0)), branch_outputs(pipe, pairs(1.0, 1.0, region=region))
    for layer, added in half.items():
        side = int(added.shape[1] ** 0.5)
        left, right = added.unflatten(1, (side, side)).chunk(2, 2)
        assert left.abs().max() == 0 and right.abs().amax((-1, -2)).min() > 0, layer
    first = next(iter(half))
    full = everywhere[first].unflatten(1, (8, 8)).chunk(2, 2)[1]
    here = half[first].unflatten(1, (8, 8)).chunk(2, 2)[1]
    np.testing.assert_allclose(here.numpy(), full.numpy(), atol=1e-5)


def test_each_pair_in_its_own_half(pipe: Any) -> None:
    """Left the first pair alone, right the second alone, as if the other did not exist."""
    left = SketchTextPair(drawn_sketch(0), "a red jacket", region=(0.0, 0.0, 0.5, 1.0))
    right = SketchTextPair(drawn_sketch(1), "a blue skirt", region=(0.5, 0.0, 1.0, 1.0))
    layer = next(iter(branch_outputs(pipe, [left])))
    both, *each = (branch_outputs(pipe, p)[layer].unflatten(1, (8, 8)) for p in ([left, right], [left], [right]))
    np.testing.assert_allclose(both[:, :, :4].numpy(), each[0][:, :, :4].numpy(), atol=1e-6)
    np.testing.assert_allclose(both[:, :, 4:].numpy(), each[1][:, :, 4:].numpy(), atol=1e-6)


def test_a_region_of_the_wrong_aspect_raises(pipe: Any) -> None:
    wide = Image.new("L", (128, 64), 255)
    message = r"region: got sketches or masks of aspect \(height / width\) 0.50 for an image of 1.00; draw them"
    with pytest.raises(ValueError, match=message):
        run(pipe, conditions={"it": pairs(1.0, region=wide)})
    assert np.isfinite(run(pipe, conditions={"it": pairs(1.0, region=wide)}, height=64, width=128)).all()
    mixed = [*pairs(1.0, region=wide), *pairs(1.0, region="sketch")]
    with pytest.raises(ValueError, match=r"region: got aspects \(height / width\) \[0.5, 1.0\], expected one"):
        run(pipe, conditions={"it": mixed})


def test_grids_of_odd_latents(pipe: Any) -> None:
    layout = Layout(layer_levels(pipe.unet), (17, 21))
    assert {layout.grid(layer) for layer in layout.levels} == {(17, 21), (9, 11)}
    conditions = pairs(1.0, 1.0, region=(0.0, 0.0, 0.5, 0.5))
    assert run(pipe, conditions={"it": conditions}, height=136, width=168).shape == (1, 4, 17, 21)
    for layer, added in branch_outputs(pipe, conditions, (17, 21)).items():
        height, width = layout.grid(layer)
        grid = added.unflatten(1, (height, width)).abs().amax((-1, -2))[0]
        assert torch.equal(grid > 0, _covered(height, width)), layer


def _covered(height: int, width: int) -> torch.Tensor:
    """Cells of a grid that the upper left quarter touches."""
    rows, columns = torch.arange(height) / height < 0.5, torch.arange(width) / width < 0.5
    return rows[:, None] & columns[None]


def test_a_region_acts_in_the_image_where_it_is(pipe: Any, stock: np.ndarray) -> None:
    """Through the network it spreads, but one step changes its own half most."""
    conditions = {"it": pairs(1.0, 1.0, region=(0.0, 0.0, 0.5, 1.0))}
    change = np.abs(run(pipe, conditions=conditions) - stock).mean((0, 1, 2))
    assert change[:4].mean() > change[4:].mean()


def test_latents_and_images_give_the_size(pipe: Any) -> None:
    conditions = {"it": paired_conditions(region=(0.0, 0.0, 1.0, 0.5))}
    latents = torch.randn(1, 4, 10, 6, generator=torch.Generator().manual_seed(1))
    assert run(pipe, conditions=conditions, latents=latents, height=80, width=48).shape == (1, 4, 10, 6)
    from variants import VARIANTS

    for size in ((64, 64), (80, 48)):
        image = VARIANTS[2].attached()
        assert run(image, image=picture(size=size), conditions=conditions).shape[-2:] == (size[0] // 8, size[1] // 8)
        tensor = torch.rand(1, 3, *size)
        assert run(image, image=tensor, conditions=conditions).shape[-2:] == (size[0] // 8, size[1] // 8)
        encoded = torch.randn(1, 4, size[0] // 8, size[1] // 8)
        assert run(image, image=encoded, conditions=conditions).shape[-2:] == (size[0] // 8, size[1] // 8)


# -- numbers of other libraries ----------------------------------------------------------------------------


def test_numbers_of_numpy_and_torch() -> None:
    one = SketchTextPair(text="a", weight=np.float32(0.5), region=np.array([0, 0, 0.5, 1.0000001]).tolist())
    other = SketchTextPair(text="a", weight=torch.tensor(0.5), start=np.float64(0.25), end=torch.tensor(1))  # pyright: ignore
    assert one.weight == other.weight == 0.5 and one.region == (0, 0, 0.5, 1)
    assert (other.start, other.end) == (0.25, 1.0) and isinstance(other.end, float)
    four = [0, 0, 0.5, 1]
    boxes: list[Any] = [(np.float32(0), 0, torch.tensor(0.5), 1), np.array(four), torch.tensor(four)]
    assert all(SketchTextPair(text="a", region=box).region == (0, 0, 0.5, 1) for box in boxes)
    assert Style({"ink": np.float32(1), "neon": torch.tensor(3)}).shares == {"ink": 0.25, "neon": 0.75}  # pyright: ignore
    track = BoxTrack(torch.tensor([0, 1]), torch.tensor([[-1e-7, 0, 0.5, 1.0000001]]).repeat(2, 1))  # pyright: ignore
    assert track.boxes[0].tolist() == [0, 0, 0.5, 1]


@pytest.mark.parametrize("weight", [1e6, float("nan"), -1, "1", True, np.zeros(2)])
def test_weights_beyond_reason_are_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"weight: got .* expected a finite number of at least 0 and at most 1000"):
        SketchTextPair(text="a", weight=weight)


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_curves_that_are_no_factors_are_refused(pipe: Any, value: float) -> None:
    pair = SketchTextPair(text="a", curve=lambda _: value)
    with pytest.raises(ValueError, match=r"curve: got .* expected a finite number of at least 0"):
        run(pipe, conditions={"it": [pair]})
