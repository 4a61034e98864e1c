"""Remedies in errors of views, their links and their files: the same call succeeds after them."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from remedies import Make, Row, check, given, itself, row, table
from safetensors.torch import load_file, save_file
from tiny import loaded_views, tiny_unet
from tiny_audio import tiny_transformer
from tiny_links import LAYER, denoised, denoiser, latents
from tiny_views import REFERENCES, TARGET
from torch import Tensor, nn

from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import conditioned, install
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.batch import ViewsFeatures
from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder, added_to_latents, embedder_of
from weftwork.attention_processors.views.instillation import Instillation, RecordAttention, Recorded, UseAttention
from weftwork.attention_processors.views.point_maps import PointRange
from weftwork.attention_processors.views.reference_attention import ExtendContext
from weftwork.attention_processors.views.warping import warp_points


@cache
def unet() -> Any:
    return tiny_unet()


@cache
def student() -> Any:
    return denoiser(2)


@cache
def views() -> AlignedViews:
    return AlignedViews.for_denoiser(unet(), rank=1, channels=16)


def headless() -> Any:
    """A U-Net without the layer that embeds latents."""
    changed = tiny_unet()
    del changed.conv_in
    return changed


def linked(link: Instillation, rows: int = 2, source: list[int] | None = None, *, grad: bool = False) -> Tensor:
    """The output of a student with as many rows, after a teacher's call of two without gradients."""
    link.clear()
    with torch.no_grad():
        denoised(student(), latents(1), link=link.record())
    with torch.set_grad_enabled(grad):
        return denoised(student(), latents(2, rows), link=link.use(None if source is None else torch.tensor(source)))


@torch.no_grad()
def in_one_layer(*branches: Branch) -> Tensor:
    layer = Attention(32, heads=4, dim_head=8)
    install(layer)
    with conditioned(layer, Conditioning({"": branches})):  # the layer is the whole module
        return layer(torch.ones(2, 16, 32))


def extended(rows: int) -> Branch:
    """References of two views for each of two rows, if there are four."""
    return ExtendContext(LAYER, {LAYER: torch.ones(rows, 16, 32)}, views=2)


def of_extended(keys: str) -> Tensor:
    """A pass without references that uses the attention of one with them."""
    store: dict[str, Recorded] = {}
    in_one_layer(extended(4), RecordAttention(LAYER, store))
    return in_one_layer(UseAttention(LAYER, store, keys=keys))


LINKS = [
    row(lambda options: Instillation(**options), given({"keys": "x"}), "; pass one of these", given({"keys": "all"})),
    row(lambda one: Instillation(strength=one), given(1.5), "; None is full strength", given(None)),
    row(
        lambda gradient: linked(Instillation(gradient=gradient), grad=True),
        given("live"),
        "recorded without gradients, expected live ones; .*, or pass gradient='detach'",
        given("detach"),
    ),
    row(
        lambda source: linked(Instillation(), source=source),
        given([0, 2]),
        "got the source 2, expected rows from 0 to 1; correct it",
        given([0, 1]),
    ),
    row(lambda rows: linked(Instillation(), rows), given(1), "; give both passes the same batch and canvas", given(2)),
    row(of_extended, given("all"), "48 recorded keys for 16 values; .* or pass keys='target' where", given("target")),
    row(
        lambda rows: in_one_layer(extended(rows)),
        given(3),
        "expected 2 x 2 rows; run the reference pass with all views of these rows",
        given(4),
    ),
]


@torch.no_grad()
def added(rows: int) -> Tensor:
    with added_to_latents(unet(), torch.ones(rows, 32, 8, 8)):
        return unet()(torch.ones(2, 4, 8, 8), 500, torch.ones(2, 3, 32)).sample


FIRST = REFERENCES[0]
FLAT = replace(FIRST, points=FIRST.points * 0 + [0, 0, 1])
CAMERA = TARGET.camera
SHAPES = [
    row(
        embedder_of,
        lambda _: headless(),
        "got UNet2DConditionModel without conv_in; use a model of the published configuration",
        lambda _: unet(),
    ),
    row(lambda one: CorrespondenceEncoder(one, 8), given(4), "expected 16, 17, 19 or 20; see", given(20)),
    row(added, given(3), "rows that divide its rows; encode them for this canvas and batch", given(1)),
    row(
        lambda one: PointRange.over([one], FIRST.camera), given(FLAT), "along every axis; check the depth", given(FIRST)
    ),
    row(lambda some: warp_points(some, CAMERA, (64, 64)), given([]), "; pass at least one image", given(REFERENCES)),
    row(
        lambda cameras: views().collate([REFERENCES], cameras=cameras),
        given([]),
        "cameras: got 0 for 1 designs, expected one for each",
        given([CAMERA]),
    ),
    row(
        lambda some: views().collate(some, cameras=[CAMERA] * 2),
        given([REFERENCES, REFERENCES[:1]]),
        r"got \[1, 2\] per design, .*; give every design its views",
        given([REFERENCES, REFERENCES]),
    ),
]


def other_weights() -> Any:
    other = tiny_unet()
    nn.init.ones_(other.conv_in.weight)
    return other


def saved(change: Callable[[Path], object] = lambda _: None) -> Make:
    """The folder of views, whole or changed."""

    def make(folder: Path) -> Path:
        views().save_pretrained(folder / "views")
        change(folder / "views")
        return folder / "views"

    return make


def without_a_tensor(folder: Path) -> None:
    path = folder / "image" / "pytorch_lora_weights.safetensors"
    save_file(dict(list(load_file(path).items())[1:]), path)


def without_a_file(folder: Path) -> None:
    (folder / "image" / "pytorch_lora_weights.safetensors").unlink()


def configured(**content: object) -> Make:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))

    return saved(change)


@torch.no_grad()
def read_references(adapter: AlignedViews) -> Any:
    ones = torch.ones(1, 1, 4, 8, 8)
    given = {"sample": ones[0], "timestep": torch.zeros(1), "encoder_hidden_states": torch.ones(1, 3, 32)}
    geometry = torch.ones(1, 2, 8, 64, 64)
    return adapter(ViewsFeatures(images=ones, points=ones, geometry=geometry, warped=ones[0], given=given))


FILES = [
    row(
        lambda one: [views().check_base(one)],
        lambda _: tiny_transformer(),
        r"embedder=name\), both from",
        given(unet()),
    ),
    row(lambda one: [views().check_base(one)], lambda _: other_weights(), "the one that its card names", given(unet())),
    row(AlignedViews.from_pretrained, itself, "; give the folder that save_pretrained wrote", saved()),
    row(AlignedViews.from_pretrained, configured(format_version=9), "expected at most 1; update weftwork", saved()),
    row(AlignedViews.from_pretrained, saved(without_a_file), "; .* incomplete: copy or download it again", saved()),
    row(lambda one: loaded_views(one, unet()), saved(without_a_tensor), "; copy or save the folder again", saved()),
    (
        "got an adapter that is not attached; attach it to a pipeline first",
        lambda folder: read_references(AlignedViews.from_pretrained(saved()(folder))),
        lambda _: read_references(views()),
    ),
]


@table(*LINKS, *SHAPES, *FILES)
def test_remedies(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)
