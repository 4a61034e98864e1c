"""Attention backends of diffusers, by what they do with masks."""

from typing import Any, Final

from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import Tensor

MASKING: Final = frozenset(
    {
        AttentionBackendName.NATIVE,
        AttentionBackendName._NATIVE_CUDNN,
        AttentionBackendName._NATIVE_EFFICIENT,
        AttentionBackendName._NATIVE_MATH,
        AttentionBackendName.XFORMERS,
    }
)
"""Backends that add a mask of numbers to the logits; others raise, or drop it."""


def backend_for(mask: Tensor | None, backend: Any) -> Any:
    """Returns the backend for a branch: the user's (None: that of the process), or torch's own where it takes no mask.

    Regions, several parts and padded tokens are masks of numbers, over few keys, so that the kernel matters little.
    """
    chosen = _AttentionBackendRegistry.get_active_backend()[0] if backend is None else AttentionBackendName(backend)
    return backend if mask is None or chosen in MASKING else AttentionBackendName.NATIVE
