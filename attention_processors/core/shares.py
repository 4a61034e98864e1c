"""Shares by name, of which mixtures are made."""

import math
from collections.abc import Mapping, Sequence

from weftwork.attention_processors.core.strength import number
from weftwork.datasets.readers.errors import UserError, nearest


def checked_shares(what: str, given: str | Mapping[str, float]) -> dict[str, float]:
    """Returns shares by name, which sum to 1, from a name or from shares of any sum.

    Args:
        what: plural of the things that have shares, for errors.

    Raises:
        ValueError: no name, shares that are negative, not finite or sum to 0.
    """
    shares = {given: 1.0} if isinstance(given, str) else dict(given)
    if not shares or not all(isinstance(name, str) and name for name in shares):
        raise UserError(f"{what}: got {given!r}, expected a name or shares by name")
    for name, share in shares.items():
        value = number(share)
        if value is None or not (math.isfinite(value) and value >= 0):
            raise UserError(f"{what}: got a share of {share!r} for {name!r}, expected a finite number of at least 0")
        shares[name] = value
    total = sum(shares.values())
    if total == 0:
        raise UserError(f"{what}: got shares that sum to 0; give one more than 0, or weight=0 to turn it off")
    return {name: share / total for name, share in shares.items()}


def share_row(what: str, shares: Mapping[str, float], known: Sequence[str]) -> list[float]:
    """Returns the share of each known name.

    Args:
        what: the thing that is named, for errors.

    Raises:
        ValueError: an unknown name.
    """
    for name in shares:
        if name not in known:
            expected = f"expected one of {', '.join(known) or 'none'}; {nearest(name, known, 'use one of these')}"
            raise UserError(f"{what}: got {name!r}, {expected}")
    return [float(shares.get(name, 0.0)) for name in known]
