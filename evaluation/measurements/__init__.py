"""Measurements by method: the options of `weftwork evaluate`, importable without heavy libraries."""

from collections.abc import Mapping

from weftwork.attention_processors.core.method import Method, methods


def measured() -> Mapping[str, Method]:
    """Returns all methods with an evaluation by name, evaluations of several methods last."""
    found = {name: method for name, method in methods().items() if method.evaluation is not None}
    several = {
        "composition": "conditions of several methods on one image",
        "gates": "fusions of a style with the text, trained alike",
        "drawings": "pairs, styles and references on drawings by several designers",
    }
    return found | {
        name: Method(name, summary, (), evaluation=f"{__name__}.{name}:MEASUREMENT")
        for name, summary in several.items()
    }
