"""Numbers of tokens of in-context references, from the arguments of a denoiser's call."""

import math

import torch

from weftwork.attention_processors.core.grids import Given


def reference_tokens(given: Given) -> tuple[int, ...]:
    """Returns the number of tokens of each reference behind the target's, in order.

    FLUX pipelines give coordinates `img_ids` (image, y, x, …), in which the target is image 0, and Qwen-Image's the
    `img_shapes` of all images. FLUX.1 Kontext knows one reference; FLUX.3's are given apart.
    """
    if given.get("img_shapes") is not None:
        shapes = given["img_shapes"]
        first = shapes[0] if isinstance(shapes[0], list) else shapes
        return tuple(math.prod(map(int, shape)) for shape in first[1:]) if isinstance(shapes[0], list) else ()
    if given.get("image_cond_ids") is not None:  # FLUX.3: references have their number in the last coordinate
        return tuple(torch.unique_consecutive(given["image_cond_ids"][:, -1], return_counts=True)[1].tolist())
    ids = given.get("img_ids")
    if ids is None:
        return ()
    images, counts = torch.unique_consecutive((ids if ids.ndim == 2 else ids[0])[:, 0], return_counts=True)
    return tuple(int(count) for image, count in zip(images, counts, strict=True) if image != 0)
