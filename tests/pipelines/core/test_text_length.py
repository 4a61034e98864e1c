"""Prompts of transformers are padded no further than their tokenizers read."""

import pytest
from tiny import tiny_pipe
from tiny_transformers import tiny_transformer_pipe

from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.pipelines.core.text_length import text_length


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(77, 512, {}), (16, 48, {"max_sequence_length": 48}), (48, 16, {"max_sequence_length": 48}), (77, 10**30, {})],
)
def test_the_longest_tokenizer_counts(first: int, second: int, expected: dict[str, int]) -> None:
    pipe = tiny_transformer_pipe("flux")
    pipe.tokenizer.model_max_length, pipe.tokenizer_2.model_max_length = first, second
    assert text_length(pipe) == expected


def test_u_nets_take_none() -> None:
    assert text_length(tiny_pipe(ConditionedStableDiffusionPipeline)) == {}
