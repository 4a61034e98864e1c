"""The measurement of subjects."""

from typing import Final

from weftwork.evaluation.core.measurement import Measurement, Weights
from weftwork.evaluation.measurements.drawings import PLACES

MEASUREMENT: Final = Measurement(
    "Measurement of several subjects per image, shown alone and placed by words, on drawings that training left out: "
    "those that are seen, by retrieval, and how much their looks mix; --curve plots delayed conditioning. Needs the "
    'drawings (docs/drawings.md) and networks of others: pip install ".[drawings,instruments]".',
    "weftwork.evaluation.methods.subjects:SubjectEvaluation",
    {
        "subjects": Weights("", "adapter folders of subjects", ("subjects",), several=True),
        "no_localization": Weights(
            "", "adapter folders that were trained with --localization_weight 0", ("no_localization",), several=True
        ),
        "reference": Weights("", "adapter folder of references", ("reference", "reference_regions")),
        "image_encoder": Weights("", "folder of the image encoder of all of these", ("subjects", "reference")),
    },
    curve=("subjects_right", "layout_change"),
    curve_over="first share of the steps with subjects",
    splits=("subjects", "cells"),
    places=PLACES,
)
