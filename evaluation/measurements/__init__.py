"""One measurement per method: the options of `weftwork evaluate`, importable without heavy libraries."""

from collections.abc import Mapping

from weftwork.attention_processors.core.method import Method, methods

COMPOSITION = Method(
    name="composition",
    summary="conditions of several methods on one image",
    adapters=(),
    evaluation="weftwork.evaluation.measurements.composition:CompositionMeasurement",
)
"""Evaluation of several methods together."""


def measured() -> Mapping[str, Method]:
    """Returns all methods with an evaluation by name, evaluations of several methods last."""
    found = {name: method for name, method in methods().items() if method.evaluation is not None}
    return found | {COMPOSITION.name: COMPOSITION}
