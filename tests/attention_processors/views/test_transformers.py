"""Views on transformers: references, shared attention of image tokens, embedded correspondences, files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from weftwork.attention_processors.core.families import call_layout, family_of, sample_of
from weftwork.attention_processors.core.image_latents import latent_channels, latent_size
from weftwork.attention_processors.core.method import methods
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.batch import EncodedViews, ViewsFeatures
from weftwork.attention_processors.views.correspondence import added_to_latents, embedder_of
from weftwork.scripts.benchmarks.backbones import memory, tiny
from weftwork.scripts.benchmarks.backbones.cells import Cell

IMAGE_BACKBONES = [make for make in tiny.BACKBONES if family_of(tiny.parts(make)[0]).modality != "audio"]
TRAINED = ("lora_B", "conv_out", "warped_in")
"""Zero-initialised layers."""


def views_of(denoiser: Any, **options: Any) -> AlignedViews:
    """Returns modules that act, unlike new ones."""
    torch.manual_seed(4)
    views = AlignedViews.for_denoiser(denoiser, rank=2, channels=16, **options)
    with torch.no_grad():
        for name, parameter in views.named_parameters():
            if parameter.requires_grad and any(part in name for part in TRAINED):
                parameter.normal_(std=0.05)
    return views


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encoded(views: AlignedViews, denoiser: Any, given: dict[str, Any]) -> EncodedViews:
    """Returns two references of two designs."""
    (height, width), channels = latent_size(denoiser, given), latent_channels(denoiser)[0]
    features = ViewsFeatures(
        images=noise(1, 2, 2, channels, height, width),
        points=noise(2, 2, 2, channels, height, width),
        geometry=noise(3, 2, 3, 8, 8 * height, 8 * width),
        warped=noise(4, 2, channels, height, width),
        given=given,
    )
    return views(features)


def step(views: AlignedViews, denoiser: Any, given: dict[str, Any], seeds: tuple[int, int] = (5, 6)) -> list[Tensor]:
    sample, read = sample_of(given), encoded(views, denoiser, given)
    rows = sample if isinstance(sample, list) else sample.unbind()
    noisy: list[Any] = [[noise(seed, *one.shape) for one in rows] for seed in seeds]
    if not isinstance(sample, list):
        noisy = [torch.stack(one) for one in noisy]
    times = given["timestep"] if "timestep" in given else given["t"]
    out = views.denoise(noisy[0], noisy[1], times, read)
    return [one if isinstance(one, Tensor) else torch.stack(list(one)) for one in out]


@torch.no_grad()
@pytest.mark.parametrize("sharing", ["instillation", "concatenated", "none"])
@pytest.mark.parametrize("make", [tiny.flux, tiny.z_image, tiny.sana], ids=lambda make: make.__name__)
def test_what_is_shared_reaches_the_geometry_and_never_the_image(make: Callable[[], Any], sharing: str) -> None:
    denoiser, given = tiny.parts(make)
    views = views_of(denoiser, sharing=sharing)
    image, geometry = step(views, denoiser, given)
    other_image, other = step(views, denoiser, given, (7, 6))
    assert image.isfinite().all() and (image - other_image).abs().max() > 1e-3
    assert torch.equal(geometry, other) == (sharing == "none")
    assert torch.equal(step(views, denoiser, given, (5, 8))[0], image)


@torch.no_grad()
def test_text_keeps_the_queries_and_keys_of_the_geometry() -> None:
    denoiser, given = tiny.parts(tiny.flux)
    views = views_of(denoiser)
    step(views, denoiser, given)
    kept = views.link.store["single_transformer_blocks.0.attn"]
    assert kept.query.shape[1] == kept.key.shape[1] == 16  # of 23 tokens


@pytest.mark.parametrize("make", [tiny.flux, tiny.z_image], ids=lambda make: make.__name__)
def test_gradients_reach_what_acts_and_nothing_else(make: Callable[[], Any]) -> None:
    denoiser, given = tiny.parts(make)
    views = views_of(denoiser)
    frozen = {p.data_ptr() for p in denoiser.parameters()}
    for network in views.roles.values():
        assert {p.data_ptr() for p in network.parameters() if not p.requires_grad} == frozen
    sum(one.square().mean() for one in step(views, denoiser, given)).backward()
    assert all(p.grad is None for p in denoiser.parameters())
    idle = {n for n, p in views.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    read_by_no_image_token = "add_q_proj", "to_add_out", f"{views.readers[-1]}.to_q", f"{views.readers[-1]}.to_k"
    assert not {name for name in idle if not any(part in name for part in read_by_no_image_token)}, idle


@torch.no_grad()
@pytest.mark.parametrize("make", IMAGE_BACKBONES, ids=lambda make: make.__name__)
def test_features_are_added_to_embedded_latents_alone(make: Callable[[], Any]) -> None:
    denoiser, given = tiny.parts(make)
    plain, layout = tiny.run(denoiser, given), call_layout(denoiser, given)
    embedder = embedder_of(denoiser)[1]
    width = embedder.out_features if isinstance(embedder, torch.nn.Linear) else embedder.out_channels
    assert layout.latent_size is not None
    features = noise(1, 2, width, *layout.latent_size)
    for values, same in ((features * 0, True), (features, False)):
        with added_to_latents(denoiser, values, layout.tokens):
            assert torch.equal(tiny.run(denoiser, given), plain) == same
    assert torch.equal(tiny.run(denoiser, given), plain)


@pytest.mark.parametrize("name", ["group offload by layers", "model offload", "fp8"])
def test_roles_are_made_on_denoisers_with_hooks(name: str) -> None:
    (row,) = (one for one in memory.ROWS if one.name == name)
    row.check(Cell(methods()["aligned-views"], tiny.flux))


@torch.no_grad()
def test_a_folder_brings_the_modules_back(tmp_path: Path) -> None:
    denoiser, given = tiny.parts(tiny.flux)
    views = views_of(denoiser)
    views.save_pretrained(tmp_path)
    again = AlignedViews.from_pretrained(tmp_path)
    again.bind(denoiser)
    for one, other in zip(step(again, denoiser, given), step(views, denoiser, given), strict=True):
        assert torch.equal(one, other)
