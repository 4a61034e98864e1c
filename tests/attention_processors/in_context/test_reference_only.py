"""Reference-only attention on tiny denoisers: equations, latents in the form of each family, and errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from weftwork.attention_processors import Conditioning, ReferenceOnly, ReferenceOnlyAdapter, conditioned
from weftwork.attention_processors.core.branch import OwnAttention
from weftwork.attention_processors.core.captured import Captured, ReadCaptured
from weftwork.attention_processors.core.families import call_layout, sample_of
from weftwork.attention_processors.core.image_latents import latent_size, with_latents
from weftwork.attention_processors.core.key_bias import ABSENT
from weftwork.attention_processors.core.linear_attention import linear_attention
from weftwork.attention_processors.core.method import methods
from weftwork.attention_processors.core.processor import install
from weftwork.attention_processors.core.strength import ImageTokens
from weftwork.scripts.benchmarks.backbones import tiny
from weftwork.scripts.benchmarks.backbones.cells import Cell
from weftwork.scripts.benchmarks.backbones.kernels import _compiled
from weftwork.scripts.benchmarks.backbones.tiny import Made, parts, run
from weftwork.training.core.denoisers import packed

IMAGE = np.zeros((8, 8, 3))
AUDIO = ("stable_audio", "stable_audio3", "ace_step")
VISUAL = [one.__name__ for one in tiny.FAMILIES if one.__name__ not in AUDIO]


def output(model: Any, inputs: Any, encode: Callable[..., Tensor], *rows: list[ReferenceOnly]) -> Tensor:
    adapter = ReferenceOnlyAdapter.for_denoiser(model)
    encoded = adapter(adapter.features(adapter.collate(rows), {"latents": encode}))
    install(model)
    with conditioned(model, Conditioning.of({"it": encoded}, call_layout(model, inputs))):
        return run(model, inputs)


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Any = None, biases: Any = ()) -> Tensor:
    logits = torch.einsum("rqhd,rthd->rhqt", query, key) * query.shape[-1] ** -0.5
    for queries, keys in biases:
        logits = logits + (queries @ keys.mT).unsqueeze(1)
    return torch.einsum("rhqt,rthd->rqhd", logits.softmax(-1), value)


def test_image_queries_read_references_at_their_strength() -> None:
    """Of two text tokens and four places, of which the last reads nothing; references of three tokens each."""
    query, key, value = torch.randn(3, 1, 6, 2, 4)
    captured = torch.randn(1, 6, 2, 4), torch.randn(1, 6, 2, 4)
    strength = torch.tensor([[[0.5, 1.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    image = ImageTokens((1, 2, 2), 4)
    own = OwnAttention(key, value, None, softmax_attention(query, key, value))
    branch = ReadCaptured(Captured(captured), strength.log().clamp(min=ABSENT), image)
    got = branch.mix(query, own.out, softmax_attention, own)
    weights = torch.cat([torch.ones(4, 6), strength[0].repeat_interleave(3, 1)], 1)
    keys, values = torch.cat([key, captured[0]], 1), torch.cat([value, captured[1]], 1)
    logits = torch.einsum("qhd,thd->hqt", query[0, 2:], keys[0]).mul(0.5).exp() * weights
    wanted = torch.einsum("hqt,thd->qhd", logits / logits.sum(-1, keepdim=True), values[0])
    torch.testing.assert_close(got[0, 2:5], wanted[:3])
    assert torch.equal(got[0, :2], own.out[0, :2]) and torch.equal(got[0, 5], own.out[0, 5])
    with pytest.raises(RuntimeError, match="captured: got no keys of references"):
        ReadCaptured(Captured(), branch.log_strength, image).mix(query, own.out, softmax_attention, own)


@pytest.mark.parametrize("name", ["unet", "pixart", "hunyuan_dit", "ltx", "wan", "sana"])
@torch.no_grad()
def test_an_image_that_reads_itself_is_the_stock_image(name: str) -> None:
    """In layers of the image alone, doubled keys leave the softmax as it is; other layers have text keys too."""
    model, inputs = parts(getattr(tiny, name))
    sample = sample_of(inputs)
    size = latent_size(model, inputs)
    latents = torch.randn(4, *size)
    same = with_latents(model, inputs, latents.expand(2, -1, -1, -1))
    assert sample_of(same).shape == sample.shape
    stock = run(model, same)
    row = [ReferenceOnly(IMAGE)]
    torch.testing.assert_close(output(model, same, lambda *_: latents, row, row), stock, atol=2e-5, rtol=0)
    other = output(model, same, lambda *_: -3 * latents, row, row)
    assert (other - stock).abs().max() > 1e-4


def test_linear_attention_with_weights() -> None:
    """Weighted sums of values, by the products of queries and keys; text tokens are no part."""
    query, key, value = torch.rand(3, 1, 5, 2, 4)
    strength, members = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0]), torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    got = linear_attention(query, key, value, None, [(strength.log()[None, :, None], members[None, :, None])])
    weights = torch.where(members == 1, strength[:, None], 1.0)
    products = torch.einsum("rqhd,rthd->rhqt", query, key) * weights
    wanted = torch.einsum("rhqt,rthd->rqhd", products / products.sum(-1, keepdim=True), value)
    torch.testing.assert_close(got, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "sana"])
def test_compiled_blocks(name: str) -> None:
    _compiled("eager", 1e-5)(Cell(methods()["in-context"], getattr(tiny, name)))


@pytest.mark.parametrize("name", VISUAL)
def test_latents_in_the_form_of_each_family(name: str) -> None:
    model, inputs = parts(getattr(tiny, name))
    made = with_latents(model, inputs, torch.full((2, 1, *latent_size(model, inputs)), 7.0))
    for new, old in zip(sample_of(made), sample_of(inputs), strict=True):
        assert new.shape == old.shape and 0 < (new == 7).float().mean() <= 1
        assert torch.equal(new[new != 7], old[new != 7])
    with pytest.raises(ValueError, match=r"latents: got (99|396) channels"):
        with_latents(model, inputs, torch.zeros(2, 99, *latent_size(model, inputs)))


def test_packed_latents_are_those_of_training() -> None:
    model, inputs = parts(tiny.qwen_image)
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(with_latents(model, inputs, latents)["hidden_states"], packed(latents))


@torch.no_grad()
def test_references_beside_those_that_the_model_reads_itself(flux_kontext: Made) -> None:
    """Tokens of native references stay in both passes."""
    model, inputs = flux_kontext
    stock = run(model, inputs)
    row = [ReferenceOnly(IMAGE)]
    changed = output(model, inputs, lambda _, size: torch.ones(1, *size), row, row)
    assert changed.shape == stock.shape and (changed - stock).abs().max() > 1e-4


@pytest.fixture
def flux_kontext() -> Made:
    model, inputs = parts(tiny.flux)
    ids = torch.cat([tiny.ids(4, 4), tiny.ids(2, 3, image=1)])
    return model, {**inputs, "hidden_states": torch.randn(2, 22, 4), "img_ids": ids}
