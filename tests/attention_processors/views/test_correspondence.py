"""Correspondence features: the authors' layout, nothing at birth, and gone when their block is left."""

import math

import pytest
import torch
from tiny import tiny_unet

from weftwork.attention_processors.views.correspondence import (
    CorrespondenceEncoder,
    added_to_latents,
    correspondences,
    fourier_points,
)

X, CONTEXT = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 32)


def test_points_are_embedded_in_the_published_order() -> None:
    points = (0.5, -1.0, 0.25)
    waves = [f(k * p) for k in (1, 2) for f in (math.sin, math.cos) for p in points]
    embedded = fourier_points(torch.tensor(points).view(1, 3, 1, 1))
    torch.testing.assert_close(embedded.flatten(), torch.tensor([*points, *waves]))


def test_channels_say_where_nothing_is_seen() -> None:
    geometry = torch.tensor([[[1.0, 1]] * 6 + [[7, 7]] + [[1, 0]]])[..., None, :]
    channels = correspondences(geometry)
    assert channels.shape == (1, 20, 1, 2)
    assert channels[0, :, 0, 1].tolist() == [0] * 6 + [1] * 3 + [0] * 3 + [1] * 3 + [0] * 4 + [1]
    assert channels[0, 15:, 0, 0].tolist() == [1, 1, 1, 7, 0]
    assert torch.equal(correspondences(geometry, 17), channels[:, [*range(15), 18, 19]])
    assert torch.equal(correspondences(geometry, 19), channels[:, [*range(18), 19]])
    assert torch.equal(correspondences(geometry, 16), channels[:, [*range(15), 19]])
    with pytest.raises(ValueError, match="in_channels: got 4, expected 16, 17, 19 or 20"):
        CorrespondenceEncoder(4)


def test_the_encoder_has_the_authors_keys_and_is_zero_at_birth() -> None:
    encoder = CorrespondenceEncoder(20, 32)
    names = {name.removesuffix(".weight").removesuffix(".bias") for name in encoder.state_dict()}
    assert names == {"conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out"}
    assert CorrespondenceEncoder().num_parameters() == 517_344
    out = encoder(torch.randn(2, 8, 64, 64))
    assert out.shape == (2, 32, 8, 8) and bool((out == 0).all())


@torch.no_grad()
def test_warped_latents_act_as_channels_of_conv_in_would() -> None:
    """The authors' eight channels [noisy, warped] through one convolution, and the frozen one with what is added."""
    whole, frozen = torch.nn.Conv2d(8, 32, 3, padding=1), torch.nn.Conv2d(4, 32, 3, padding=1)
    frozen.weight.copy_(whole.weight[:, :4])
    frozen.bias.copy_(whole.bias)  # pyright: ignore
    encoder = CorrespondenceEncoder(20, 32, warped_channels=4)
    geometry, warped = torch.rand(2, 8, 64, 64), torch.randn(2, 4, 8, 8)
    assert bool((encoder(geometry, warped) == 0).all())
    encoder.warped_in.weight[:, :4] = whole.weight[:, 4:]
    expected = whole(torch.cat([X, warped], 1))
    torch.testing.assert_close(frozen(X) + encoder(geometry, warped), expected)
    encoder.warped_in.weight[:, 4:] = 1.0
    assert not torch.equal(encoder(geometry, warped), encoder(geometry * 0, warped))
    assert bool((encoder(geometry) == 0).all())


@torch.no_grad()
def test_features_act_within_their_block_alone() -> None:
    unet = tiny_unet()
    plain = unet(X, 500, CONTEXT).sample
    with added_to_latents(unet, torch.zeros(2, 32, 8, 8)):
        assert torch.equal(unet(X, 500, CONTEXT).sample, plain)
    features = torch.randn(1, 32, 8, 8)
    with added_to_latents(unet, features):
        one = unet(X, 500, CONTEXT).sample
    with added_to_latents(unet, features.repeat(2, 1, 1, 1)):
        assert torch.equal(unet(X, 500, CONTEXT).sample, one)
    assert (one - plain).abs().max() > 1e-3
    assert torch.equal(unet(X, 500, CONTEXT).sample, plain)


@torch.no_grad()
def test_nothing_is_left_behind_by_an_error() -> None:
    unet = tiny_unet()
    plain = unet(X, 500, CONTEXT).sample
    for shape in ((2, 32, 4, 8), (2, 16, 8, 8), (3, 32, 8, 8)):
        wrong = added_to_latents(unet, torch.ones(shape))
        with pytest.raises(ValueError, match=r"features: got .* for a conv_in that gives"), wrong:
            unet(X, 500, CONTEXT)
    assert torch.equal(unet(X, 500, CONTEXT).sample, plain)
    assert not unet.conv_in._forward_hooks
