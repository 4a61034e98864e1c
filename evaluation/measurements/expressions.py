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
        "expressions": Weights("", "adapters with a bank", ("names", "guided", "images", "mixed"), several=True),
        "no_bank": Weights("", "adapters without one", ("no_bank_names", "no_bank_images"), several=True),
    },
    backbone="tiny-diffusion",
    places={"people": (TARBALLS, "tarball of the people's parts")},
)
