"""Families: where each denoiser has the image's tokens, and branches that act there alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import RawTokensAdapter, raw_conditions, tiny_unet
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Attend, Branch, DecoupledBranch, OwnAttention
from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import FAMILIES, Family, call_layout, family_of, layer_levels
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.core.processor import attention_layers, conditioned, install, restore
from weftwork.scripts.benchmarks.backbones.tiny import BACKBONES, Made, parts, run

Backbone = Callable[[], Made]
PACKED = ("flux", "chroma", "flux2", "flux3", "qwen_image", "krea2", "ltx", "ltx2")
every = pytest.mark.parametrize("backbone", BACKBONES, ids=lambda one: one.__name__)


class Spy(Branch):
    """Keeps what a layer attends with and returns."""

    def mix(self, query: Tensor, out: Tensor, attend: Attend, own: OwnAttention) -> Tensor:
        self.query, self.out, self.stock, self.own = query, out, own.out, own
        return out


def conditions(model: nn.Module, inputs: dict[str, Any], designs: slice = slice(0, 2), **options: Any) -> Conditioning:
    torch.manual_seed(3)
    adapter = RawTokensAdapter.for_denoiser(model).requires_grad_(False)
    rows = [raw_conditions(seed, **options)[:1] for seed in (0, 1)][designs]
    encoded = adapter(adapter.features(adapter.collate(rows), {}))
    return Conditioning.of({"it": encoded}, call_layout(model, inputs))


def conditioned_run(model: nn.Module, inputs: dict[str, Any], conditioning: Conditioning) -> Tensor:
    with conditioned(model, conditioning):
        return run(model, inputs)


def poked(name: str, inputs: dict[str, Any], grid: tuple[int, int, int], frame: int, y: int, x: int) -> dict[str, Any]:
    """Returns inputs with other latents in one place, as each family's pipelines lay them out."""
    inputs, (_, height, width) = copy.deepcopy(inputs), grid
    if name == "z_image":
        for sample in inputs["x"]:
            sample[:, frame, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += 9.0
        return inputs
    latents = inputs["hidden_states"]
    if name in PACKED:
        latents[:, (frame * height + y) * width + x] += torch.tensor([9.0, -9.0]).repeat(latents.shape[-1] // 2)
    elif name.startswith("stable_audio"):
        latents[..., x] += 9.0
    elif name == "ace_step":
        latents[:, 2 * x : 2 * x + 2] += 9.0
    else:
        images = latents.movedim(-1, 2) if name == "kandinsky5" else latents
        images = images.movedim(1, 2) if name in ("wan", "wan_image_to_video", "hunyuan_video", "mochi") else images
        images = images[:, frame] if images.ndim == 5 else images  # [row, channel, height, width]
        side = images.shape[-1] // width
        images[..., y * side : (y + 1) * side, x * side : (x + 1) * side] += 9.0
    return inputs


@every
@torch.no_grad()
def test_image_tokens_stand_where_the_record_says(backbone: Backbone) -> None:
    """Another value in one place of the latents changes the query most that the record has for this place."""
    model, inputs = parts(backbone)
    family = family_of(model)
    tokens = family.tokens(model, inputs)
    assert tokens is not None
    install(model)
    roles = {n: r for n, r in family.layers(model).items() if r in ("joint", "self", "cross")}
    roles = {n: r for n, r in roles.items() if "Linear" not in type(attention_layers(model)[n].processor).__name__}
    frames, height, width = tokens.grid
    place = (frames - 1, height - 1, max(width - 2, 0))
    seen = []
    for given in (inputs, poked(backbone.__name__, inputs, tokens.grid, *place)):
        spies = {name: Spy() for name in roles}
        conditioned_run(model, given, Conditioning({name: (spy,) for name, spy in spies.items()}))
        seen.append(spies)
    for name in roles:
        before, after = (spies[name].query for spies in seen)
        begin, end = tokens.span(before.shape[1])
        assert end - begin == frames * height * width or tokens.stream is None
        changed = (after - before).flatten(2).norm(dim=-1)[0].argmax()
        index = (place[0] * height + place[1]) * width + place[2]
        assert changed == begin + index, name
        branch = DecoupledBranch(*[before.new_zeros(1)] * 3, image=tokens)
        own = [branch.queries(spies[name].query, spies[name].own) for spies in seen]  # before rotary embeddings
        assert own[0].shape[1] == frames * height * width or tokens.stream is None
        assert (own[1] - own[0]).flatten(2).norm(dim=-1)[0].argmax() == index, name


@every
@torch.no_grad()
def test_a_branch_acts_on_image_tokens_and_in_its_region_alone(backbone: Backbone) -> None:
    model, inputs = parts(backbone)
    stock, found = run(model, inputs), {name: layer.processor for name, layer in attention_layers(model).items()}
    family = family_of(model)
    install(model)
    assert torch.equal(conditioned_run(model, inputs, conditions(model, inputs, weight=0.0)), stock)
    tokens = family.tokens(model, inputs)
    assert tokens is not None
    for region in (None, (0.5, 0.0, 1.0, 1.0)):
        conditioning = conditions(model, inputs, region=region)
        spies = {name: Spy() for name in conditioning.branches}
        spied = {name: (*branches, spies[name]) for name, branches in conditioning.branches.items()}
        assert (conditioned_run(model, inputs, Conditioning(spied)) - stock).abs().max() > 1e-6
        first = next(iter(spies.values()))  # later ones differ in their inputs too
        begin, end = tokens.span(first.query.shape[1])
        changed = (first.out != first.stock).any(-1).any(-1)[0]
        assert not changed[:begin].any() and not changed[end:].any()
        inside = changed[begin:end].unflatten(0, tokens.grid)
        half = tokens.grid[2] // 2
        assert inside[..., half:].all() and inside[..., :half].all() == (region is None)
        assert region is None or not inside[..., :half].any()
    restore(model)
    assert all(layer.processor is found[name] for name, layer in attention_layers(model).items())
    assert torch.equal(run(model, inputs), stock)


@every
@torch.no_grad()
def test_a_batch_is_its_rows(backbone: Backbone) -> None:
    model, inputs = parts(backbone)
    install(model)
    both = conditioned_run(model, inputs, conditions(model, inputs))
    first = slice(0, 1)
    alone = rows_of(inputs, [0])
    single = conditioned_run(model, alone, conditions(model, alone, first))
    assert single.shape[0] == 1 or backbone.__name__ == "z_image"
    torch.testing.assert_close(both if backbone.__name__ == "z_image" else both[:1], single, atol=1e-4, rtol=0)


# -- layers ------------------------------------------------------------------------------------------------


def test_presets_of_layers() -> None:
    flux = next(one for one in BACKBONES if one.__name__ == "flux")
    model, _ = parts(flux)
    double, single = attention_layers(model)
    assert list(select_layers(model, "all")) == list(select_layers(model, "self")) == [double, single]
    assert list(select_layers(model, "encoder")) == [double] and list(select_layers(model, "decoder")) == [single]
    wan, _ = parts(next(one for one in BACKBONES if one.__name__ == "wan"))
    assert all(name.endswith("attn2") for name in select_layers(wan, "all"))
    assert all(name.endswith("attn1") for name in select_layers(wan, "self"))


@torch.no_grad()
def test_conditions_take_presets_of_transformers() -> None:
    model, inputs = parts(next(one for one in BACKBONES if one.__name__ == "flux"))
    stock = run(model, inputs)
    install(model)
    plain, shallow, none = (
        conditioned_run(model, inputs, conditions(model, inputs, layers=dict.fromkeys(names, 0.0)))
        for names in ((), ("encoder",), ("encoder", "decoder"))
    )
    assert torch.equal(none, stock)
    assert (shallow - stock).abs().max() > 1e-6 < (shallow - plain).abs().max()
    with pytest.raises(ValueError, match=r"got 'middle', which matches none of 2 .* all, encoder, middle, deco"):
        conditions(model, inputs, layers={"middle": 0.0})


@pytest.mark.parametrize(("name", "layer"), [("z_image", r"context_refiner.*"), ("hunyuan_video", r"context_embed.*")])
def test_layers_of_text_alone_are_refused(name: str, layer: str) -> None:
    model, _ = parts(next(one for one in BACKBONES if one.__name__ == name))
    with pytest.raises(ValueError, match="whose tokens are the text's; choose layers that read the image"):
        select_layers(model, layer)


# -- other classes -----------------------------------------------------------------------------------------


def test_a_subclass_has_the_record_of_its_base() -> None:
    unet = tiny_unet()
    unet.__class__ = type("FSDPUNet", (type(unet),), {})
    assert family_of(unet) is FAMILIES["UNet2DConditionModel"]


class Layer(nn.Module):
    set_processor = print


class Unknown(nn.Module):
    """A denoiser of no known class, with layers of these names."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.ModuleDict({"attn" if name == "odd" else "attn2": Layer()}))


def test_unknown_classes_work_by_the_names_of_layers_or_are_refused() -> None:
    family = family_of(Unknown("block"))
    assert family.layers(Unknown("block")) == {"block.attn2": "cross"} and family.grid is None
    with pytest.raises(ValueError, match=r'Unknown, which has no record .* write FAMILIES\["Unknown"\] = Family\('):
        family_of(Unknown("odd"))
    assert layer_levels(Unknown("block")) == {"block.attn2": 0}


def test_records_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "Unknown", Family({r"odd\.attn": "cross"}, None))
    assert family_of(Unknown("odd")).layers(Unknown("odd")) == {"odd.attn": "cross"}
