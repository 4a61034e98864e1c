"""Words that the vocabulary of a small model does not have."""

from typing import Any

import pytest
from tiny import tiny_tokenizer
from transformers import AutoTokenizer, CLIPTokenizer

from weftwork.attention_processors.encoders import vocabulary
from weftwork.attention_processors.encoders.vocabulary import (
    MAX_TOKENS,
    known_words,
    unknown_words,
    warn_of_unknown_words,
)
from weftwork.pretrained import available, shipped


def small_tokenizer(extra: int = 0) -> CLIPTokenizer:
    """Letters, and the word "red"; with `extra` more tokens."""
    vocabulary = [*tiny_tokenizer().get_vocab(), "re", "red</w>", *(f"x{i}</w>" for i in range(extra))]
    merges: Any = [("r", "e"), ("re", "d</w>")]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges, model_max_length=77)


def test_words_in_pieces_are_unknown() -> None:
    tokenizer = small_tokenizer()
    assert unknown_words(tokenizer, "Red, redder RED dogs 3 <cat>") == ["redder", "dogs", "cat"]
    tokenizer.add_tokens(["<cat>"])
    assert unknown_words(tokenizer, "Red, redder RED dogs 3 <cat>") == ["redder", "dogs"]


def test_known_words_are_those_of_one_token() -> None:
    assert "red" in known_words(small_tokenizer()) and "re" not in known_words(small_tokenizer())
    assert known_words(small_tokenizer(MAX_TOKENS)) == known_words(tiny_tokenizer()) == known_words(None) == []


def test_large_vocabularies_and_those_without_words_are_no_evidence() -> None:
    assert unknown_words(small_tokenizer(MAX_TOKENS), "dogs") == []
    assert unknown_words(tiny_tokenizer(), "dogs") == []


def test_a_word_is_warned_of_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_WARNED", set())
    for text in ("red dogs", "dogs and red"):
        warn_of_unknown_words(small_tokenizer(), text, "prompt")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("prompt: got 'dogs', unknown to this model: no caption of its training had them;")
    assert "'and'" in second and "dogs" not in second


@pytest.mark.skipif("tiny-audio" not in available(), reason="the shipped models are not installed")
@pytest.mark.parametrize(
    ("model", "known", "unknown"),
    [
        ("tiny-drawings", "a dark turquoise cat, flat fluent style, on a white background", "lamborghini"),
        ("tiny-diffusion", "a person wearing an outfit, a red striped jacket, plain brown boots", "corgi"),
        ("tiny-audio", "a person walks on gravel", "strolls"),
    ],
)
def test_the_shipped_models_know_their_captions(model: str, known: str, unknown: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shipped(model) / "tokenizer")
    assert unknown_words(tokenizer, f"{known} {unknown}") == [unknown]
