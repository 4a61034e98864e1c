"""Rows of calls of the tiny denoisers of all families."""

import pytest
import torch

from weftwork.attention_processors.core.call_rows import first_alike, rows_of
from weftwork.attention_processors.core.families import sample_of
from weftwork.scripts.benchmarks.backbones.tiny import FAMILIES, parts, run


@pytest.mark.parametrize("backbone", FAMILIES, ids=lambda one: one.__name__)
@torch.no_grad()
def test_rows_of_a_call_have_its_results(backbone: object) -> None:
    model, inputs = parts(backbone)  # pyright: ignore[reportArgumentType]
    swapped = rows_of(inputs, [1, 0, 1])
    assert len(sample_of(swapped)) == 3 and first_alike(inputs) == [0, 1] and first_alike(swapped) == [0, 1, 0]
    alone, together = run(model, rows_of(inputs, [1])), run(model, swapped)
    torch.testing.assert_close(together[: len(alone)], alone, atol=1e-4, rtol=0)
    if not isinstance(sample_of(inputs), list):  # outputs of lists are those of the first row
        torch.testing.assert_close(alone, run(model, inputs)[1:], atol=1e-4, rtol=0)
    assert rows_of(inputs, [0, 1]) == inputs


def test_arguments_within_arguments() -> None:
    tokens = torch.arange(2)[:, None].expand(2, 3)
    given = {
        "sample": torch.zeros(2, 4),
        "img_ids": tokens,
        "added_cond_kwargs": {"time_ids": tokens},
        "down_block_additional_residuals": (tokens, tokens + 1),
        "timestep": torch.tensor(5),
        "img_shapes": [[(1, 2, 3)], [(1, 3, 2)]],
    }
    second = rows_of(given, [1])
    assert second["img_ids"] is tokens and second["timestep"] is given["timestep"]
    assert torch.equal(second["added_cond_kwargs"]["time_ids"], tokens[1:])
    assert [one.tolist() for one in second["down_block_additional_residuals"]] == [[[1] * 3], [[2] * 3]]
    assert second["img_shapes"] == [[(1, 3, 2)]]
