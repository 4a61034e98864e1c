"""Construction of modules whose annotations are narrower than what they accept."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def built(kind: Callable[..., T], **config: object) -> T:
    """Calls a class of diffusers or transformers, without checks of the types of its options."""
    return kind(**config)
