"""The autoencoder of the shipped backbones."""

import torch

from weftwork.training.recipes.autoencoder import build_autoencoder, widened


def test_a_widened_autoencoder_reconstructs_the_same_images_and_learns_from_its_new_channels():
    torch.manual_seed(0)
    narrow = build_autoencoder().eval()
    wide = widened(narrow, 16).eval()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before, after = narrow.encode(images).latent_dist, wide.encode(images).latent_dist
        assert torch.equal(before.mean, after.mean[:, :12])
        assert torch.equal(before.logvar, after.logvar[:, :12])
        assert torch.equal(narrow.decode(before.mean).sample, wide.decode(after.mean).sample)
        assert after.mean[:, 12:].std() > 0
    wide.decode(wide.encode(images).latent_dist.mode()).sample.pow(2).mean().backward()
    assert wide.decoder.conv_in.weight.grad[:, 12:].abs().sum() > 0
