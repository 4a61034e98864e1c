"""Checks of arguments, shared by the synthetic datasets."""

from weftwork.datasets.readers.errors import UserError


def check_draw(index: int, seed: int) -> None:
    """Raise unless both name a sample of a split."""
    if index < 0 or seed < 0:
        raise UserError(f"index, seed: got {index} and {seed}, expected both at least 0; pass non-negative integers")


def check_side(size: int) -> None:
    """Raise unless the generators draw at this size."""
    if size not in (64, 128, 256):
        raise UserError(f"size: got {size}, expected 64, 128 or 256; resize the image for other sizes")
