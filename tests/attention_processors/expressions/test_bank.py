"""The emotion module and its masked branch: the authors' numbers, the three banks, and what learns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file
from tiny import attend
from torch import Tensor

from weftwork.attention_processors.core.branch import DecoupledBranch, OwnAttention
from weftwork.attention_processors.expressions.bank import ExpressionTokens
from weftwork.scripts.converters.dice import NAMES

REFERENCE = Path(__file__).parents[2] / "data" / "dice_reference.safetensors"
SIZES: dict[str, int] = {
    "prior_dim": 6, "hidden_dim": 24, "token_dim": 32, "num_tokens": 4, "num_codes": 5, "num_heads": 4,
}  # fmt: skip


def own(given: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}."): one for name, one in given.items() if name.startswith(f"{group}.")}


def authors(bank: str, given: Mapping[str, Tensor]) -> ExpressionTokens:
    made = ExpressionTokens(**SIZES, bank=bank)
    state = own(given, "emo_model")
    for theirs, ours in NAMES.items():
        state = {name.replace(theirs, ours): one for name, one in state.items()}
    made.load_state_dict(state)
    return made


@torch.no_grad()
@pytest.mark.parametrize("bank", ["nearest", "all"])
def test_equals_the_authors_module(bank: str) -> None:
    given = load_file(REFERENCE)
    module, prior = authors(bank, given), given["mu"].flatten(0, 3)
    tokens, loss = module(prior)
    assert (tokens - given[bank][0]).abs().max() <= 1e-5
    assert (module(torch.zeros_like(prior))[0] - given[f"null_{bank}"][0]).abs().max() <= 1e-5
    assert abs(float(loss - (given["vq_loss"] if bank == "nearest" else 0))) <= 1e-5
    chosen = module.nearest(module.to_code(prior[:, None])[:, 0])
    assert torch.equal(chosen, given["indices"]) and len(chosen.unique()) > 1


@torch.no_grad()
def test_two_masked_branches_equal_the_authors_processor() -> None:
    given = load_file(REFERENCE)
    layer = Attention(query_dim=32, cross_attention_dim=32, heads=4, dim_head=8)
    layer.load_state_dict(own(given, "layer"))
    projections = own(given, "processor")
    x, context = given["x"][:1], given["context"][:1]
    query, key, value = (one.unflatten(-1, (4, 8)) for one in (layer.to_q(x), layer.to_k(context), layer.to_v(context)))
    stock = attend(query, key, value)
    for masks, wanted in ((given["masks"], given["masked"]), (torch.ones(2, 1, 8, 8), given["plain"][:1])):
        out = stock
        for branch, (tokens, weight) in enumerate(((given["audio"], 0.7), (given["all"][0], 1.3))):
            keys, values = (F.linear(tokens[:1], projections[f"to_{one}_ip.{branch}.weight"]) for one in "kv")
            gain = weight * masks[branch].flatten(1)[:, :, None, None]
            out = DecoupledBranch(keys, values, gain).mix(query, out, attend, OwnAttention(key, value, None, stock))
        assert (layer.to_out[0](out.flatten(2)) - wanted).abs().max() <= 1e-5


def test_gradients_by_bank() -> None:
    unused = {"nearest": set(), "none": set(), "all": {"to_code.weight", "to_code.bias"}}
    for bank, without in unused.items():
        torch.manual_seed(0)
        module = ExpressionTokens(**SIZES, bank=bank)
        tokens, loss = module(torch.randn(3, 6))
        (tokens.square().sum() + loss).backward()
        assert {name for name, one in module.named_parameters() if one.grad is None} == without
        assert (loss > 0) == (bank == "nearest")


def test_codes_move_to_priors() -> None:
    torch.manual_seed(0)
    module, prior = ExpressionTokens(**SIZES, bank="nearest"), torch.randn(4, 6)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    losses: list[float] = []
    for _ in range(200):
        loss: Any = module(prior)[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5


def test_unknown_banks_are_refused() -> None:
    with pytest.raises(ValueError, match="bank: got 'some', expected one of nearest, all, none"):
        ExpressionTokens(**SIZES, bank="some")
