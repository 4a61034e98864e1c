"""Words that the vocabulary of a small text encoder does not have."""

import logging
import re
from typing import Any, Final

logger = logging.getLogger(__name__)

WORD: Final = re.compile(r"[^\W\d_]+")
MAX_TOKENS: Final = 1000
"""Vocabularies up to this size are those of a dataset, with its words as tokens; larger ones spell rare words too."""
_WARNED: set[tuple[int, str]] = set()


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Returns the words of a text that a small vocabulary spells in pieces, since no caption of its dataset had them.

    None for large vocabularies, and for those without any words.
    """
    if len(tokenizer) > MAX_TOKENS or not _has_words(tokenizer):
        return []
    for token in tokenizer.get_added_vocab():  # of textual inversion
        text = text.replace(token, " ")
    words = dict.fromkeys(WORD.findall(text.lower()))
    return [word for word in words if len(tokenizer.tokenize(word)) > 1]


def known_words(tokenizer: Any, most: int = MAX_TOKENS) -> list[str]:
    """Returns the words that a small vocabulary has as one token; none for large ones, whose words are open.

    Args:
        most: tokens of the largest vocabulary that is small.
    """
    if tokenizer is None or len(tokenizer) > most or not _has_words(tokenizer):
        return []
    words = {
        re.sub(r"</w>|\u2581", "", token) for token in tokenizer.get_vocab() if "</w>" in token or "\u2581" in token
    }
    return sorted(word for word in words if WORD.fullmatch(word))


def warn_of_unknown_words(tokenizer: Any, text: str, name: str) -> None:
    """Logs a warning of unknown words, once for each word."""
    new = [word for word in unknown_words(tokenizer, text) if (len(tokenizer), word) not in _WARNED]
    _WARNED.update((len(tokenizer), word) for word in new)
    if new:
        logger.warning(
            "%s: got %s, which the vocabulary of the model (%d tokens) does not have; such words have little effect or "
            "a wrong one, use those of its training (see the model card)",
            *(name, ", ".join(map(repr, new)), len(tokenizer)),
        )


def _has_words(tokenizer: Any) -> bool:
    """Whether some token is a word of several letters, whatever marks its ends."""
    return any(len(re.sub(r"</w>|\u2581", "", token)) > 2 and ("</w>" in token or "\u2581" in token)
               for token in tokenizer.get_vocab())  # fmt: skip
