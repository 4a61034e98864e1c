"""Known pixels: which are reliable, smooth filling, and views that keep them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from tiny import tiny_pipe
from tiny_views import REFERENCES, TARGET

from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.attention_processors.views.warping import warp_mesh
from weftwork.datasets.readers.cameras import Camera
from weftwork.pipelines.views.known import KnownLatents, KnownPixels, filled, reliable
from weftwork.pipelines.views.pipeline import AlignedViewsPipeline

SIZE = (64, 64)
WARPED = warp_mesh(REFERENCES, TARGET.camera, SIZE)
KNOWN = KnownPixels.of(REFERENCES, WARPED)


def test_known_pixels_are_true_and_most_of_those_seen() -> None:
    assert (KNOWN.mask <= WARPED.seen).all()
    assert 0.8 < KNOWN.mask.sum() / WARPED.seen.sum() < 1
    error = np.abs(KNOWN.depth - TARGET.depth) / TARGET.depth
    left_out = WARPED.seen & ~KNOWN.mask
    assert error[KNOWN.mask].mean() < 0.01 and error[KNOWN.mask].mean() < error[left_out].mean() / 2
    errors = [np.square(image - TARGET.image / 255)[KNOWN.mask].mean() for image in (KNOWN.image, WARPED.image)]
    assert errors[0] < 0.9 * errors[1]  # the mean of both references
    assert np.isfinite(KNOWN.depth).all() and KNOWN.image.min() >= 0 and KNOWN.image.max() <= 1


def test_a_reference_that_sees_through_a_surface_is_believed() -> None:
    """A wall in front of the camera, which another reference shows 1 m farther away."""
    camera, image = Camera.looking((0, 0, 0), (0, 0, 1)), np.full((16, 16, 3), 0.5)
    wall, farther = (ReferenceView.of_depth(image, np.full((16, 16), depth), camera) for depth in (2.0, 3.0))
    warped = warp_mesh([wall], camera, (16, 16))
    assert reliable([wall], warped)[0][2:-2, 2:-2].all()
    assert not reliable([wall, farther], warped)[0].any()
    assert not reliable([farther], warped)[0].any()  # it confirms nothing
    nearer = ReferenceView.of_depth(image, np.full((16, 16), 1.0), camera)
    assert reliable([wall, nearer], warped)[0][2:-2, 2:-2].all()  # hidden there


def test_grazing_surfaces_are_not_known() -> None:
    camera, image = Camera.looking((0, 1, 0), (0, 1, 5)), np.full((32, 32, 3), 0.5)
    depth = np.full((32, 32), 3.0)
    warped = warp_mesh([ReferenceView.of_depth(image, depth, camera)], camera, (32, 32))
    for slope, kept in ((0.5, True), (0.05, False)):
        tilted = replace(warped, normals=np.where(warped.seen[..., None], (0, np.sqrt(1 - slope**2), -slope), 0))
        found = reliable([ReferenceView.of_depth(image, depth, camera)], tilted)[0]
        assert found[16, 16] == kept


def test_filling_is_smooth_and_keeps_what_is_known() -> None:
    plane = np.linspace(0, 1, 24)[None, :, None] * np.ones((24, 24, 2))
    mask = np.ones((24, 24), bool)
    mask[6:18, 6:18] = False
    holes = np.where(mask[..., None], plane, 7)
    np.testing.assert_allclose(filled(holes, mask), plane, atol=1e-9)
    decayed = filled(np.where(mask[..., None], 1.0, 7.0), mask, reach=2.0)
    assert decayed[12, 12, 0] < 0.2 < decayed[6, 6, 0] < 1
    for trivial in (np.ones_like(mask), np.zeros_like(mask)):
        assert np.array_equal(filled(holes, trivial), holes)


def test_results_keep_known_colours_and_depth_without_a_seam() -> None:
    drawn, far = np.full((*SIZE, 3), 0.5), np.full(SIZE, 3.0)
    image, depth = KNOWN.kept(drawn, far)
    shifted = KNOWN.kept(KNOWN.image, 1 / (1 / KNOWN.depth + 0.2))[1]
    np.testing.assert_allclose(shifted, KNOWN.depth)  # a shift of inverse depth is undone everywhere
    np.testing.assert_allclose(image[KNOWN.mask], KNOWN.image[KNOWN.mask])
    np.testing.assert_allclose(depth[KNOWN.mask], KNOWN.depth[KNOWN.mask])
    assert (depth > 0).all() and image.min() >= 0 and image.max() <= 1
    nothing = replace(KNOWN, mask=np.zeros(SIZE, bool))
    assert np.array_equal(nothing.kept(drawn, far)[0], drawn)
    everything = replace(KNOWN, mask=np.ones(SIZE, bool))
    np.testing.assert_allclose(everything.kept(drawn, far)[1], KNOWN.depth)


def test_a_latent_is_kept_where_all_its_pixels_are_known() -> None:
    mask = np.ones((16, 16), bool)
    mask[0, 0] = False
    cells = replace(KNOWN, mask=mask).cells(2, 2)
    assert cells.tolist() == [[[[0.0, 1.0], [1.0, 1.0]]]]


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
def test_known_latents_have_the_noise_of_the_next_step(kind: Any) -> None:
    scheduler = kind()
    scheduler.set_timesteps(4)
    noise, clean = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    known = KnownLatents([clean], torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]]))
    other = torch.zeros_like(noise)
    last = known.blended(0, other, noise, scheduler, 3)
    assert torch.equal(last[..., 1, :], clean[..., 1, :]) and bool((last[..., 0, 1] == 0).all())
    noisy = known.blended(0, other, noise, scheduler, 0)
    expected = scheduler.add_noise(clean, noise, scheduler.timesteps[1:2])
    assert torch.equal(noisy[..., 1, :], expected[..., 1, :])


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe: Any = tiny_pipe(AlignedViewsPipeline)
    pipe.attach(views=AlignedViews.for_denoiser(pipe.unet, rank=2))
    return pipe


def test_the_pipeline_keeps_known_pixels_unless_it_is_told_not_to(pipe: Any) -> None:
    def view(**options: bool) -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe(REFERENCES, TARGET.camera, num_inference_steps=2, generator=generator, output_type="np", **options)

    free = view(blend_latents=False, blend_pixels=False)
    latents, pixels = view(blend_pixels=False), view(blend_latents=False)
    both = view()
    for kept in (pixels, both):
        np.testing.assert_allclose(kept.images[0][KNOWN.mask], KNOWN.image[KNOWN.mask], atol=1e-6)
        np.testing.assert_allclose(kept.depth[KNOWN.mask], KNOWN.depth[KNOWN.mask])
    assert not np.array_equal(latents.images, free.images) and not np.array_equal(latents.depth, free.depth)
    assert not np.allclose(both.images[0][~KNOWN.mask], pixels.images[0][~KNOWN.mask])
