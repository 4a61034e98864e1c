"""The measurement of expressions."""

from typing import Final

from weftwork.datasets.drawings.sets import TARBALLS
from weftwork.evaluation.core.measurement import Measurement, Weights

MEASUREMENT: Final = Measurement(
    "Measurement of expressions on people who were not in training: expression, looks that are kept, mixtures, and "
    "looks that leak from the image of another person, with and without the bank. Needs the people's parts "
    '(docs/expressions.md) and pip install ".[drawings]".',
    "weftwork.evaluation.methods.expressions:ExpressionEvaluation",
    {
        "oracle": Weights("", "folder of the classifier of people"),
        "expressions": Weights("", "adapter folder: with a bank", ("names", "guided", "images", "mixed")),
        "no_bank": Weights("", "adapter folder: without one", ("no_bank_names", "no_bank_images")),
    },
    backbone="tiny-diffusion",
    places={"people": (TARBALLS, "tarball of the people's parts")},
)
