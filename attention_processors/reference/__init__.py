"""Reference images (IP-Adapter)."""

from typing import Final

from weftwork.attention_processors.core.method import Method

PROJECTIONS: Final = ("basic", "plus", "full")
"""Kinds of IP-Adapters, by the projection of image features."""
FACE_PROJECTIONS: Final = ("faceid", "faceid_plus")
"""Kinds of IP-Adapters that read the embedding of a face recogniser."""

PUBLISHED: Final = "weftwork.attention_processors.reference.published"

METHOD = Method(
    name="reference",
    summary="reference images",
    adapters=(
        "weftwork.attention_processors.reference.adapter:ReferenceAdapter",
        f"{PUBLISHED}:XLabsFluxAdapter",
        f"{PUBLISHED}:InstantXFluxAdapter",
        f"{PUBLISHED}:InstantXSD3Adapter",
    ),
    conditions=("weftwork.attention_processors.reference.conditions:Reference",),
    modalities=("image", "video"),
    trainer="weftwork.training.trainers.reference:ReferenceTrainer",
    validation={"drawings": ("weftwork.evaluation.methods.drawings:validate", "reference", "drawings", "cache_dir")},
    example="weftwork.attention_processors.reference.example:example",
    usage=(
        "from weftwork.attention_processors import Reference",
        "from weftwork.attention_processors.encoders import ImageEncoder",
        'encoder = ImageEncoder.from_pretrained("image-encoder")  # the one of the training',
        "pipe.set_encoders(image=encoder)",
        'image = pipe("a red cat", conditions={"reference": Reference("photo.png")}, num_inference_steps=20).images[0]',
    ),
)
