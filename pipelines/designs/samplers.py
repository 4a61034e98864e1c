"""Samplers that a design can choose instead of its model's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import diffusers

from weftwork.datasets.readers.errors import UserError

SAMPLERS: Final = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
}
"""Classes of diffusers' schedulers by name; each calls the denoiser once per step."""


def fitting_samplers(pipe: Any) -> list[str]:
    """Returns the names of samplers for a pipeline's model; none for models of flow matching, which have their own."""
    kinds = {kind.__name__ for kind in pipe.scheduler.compatibles}
    return [name for name, kind in SAMPLERS.items() if kind in kinds]


@contextmanager
def sampler(pipe: Any, name: str | None) -> Iterator[None]:
    """Lets a pipeline use a sampler, with the noise of its own one; None leaves it.

    Raises:
        ValueError: not one of `fitting_samplers`.
    """
    own = pipe.scheduler
    if name is None:
        yield
        return
    if name not in (fitting := fitting_samplers(pipe)):
        expected = f"one of {', '.join(fitting)}" if fitting else "none with this model"
        raise UserError(f"sampler: got {name!r}, expected {expected}; change it or leave it out")
    pipe.scheduler = getattr(diffusers, SAMPLERS[name]).from_config(own.config)
    try:
        yield
    finally:
        pipe.scheduler = own
