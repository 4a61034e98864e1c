"""The measurement of drawings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.evaluation.core.measurement import Measurement, Weights


def _drawings(kind: str, *rows: str, shipped: str = "") -> Weights:
    return Weights(shipped, f"folder of the {kind}", rows)


ORACLE: Final = _drawings("oracle", shipped="designer-oracle")
SPLITS: Final = ("cells", "subjects", "train")
PLACES: Final[Mapping[str, tuple[Path | None, str]]] = {
    "drawings": (TARBALLS, "npm tarballs, or SVG files"),
    "cache_dir": (Path(".cache/pictures"), "rendered drawings"),
}

MEASUREMENT: Final = Measurement(
    "Measurement of pairs, styles and references on drawings: --split cells shows subjects that other designers showed "
    "in training, --split subjects those of no designer, --split train those of training, to choose settings on. Needs "
    'the drawings (docs/drawings.md) and networks of others: pip install ".[drawings,instruments]".',
    "weftwork.evaluation.methods.drawings:DrawingsEvaluation",
    {
        "oracle": ORACLE,
        "paired": _drawings(
            "paired", "pairs", "pairs_unnamed", "pairs_wild", "texts_swapped", "sketches_swapped", shipped="paired"
        ),
        "global_sketch": _drawings("global-sketch", "global_sketch", "global_sketch_unnamed"),
        "style": _drawings("style", "style", "pairs_style", shipped="style"),
        "reference": _drawings("reference", "reference"),
        "image_encoder": _drawings("encoder", "reference"),
        "lora": _drawings("lora", "lora", shipped="drawings-lora"),
    },
    curve=("designer_accuracy", "subject_top5", "stlpips"),
    curve_over="weight of the style",
    splits=SPLITS,
    places=PLACES,
)
