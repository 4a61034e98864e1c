"""The number of tokens that pipelines of transformers pad prompts to."""

import inspect
import sys
from typing import Any

from diffusers import DiffusionPipeline


def text_length(pipe: DiffusionPipeline) -> dict[str, int]:
    """Returns `max_sequence_length` where a pipeline's default is longer than what its tokenizers read, else nothing.

    Small models are trained on short texts: padding to the 512 tokens of FLUX would cost more than their images.
    """
    taken = inspect.signature(pipe.__call__).parameters.get("max_sequence_length")
    parts: list[Any] = [part for name, part in pipe.components.items() if name.startswith("tokenizer") and part]
    lengths = [getattr(part, "model_max_length", sys.maxsize) for part in parts]  # processors have none
    if taken is None or not isinstance(taken.default, int) or not lengths or max(lengths) >= taken.default:
        return {}
    return {"max_sequence_length": max(lengths)}
