"""Range of diffusers' versions that processors and pipelines are tested with."""

import logging
from functools import cache
from typing import Final

import diffusers

logger = logging.getLogger(__name__)

OLDEST: Final = (0, 41)
NEWEST: Final = (0, 42)
"""Ends of the range, both tested by `.ci/run`, as major and minor version; `pyproject.toml` requires the oldest."""


@cache
def warn_of_untested_diffusers() -> None:
    """Logs a warning, once, if the installed version is out of the range."""
    here = tuple(map(int, diffusers.__version__.split(".")[:2]))
    if not OLDEST <= here <= NEWEST:
        first, last = (".".join(map(str, end)) for end in (OLDEST, NEWEST))
        logger.warning(
            "diffusers %s is untested, expected %s to %s; conditions raise errors where its code has changed",
            diffusers.__version__,
            first,
            last,
        )
