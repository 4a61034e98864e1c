"""Styles by name: fusions, mixtures, layers, guidance, and cards that equal the table they were baked from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import STYLES, attend, open_style_adapter, style_adapter, style_conditions, tiny_unet
from variants import SD, run

from weftwork.attention_processors.core.branch import OwnAttention
from weftwork.attention_processors.core.joint_branch import JointBranch
from weftwork.attention_processors.style.adapter import FUSIONS, Style, StyleCard, StyleCards


def build(adapter: Any = None, **options: Any) -> Any:
    pipe = SD.make(SD.conditioned)
    pipe.attach(style=adapter or style_adapter(pipe.unet, **options))
    return pipe


def styled(pipe: Any, *styles: Any, **options: Any) -> np.ndarray:
    return run(pipe, conditions={"style": list(styles)}, **options)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return build()


@pytest.fixture(scope="module")
def stock() -> np.ndarray:
    return run(SD.make(SD.stock))


# -- the equation ----------------------------------------------------------------------------------------------


def test_additive_fusion_is_the_equation_of_the_page(pipe: Any) -> None:
    adapter = pipe.adapters["style"]
    with torch.no_grad():
        encoded = adapter(adapter.collate([[Style("neon")]]))
        tokens = adapter.norm(adapter.projection(adapter.table[2]).view(2, 32))
        null = adapter.norm(adapter.projection(adapter.table[-1]).view(2, 32))
        for name, (key, value) in encoded.key_value.items():
            slot = name.replace(".", "-")
            torch.testing.assert_close(key[0], tokens @ adapter.to_key[slot].weight.T, rtol=0, atol=1e-6)
            torch.testing.assert_close(value[0], tokens @ adapter.to_value[slot].weight.T, rtol=0, atol=1e-6)
            assert encoded.null is not None
            torch.testing.assert_close(
                encoded.null[name][0][0], null @ adapter.to_key[slot].weight.T, rtol=0, atol=1e-6
            )


def test_only_the_decoder_is_served(pipe: Any) -> None:
    assert all(name.startswith("up_blocks") for name in pipe.adapters["style"].config["layers"])


def attention_parts(tokens: int = 3) -> tuple[Any, Any, OwnAttention, Any]:
    generator = torch.Generator().manual_seed(0)
    query, text = torch.randn(2, 5, 2, 4, generator=generator), torch.randn(2, 7, 2, 4, generator=generator)
    extra = torch.randn(2, tokens, 8, generator=generator)
    return query, extra, OwnAttention(text, text.flip(1), None, attend(query, text, text.flip(1))), attend


def test_concat_is_one_softmax_over_text_and_style() -> None:
    query, extra, own, attend = attention_parts()
    branch = JointBranch(extra, extra.flip(1), torch.ones(2, 1, 1, 1))
    key = torch.cat([own.key, extra.unflatten(-1, (2, 4))], 1)
    value = torch.cat([own.value, extra.flip(1).unflatten(-1, (2, 4))], 1)
    torch.testing.assert_close(branch.mix(query, own.out, attend, own), attend(query, key, value))


def test_concat_keeps_masks_of_both() -> None:
    query, extra, own, attend = attention_parts()
    text_mask = torch.zeros(2, 1, 1, 7)
    text_mask[..., 4:] = -torch.inf
    bias = torch.zeros(2, 1, 1, 3)
    bias[..., 2:] = -torch.inf
    masked = OwnAttention(own.key, own.value, text_mask, attend(query, own.key, own.value, text_mask))
    branch = JointBranch(extra, extra, torch.ones(2, 1, 1, 1), bias)
    shown = extra[:, :2].unflatten(-1, (2, 4))
    key, value = torch.cat([own.key[:, :4], shown], 1), torch.cat([own.value[:, :4], shown], 1)
    torch.testing.assert_close(branch.mix(query, masked.out, attend, masked), attend(query, key, value))


def test_gates_are_closed_at_birth_and_open_by_training(stock: np.ndarray) -> None:
    pipe = build(fusion="gated")
    assert np.allclose(styled(pipe, Style("ink")), stock, atol=1e-6)
    with torch.no_grad():
        pipe.adapters["style"].gates.fill_(1.0)
    assert np.abs(styled(pipe, Style("ink")) - stock).max() > 1e-4


def test_low_rank_starts_as_the_best_approximation() -> None:
    unet = tiny_unet()
    exact, full, low = (style_adapter(unet, rank=rank) for rank in (0, 32, 2))
    for slot, projection in exact.to_key.items():
        factors: Any = [adapter.to_key[slot] for adapter in (full, low)]
        products = [up.weight @ down.weight for down, up in factors]
        torch.testing.assert_close(products[0], projection.weight, rtol=0, atol=1e-5)
        tail = torch.linalg.svdvals(projection.weight)[2:].norm()
        torch.testing.assert_close((products[1] - projection.weight).norm(), tail)
    assert sum(p.numel() for p in low.parameters()) < sum(p.numel() for p in exact.parameters())


# -- mixtures, layers, guidance, regions -----------------------------------------------------------------------


def test_shares_are_relative(pipe: Any) -> None:
    halves = styled(pipe, Style({"ink": 0.5, "neon": 0.5}))
    assert np.array_equal(halves, styled(pipe, Style({"neon": 3, "ink": 3})))
    assert np.abs(halves - styled(pipe, Style("ink"))).max() > 1e-5
    assert np.array_equal(styled(pipe, Style({"ink": 1, "neon": 0})), styled(pipe, Style("ink")))


def test_layer_factors(pipe: Any, stock: np.ndarray) -> None:
    plain = styled(pipe, Style("ink"))
    assert np.array_equal(styled(pipe, Style("ink", layers={"decoder": 0.0})), stock)
    assert np.array_equal(styled(pipe, Style("ink", layers={"decoder": 1.0})), plain)
    half = styled(pipe, Style("ink", layers={r".*attentions\.0.*": 0.0}))
    assert np.abs(half - plain).max() > 1e-5 and np.abs(half - stock).max() > 1e-5
    assert np.array_equal(styled(pipe, Style("ink", layers={"decoder": 0.5})), styled(pipe, Style("ink", weight=0.5)))
    with pytest.raises(ValueError, match="layers: got 'encoder', which matches none of"):
        styled(pipe, Style("ink", layers={"encoder": 0.0}))


def test_factors_of_two_styles_on_one_layer_are_their_own(pipe: Any) -> None:
    first = Style("ink", layers={"decoder": 0.0})
    np.testing.assert_allclose(
        styled(pipe, first, Style("neon", weight=0.8)), styled(pipe, Style("neon", weight=0.8)), atol=1e-5
    )


def test_guidance_of_the_unconditional_half(pipe: Any) -> None:
    both, alone = styled(pipe, Style("ink")), styled(pipe, Style("ink", cfg="cond_only"))
    assert np.abs(both - alone).max() > 1e-5
    unguided = [styled(pipe, Style("ink", cfg=cfg), guidance_scale=1.0) for cfg in ("both", "cond_only")]
    assert np.array_equal(unguided[0], unguided[1])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_region_keeps_two_styles_apart(fusion: str, stock: np.ndarray) -> None:
    pipe = build(open_style_adapter(tiny_unet(), fusion=fusion))
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    both = styled(pipe, Style("ink", region=left), Style("neon", region=right))
    swapped = styled(pipe, Style("ink", region=right), Style("neon", region=left))
    assert np.abs(both - swapped).max() > 1e-4
    assert np.array_equal(both, styled(pipe, Style("ink", region=left), Style("neon", region=right)))
    assert np.abs(both - stock).max() > 1e-4


# -- cards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["additive", "gated", "concat"])
def test_cards_equal_the_table(fusion: str, tmp_path: Path) -> None:
    pipe = build(fusion=fusion)
    adapter = pipe.adapters["style"]
    if fusion == "gated":
        with torch.no_grad():
            adapter.gates.fill_(0.7)
    cards = [StyleCard.load(adapter.bake(name).save(tmp_path / f"{name}.safetensors")) for name in ("neon", "ink")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ink.safetensors", "neon.safetensors"]
    baked = build(StyleCards.of(cards))
    mixture = Style({"ink": 1, "neon": 2})
    for styles in ([Style("ink")], [mixture], [Style("neon", region=(0, 0, 0.5, 1)), Style("ink", weight=0.5)]):
        np.testing.assert_allclose(
            styled(baked, *styles), styled(pipe, *styles), rtol=0, atol=2e-5
        )  # rounding, enlarged by guidance
    mixed = build(StyleCards.of([adapter.bake(mixture.styles, "both")]))
    np.testing.assert_allclose(styled(mixed, Style("both")), styled(pipe, mixture), rtol=0, atol=2e-5)


def test_cards_of_half_the_size(tmp_path: Path) -> None:
    pipe = build()
    adapter = pipe.adapters["style"]
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    ink = StyleCard.load(adapter.bake("ink").save(half, torch.float16))
    neon = StyleCard.load(adapter.bake("neon").save(whole))
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    baked = build(StyleCards.of([ink, neon]))
    for name in ("ink", "neon"):
        np.testing.assert_allclose(styled(baked, Style(name)), styled(pipe, Style(name)), rtol=0, atol=5e-3)


def test_cards_as_an_adapter_folder(tmp_path: Path) -> None:
    adapter = style_adapter(tiny_unet())
    StyleCards.of([adapter.bake(name) for name in STYLES]).save_pretrained(tmp_path / "cards")
    pipe = SD.make(SD.conditioned)
    pipe.load_adapter(tmp_path / "cards", "style")
    for style in style_conditions():
        np.testing.assert_allclose(styled(pipe, style), styled(build(adapter), style), rtol=0, atol=1e-6)


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"styles": {}}, "styles: got {}, expected a name"),
        ({"styles": ""}, "styles: got '', expected a name"),
        ({"styles": {"ink": -1}}, "a share of -1 for 'ink', expected a finite number of at least 0"),
        ({"styles": {"ink": float("nan")}}, "a share of nan"),
        ({"styles": {"ink": 0, "neon": 0}}, "shares that sum to 0"),
        ({"styles": "ink", "weight": -1}, "weight: got -1"),
        ({"styles": "ink", "layers": {"decoder": float("inf")}}, "weight: got inf"),
        ({"styles": "ink", "cfg": "cond"}, "cfg: got 'cond', expected one of both, cond_only"),
        ({"styles": "ink", "start": 0.7, "end": 0.2}, "schedule: got start 0.7"),
        ({"styles": "ink", "region": (0, 0, 2, 1)}, "region: got"),
    ],
)
def test_bad_styles(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Style(**arguments)


def test_unknown_styles_name_the_nearest(pipe: Any) -> None:
    with pytest.raises(ValueError, match=r"style: got 'woodcat', expected one of ink, .*; did you mean 'woodcut'\?"):
        styled(pipe, Style("woodcat"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"styles": ()}, "styles: got \\[\\], expected at least one"),
        ({"styles": ("ink", "ink")}, "each once"),
        ({"fusion": "adition"}, "fusion: got 'adition', expected one of additive"),
    ],
)
def test_bad_tables(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        style_adapter(tiny_unet(), **options)


def test_cards_that_do_not_belong_together() -> None:
    adapter, other = style_adapter(tiny_unet()), style_adapter(tiny_unet(), fusion="concat")
    with pytest.raises(ValueError, match="each name once"):
        StyleCards.of([adapter.bake("ink"), adapter.bake("ink")])
    with pytest.raises(ValueError, match="'neon' has another fusion than 'ink'"):
        StyleCards.of([adapter.bake("ink"), other.bake("neon")])
    with pytest.raises(ValueError, match="a mixture of styles without one; name the card"):
        adapter.bake({"ink": 1, "neon": 1})


def test_a_card_for_another_base_changes_nothing(stock: np.ndarray) -> None:
    card = style_adapter(tiny_unet(block_out_channels=(96, 64))).bake("ink")
    pipe = SD.make(SD.conditioned)
    with pytest.raises(ValueError, match="base: got width 96"):
        pipe.attach(style=StyleCards.of([card]))
    assert np.array_equal(run(pipe), stock)


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    card = style_adapter(tiny_unet()).bake("ink").save(tmp_path / "card.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle.bin")
    (tmp_path / "short.safetensors").write_bytes(card.read_bytes()[:-20])
    for name, message in (
        ("other.safetensors", "a safetensors file that is not a style card"),
        ("pickle.bin", "no code and no pickles"),
        ("short.safetensors", "not a readable safetensors file"),
        ("none.safetensors", "not a readable safetensors file"),
    ):
        with pytest.raises(ValueError, match=message):
            StyleCard.load(tmp_path / name)
