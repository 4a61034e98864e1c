"""Splits of drawings by a hash of the base code point: deterministic, and unchanged when sets or emoji are added."""

from hashlib import sha256
from typing import Final, Literal

from weftwork.datasets.drawings.code_points import base_of

Split = Literal["train", "cells", "subjects"]
SPLITS: Final[tuple[Split, ...]] = ("train", "cells", "subjects")
VALIDATION_SEED: Final = 1000
"""Seed of the scenes that validation shows, other ones than those of evaluation."""
ONE_OF: Final = 10
"""One of so many subjects, and of so many cells of the other subjects, is held out."""


def split_of(code: str, designer: str) -> Split:
    """The split of a drawing: `subjects` are held out whole, `cells` are seen by other designers only.

    Args:
        code: code points of the subject; its skin tones and genders are in the same split.
        designer: designer of the set; sets that redraw the same shapes, such as Fluent's, share one.
    """
    base = base_of(code)
    if _held_out(f"subject:{base}"):
        return "subjects"
    return "cells" if _held_out(f"cell:{base}:{designer}") else "train"


def _held_out(key: str) -> bool:
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") % ONE_OF == 0
