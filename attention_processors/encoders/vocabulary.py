"""Words that the captions of a small text encoder's training do not have."""

import logging
import re
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

WORD: Final = re.compile(r"[^\W\d_]+")
MAX_TOKENS: Final = 1000
"""Vocabularies up to this size, and that of drawings, are those of a dataset; others spell words of all kinds."""
TRAINED_WORDS: Final = Path(__file__).with_name("words.txt")
"""Words of captions of drawings' training split, written by `scripts.maintenance.fetch_drawings`."""
_WARNED: set[tuple[int, str]] = set()


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """Returns the words of a text that no caption of a small vocabulary's dataset had, and that it spells in pieces.

    None for large vocabularies, and for those without any words.
    """
    if not (known := set(known_words(tokenizer))):
        return []
    for token in tokenizer.get_added_vocab():  # of textual inversion
        text = text.replace(token, " ")
    words = dict.fromkeys(WORD.findall(text.lower()))
    return [word for word in words if word not in known and len(tokenizer.tokenize(word)) > 1]


def known_words(tokenizer: Any) -> list[str]:
    """Returns the words that captions of a small vocabulary's dataset had; none for large ones, which know more."""
    if tokenizer is None or (len(tokenizer) > MAX_TOKENS and len(tokenizer.tokenize("twemoji")) > 1):
        return []
    marked = (token for token in tokenizer.get_vocab() if "</w>" in token or "\u2581" in token)
    words = {re.sub(r"</w>|\u2581", "", token) for token in marked}
    if "twemoji" in words:  # rare words of its captions are several tokens, such as "dark"
        words.update(TRAINED_WORDS.read_text(encoding="utf-8").split())
    return sorted(filter(WORD.fullmatch, words)) if any(len(word) > 2 for word in words) else []


def warn_of_unknown_words(tokenizer: Any, text: str, name: str) -> None:
    """Logs a warning of unknown words, once for each word."""
    new = [word for word in unknown_words(tokenizer, text) if (len(tokenizer), word) not in _WARNED]
    _WARNED.update((len(tokenizer), word) for word in new)
    if new:
        logger.warning(
            "%s: got %s, unknown to this model: no caption of its training had them; such words have little effect or "
            "a wrong one, use others (see the model card)",
            *(name, ", ".join(map(repr, new))),
        )
