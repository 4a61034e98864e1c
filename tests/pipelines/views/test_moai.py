"""Published MoAI networks end in an image: contexts, channels, attention of the image for the geometry, errors."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remedies import check_call
from tiny import tiny_parts, tiny_unet
from tiny_views import REFERENCES, TARGET
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.core.processor import attention_layers
from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder
from weftwork.attention_processors.views.reference_attention import RecordInput
from weftwork.pipelines.views.moai import DENOISERS, MoAIPipeline
from weftwork.scripts.converters.command import convert_from_moai
from weftwork.scripts.converters.moai import FILES, OUTPUT

CHANNELS = {"image": 4, "geometry": 8, "image_reference": 4, "geometry_reference": 8}
VAE = tiny_parts()["vae"].eval()


def network(channels: int) -> Any:
    return tiny_unet(in_channels=channels, use_linear_projection=True)


def image_encoder(dim: int = 32) -> CLIPVisionModelWithProjection:
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=dim)
    return CLIPVisionModelWithProjection(config).eval()


def encoder(channels: int) -> CorrespondenceEncoder:
    torch.manual_seed(4)
    made = CorrespondenceEncoder(channels, 32)
    torch.nn.init.normal_(made.conv_out.weight, std=0.2)
    return made.eval()


def pipeline(channels: int = 20, **changes: int) -> MoAIPipeline:
    parts = {role: network(n) for role, n in {**CHANNELS, **changes}.items()}
    pipe = MoAIPipeline(**parts, correspondence=encoder(channels), vae=VAE, image_encoder=image_encoder())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> MoAIPipeline:
    return pipeline()


def view(pipe: MoAIPipeline, references: Any = REFERENCES, **options: Any) -> Any:
    settings = {"num_inference_steps": 2, "output_type": "np", "blend_latents": False, "blend_pixels": False}
    generator = torch.Generator().manual_seed(0)
    return pipe(references, TARGET.camera, generator=generator, **{**settings, **options})


def test_converted_files_end_in_an_image(tmp_path: Path) -> None:
    source = tmp_path / "main"
    source.mkdir()
    for role, channels in CHANNELS.items():
        state = network(channels).state_dict()
        torch.save({n: v for n, v in state.items() if "reference" not in role or n not in OUTPUT}, source / FILES[role])
    torch.save(encoder(19).state_dict(), source / FILES["correspondence"])
    convert_from_moai(source, tmp_path / "moai", head_dim=8, groups=8)
    VAE.save_pretrained(tmp_path / "vae")
    image_encoder().save_pretrained(tmp_path / "clip")
    pipe = MoAIPipeline.from_folder(tmp_path / "moai", vae=tmp_path / "vae", image_encoder=tmp_path / "clip")
    pipe.set_progress_bar_config(disable=True)
    out = view(pipe, output_type="pil", blend_latents=True, blend_pixels=True)
    assert out.images[0].size == (64, 64) and (out.depth > 0).all()
    check_call(
        lambda folder: MoAIPipeline.from_folder(folder, vae=VAE, image_encoder=image_encoder()),
        tmp_path, "image/config.json is missing; give the folder of weftwork convert moai", tmp_path / "moai",
    )  # fmt: skip


@pytest.mark.parametrize(("channels", "wide"), [(16, 4), (17, 4), (19, 4), (20, 8)])
def test_all_published_channels_are_read(channels: int, wide: int) -> None:
    out = view(pipeline(channels, image=wide, image_reference=wide), num_inference_steps=1)
    assert np.isfinite(out.images).all() and out.images.std() > 0


def test_everything_that_is_passed_counts(pipe: MoAIPipeline) -> None:
    plain = view(pipe)
    assert np.array_equal(view(pipe).images, plain.images)
    for other in (
        view(pipe, null="zeros"),
        view(pipe, guidance_scale=1.0),
        view(pipe, REFERENCES[:1]),
        view(pipe, blend_latents=True),
    ):
        assert not np.array_equal(other.images, plain.images)
    assert not np.array_equal(view(pipe, blend_pixels=True).depth, plain.depth)


def test_geometry_attends_as_the_image_does(pipe: MoAIPipeline) -> None:
    """Queries and keys of the geometry denoiser are not used; those of the image denoiser change both results."""
    plain = view(pipe)
    with changed(pipe.geometry, "attn1.to_q", "attn1.to_k"):
        same = view(pipe)
    assert np.array_equal(same.images, plain.images) and np.array_equal(same.depth, plain.depth)
    with changed(pipe.image, "attn1.to_q"):
        other = view(pipe)
    assert not np.array_equal(other.images, plain.images) and not np.array_equal(other.depth, plain.depth)


class changed:
    """Shifts weights of some layers within the block."""

    def __init__(self, network: Any, *names: str) -> None:
        self.weights = [p for n, p in network.named_parameters() if any(name in n for name in names)]

    def __enter__(self) -> None:
        for weight in self.weights:
            weight.data += 0.1

    def __exit__(self, *_: object) -> None:
        for weight in self.weights:
            weight.data -= 0.1


def test_the_context_is_that_of_the_nearest_reference(pipe: MoAIPipeline) -> None:
    target, own = pipe._contexts(REFERENCES, TARGET.camera, None)
    places = [np.linalg.norm(one.camera.position - TARGET.camera.position) for one in REFERENCES]
    assert torch.equal(target[0], own[int(np.argmin(places))]) and not torch.equal(own[0], own[1])
    rows, views = pipe._contexts(REFERENCES, TARGET.camera, "learned")
    assert rows.shape == (2, 1, 32) and views.shape == (4, 1, 32)
    assert torch.equal(rows[0], views[0]) and torch.equal(views[0], views[1]) and torch.equal(views[2:], own)
    zeros = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(rows[0], image_encoder()(zeros).image_embeds)
    assert bool((pipe._contexts(REFERENCES, TARGET.camera, "zeros")[0][0] == 0).all())


def test_half_precision_rounds_the_features_of_references_alone(pipe: MoAIPipeline) -> None:
    plain, half = view(pipe), view(pipe, half_references=True)
    assert not np.array_equal(half.images, plain.images)
    np.testing.assert_allclose(half.images, plain.images, atol=1e-2)
    store: dict[str, Tensor] = {}
    RecordInput("layer", store, torch.float16).read(torch.tensor([0.1]))
    assert torch.equal(store["layer"], torch.tensor([0.1]).half())


def test_the_networks_are_left_as_they_were(pipe: MoAIPipeline) -> None:
    processors: Callable[[], list[object]] = lambda: [  # noqa: E731
        layer.processor for name in DENOISERS for layer in attention_layers(getattr(pipe, name)).values()
    ]
    before = processors()
    view(pipe)
    assert all(one is other for one, other in zip(processors(), before, strict=True))
    assert not pipe.image.conv_in._forward_hooks


def test_bad_calls_are_refused(pipe: MoAIPipeline) -> None:
    null = "null: got 'no', expected one of learned, zeros; pass one of these"
    check_call(lambda one: view(pipe, null=one, num_inference_steps=1), "no", null, "zeros")
    with pytest.raises(ValueError, match="references: got none"):
        view(pipe, [])
    small = [replace(one, image=one.image[:32], points=one.points[:32]) for one in REFERENCES]
    size = "references: got images of 64x32, expected multiples of 64; resize them"
    check_call(lambda some: view(pipe, some, num_inference_steps=1), small, size, REFERENCES)
    parts: dict[str, Any] = {role: getattr(pipe, role) for role in DENOISERS}
    width = "image_encoder: got embeddings of width 16, expected 32; pass one of this width"
    check_call(
        lambda one: MoAIPipeline(**parts, correspondence=encoder(20), vae=VAE, image_encoder=one),
        image_encoder(16), width, image_encoder(32),
    )  # fmt: skip


def test_the_loop_starts_from_pure_noise(pipe: MoAIPipeline) -> None:
    pipe.scheduler.set_timesteps(20)
    assert pipe.scheduler.timesteps[[0, 1, -1]].tolist() == [999, 949, 49]
    assert float(pipe.scheduler.alphas_cumprod[999]) == pytest.approx(0, abs=1e-9)
    clean: Tensor = torch.ones(1, 4, 2, 2)
    noise = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(pipe.scheduler.add_noise(clean, noise, torch.tensor([999])), noise)
