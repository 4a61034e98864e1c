"""Tokens of blank parts of sketches pass the pair-former by."""

import pytest
import torch
from torch import nn

from weftwork.attention_processors.paired.pair_former import PairFormer


@pytest.mark.parametrize("masking", ["compression", "pair"])
def test_tokens_that_are_not_drawn_come_out_normalised_alone(masking: str) -> None:
    former = PairFormer(32, num_readout_tokens=4, num_heads=4, norm_groups=8, masking=masking)
    former.norm = nn.Identity()  # its statistics are of all tokens
    former.norm.num_channels = 32
    image, text, mask = torch.randn(2, 2, 9, 32), torch.randn(2, 2, 3, 32), torch.tensor([[True, True], [True, False]])
    drawn = torch.zeros(2, 2, 9, dtype=torch.bool)
    drawn[..., :5] = True
    with torch.no_grad():
        tokens, alone = former(image, text, mask, drawn), former(image[:, :, :5], text, mask)
        assert torch.equal(former(image, text, mask, torch.ones_like(drawn)), former(image, text, mask))
    if masking == "pair":
        assert torch.equal(tokens[mask][:, 5:9], image[mask][:, 5:])
        tokens = torch.cat([tokens[:, :, :5], tokens[:, :, 9:]], 2)
    torch.testing.assert_close(tokens, alone)
    assert not tokens[~mask].any()


@pytest.mark.parametrize("masking", ["compression", "pair"])
def test_in_training_pairs_with_unlike_sketches_share_one_padded_call(masking: str) -> None:
    former = PairFormer(32, num_readout_tokens=4, num_heads=4, norm_groups=8, masking=masking)
    image, text = torch.randn(2, 3, 90, 32), torch.randn(2, 3, 3, 32)
    mask, calls = torch.tensor([[True, True, True], [True, True, False]]), []
    drawn = torch.rand(2, 3, 90) < torch.tensor([0.1, 0.5, 0.9])[:, None]
    former.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        exact = former(image, text, mask, drawn)
    apart, trained = len(calls), former(image, text, mask, drawn)
    assert (apart, len(calls) - apart) == (5, 1)
    torch.testing.assert_close(trained, exact)
    trained.square().sum().backward()
    assert all(weights.grad.isfinite().all() for weights in former.parameters())
