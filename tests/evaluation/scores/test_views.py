"""View scores: known values, upper bounds on true rooms, lower bounds on shuffled ones."""

import numpy as np
import pytest

from weftwork.datasets.synthetic.rooms import View, sample
from weftwork.evaluation.scores.views import alignment, depth_breaks, psnr, score_views, ssim

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [sample("validation", i, size=128, views=("interpolating",)).views["interpolating"] for i in range(6)]


def test_images_are_compared_as_they_are_everywhere() -> None:
    truth = RNG.uniform(0, 1, (32, 32, 3))
    assert psnr(truth, truth) > 100 and ssim(truth, truth) == pytest.approx(1, abs=1e-5)
    assert psnr(np.zeros((32, 32, 3)), np.full((32, 32, 3), 0.1)) == pytest.approx(20)
    noisy = [truth + RNG.normal(0, level, truth.shape) for level in (0.05, 0.2)]
    assert ssim(truth, truth) > ssim(noisy[0], truth) > ssim(noisy[1], truth) > 0
    flat = [np.full((16, 16, 3), value) for value in (0.2, 0.6)]
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(*flat) == pytest.approx(expected, abs=1e-4)


def test_alignment_is_high_for_rooms_and_chance_for_shuffled_ones(views: list[View]) -> None:
    images = [view.image / 255 for view in views]
    true = [alignment(image, view.depth) for image, view in zip(images, views, strict=True)]
    others = [*images[1:], images[0]]
    shuffled = [alignment(image, view.depth) for image, view in zip(others, views, strict=True)]
    assert np.mean(true) > 0.8
    assert np.mean(true) > np.mean(shuffled) + 0.15


def test_alignment_knows_perfect_and_chance() -> None:
    depth = np.full((40, 40), 4.0)
    depth[:, 20:] = 2.0
    image = np.repeat((depth / 4)[..., None], 3, 2)
    assert alignment(image, depth) > 0.97
    noise = RNG.uniform(0, 1, (40, 40, 3))
    assert abs(alignment(noise, RNG.uniform(1, 2, (40, 40))) - 0.5) < 0.1
    assert alignment(np.zeros((40, 40, 3)), depth) == pytest.approx(0.5)


def test_a_plane_has_no_edges(views: list[View]) -> None:
    """Inverse depth over a slanted plane is straight, so what is taken for an edge lies at the steps."""
    slanted = 1 / (0.2 + 0.3 * np.linspace(0, 1, 50))[None].repeat(50, 0)
    assert np.abs(depth_breaks(slanted)).max() < 1e-9


def test_depth_is_scored_apart_where_references_show_nothing() -> None:
    truth, image = np.full((32, 32), 2.0), np.full((32, 32, 3), 0.5)
    depth, seen = np.full((32, 32), 2.2), np.zeros((32, 32), bool)
    seen[:, :16] = True
    depth[:, 16:] = 3.0
    scores = score_views([image], [depth], [image], [truth], [seen])
    assert scores.depth_error_seen == pytest.approx(0.1) and scores.depth_error_unseen == pytest.approx(0.5)
    half = image + np.where(seen, 0, 0.1)[..., None]
    assert score_views([half], [depth], [image], [truth], [seen]).psnr_unseen == pytest.approx(20)
    everywhere = score_views([image], [truth], [image], [truth], [np.ones((32, 32), bool)])
    assert everywhere.depth_error_seen == 0 and np.isnan(everywhere.depth_error_unseen)
