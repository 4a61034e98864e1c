"""One layer that uses the attention of another: the authors' numbers, and errors instead of silence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file
from tiny_links import LAYER
from torch import Tensor

from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.views.instillation import (
    RecordAttention,
    Recorded,
    UseAttention,
    attention_scores,
)
from weftwork.attention_processors.views.reference_attention import ExtendContext


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    """Recorded from the authors' classes: `A.image.*` and `A.geo.*` are the weights of two attention layers."""
    return load_file(Path(__file__).parents[2] / "data" / "instillation_reference.safetensors")


def layer(theirs: dict[str, Tensor], name: str) -> Attention:
    attention = Attention(32, heads=4, dim_head=8)
    weights = {key.removeprefix(f"A.{name}."): value for key, value in theirs.items() if key.startswith(f"A.{name}.")}
    attention.load_state_dict(weights)
    install(attention)
    return attention.requires_grad_(False)


def call(attention: Attention, hidden: Tensor, *branches: Branch) -> Tensor:
    with conditioned(attention, Conditioning({"": branches})):  # the layer is the whole module
        return attention(hidden)


def extended(theirs: dict[str, Tensor], name: str) -> Branch:
    views = torch.stack([theirs[f"A.in.{name}_ref{i}"] for i in range(2)], 1).flatten(0, 1)
    return ExtendContext(LAYER, {LAYER: views}, views=2)


def taught(theirs: dict[str, Tensor]) -> dict[str, Recorded]:
    """The attention that the image layer records."""
    store: dict[str, Recorded] = {}
    branches = extended(theirs, "image"), RecordAttention(LAYER, store)
    out = call(layer(theirs, "image"), theirs["A.in.image_target"], *branches)
    torch.testing.assert_close(out, theirs["A.out.image"], atol=1e-6, rtol=0)
    return store


def test_queries_and_keys_are_those_of_the_authors(theirs: dict[str, Tensor]) -> None:
    kept = taught(theirs)[LAYER]
    for ours, name in ((kept.query, "query"), (kept.key, "key")):
        heads_in_rows = ours.transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(heads_in_rows, theirs[f"A.rec.{name}"], atol=1e-6, rtol=0)


def test_the_instilled_layer_is_that_of_the_authors(theirs: dict[str, Tensor]) -> None:
    store = taught(theirs)
    hidden = theirs["A.in.geo_target"]
    out = call(layer(theirs, "geo"), hidden, extended(theirs, "geo"), UseAttention(LAYER, store))
    torch.testing.assert_close(out, theirs["A.out.geo_instilled"], atol=1e-6, rtol=0)
    maps = attention_scores(store[LAYER].query, store[LAYER].key).softmax(-1)
    torch.testing.assert_close(maps.flatten(0, 1), theirs["A.probs"], atol=1e-6, rtol=0)


def test_keys_of_the_target_alone_and_no_instillation(theirs: dict[str, Tensor]) -> None:
    hidden, geometry = theirs["A.in.geo_target"], layer(theirs, "geo")
    alone = call(geometry, hidden, UseAttention(LAYER, taught(theirs), keys="target"))
    torch.testing.assert_close(alone, theirs["A.out.geo_instilled_selfonly"], atol=1e-6, rtol=0)
    own = call(geometry, hidden, extended(theirs, "geo"))
    torch.testing.assert_close(own, theirs["A.out.geo_own_qk"], atol=1e-6, rtol=0)


def test_what_fell_back_in_silence_is_an_error(theirs: dict[str, Tensor]) -> None:
    geometry, hidden, references = layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo")
    torch.testing.assert_close(
        call(geometry, hidden, references), theirs["A.out.geo_silent_fallback"], atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match=rf"{LAYER}: got no recorded attention"):
        call(geometry, hidden, references, UseAttention(LAYER, {}))
    store: dict[str, Recorded] = {}
    call(layer(theirs, "image"), theirs["A.in.image_target"], RecordAttention(LAYER, store))
    with pytest.raises(ValueError, match=rf"{LAYER}: got 16 recorded keys for 48 values"):
        call(geometry, hidden, references, UseAttention(LAYER, store))


def test_strength_blends_and_is_exact_at_0(theirs: dict[str, Tensor]) -> None:
    geometry, hidden, references = layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo")
    store = taught(theirs)

    def at(strength: float) -> Tensor:
        return call(
            geometry, hidden, references, UseAttention(LAYER, store, strength=torch.full((1, 1, 1, 1), strength))
        )

    own = call(geometry, hidden, references)
    assert torch.equal(at(0.0), own)
    torch.testing.assert_close(at(1.0), theirs["A.out.geo_instilled"], atol=1e-6, rtol=0)
    torch.testing.assert_close(at(0.25), 0.75 * own + 0.25 * theirs["A.out.geo_instilled"], atol=1e-6, rtol=0)


def test_rows_take_the_rows_they_are_given(theirs: dict[str, Tensor]) -> None:
    geometry, hidden, references = layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo")
    store = taught(theirs)
    first = UseAttention(LAYER, store, source=torch.tensor([0, 0]))
    out = call(geometry, hidden, references, first)
    torch.testing.assert_close(out[0], theirs["A.out.geo_instilled"][0], atol=1e-6, rtol=0)
    assert (out[1] - theirs["A.out.geo_instilled"][1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda kept: (kept.query[:1], kept.key[:1]), "got 1 rows of 16 queries and 4 heads, expected 2 of 16 and 4"),
        (lambda kept: (kept.query[:, :9], kept.key), "got 2 rows of 9 queries"),
        (lambda kept: (kept.query[:, :, :2], kept.key[:, :, :2]), "16 queries and 2 heads, expected 2 of 16 and 4"),
    ],
    ids=["rows", "canvas", "heads"],
)
def test_entries_that_do_not_fit_are_refused(
    theirs: dict[str, Tensor], make: Callable[[Recorded], tuple[Tensor, Tensor]], message: str
) -> None:
    store = {LAYER: Recorded(*make(taught(theirs)[LAYER]), True)}
    with pytest.raises(ValueError, match=f"{LAYER}: .*{message}"):
        call(layer(theirs, "geo"), theirs["A.in.geo_target"], extended(theirs, "geo"), UseAttention(LAYER, store))


def test_references_of_other_rows_are_refused(theirs: dict[str, Tensor]) -> None:
    views = torch.zeros(3, 16, 32)
    with pytest.raises(ValueError, match=rf"{LAYER}: got references of shape \(3, 16, 32\), expected 2 x 2 rows"):
        call(layer(theirs, "geo"), theirs["A.in.geo_target"], ExtendContext(LAYER, {LAYER: views}, views=2))
    with pytest.raises(ValueError, match=f"{LAYER}: got no recorded input"):
        call(layer(theirs, "geo"), theirs["A.in.geo_target"], ExtendContext(LAYER, {}, views=2))
