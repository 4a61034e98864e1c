"""Files of an inspection: `inspection.json` with all measures, and `inspection.png`, the page of plots."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weftwork.attention_processors.core.ablation import Change
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.inspection import Inspector
from weftwork.attention_processors.encoders.words import PromptWords
from weftwork.datasets.readers.atomic import atomic_path
from weftwork.pipelines.core.call import denoisers
from weftwork.pipelines.designs.design import Design
from weftwork.pipelines.designs.inspection_plots import plot_inspection

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def inspection_record(inspector: Inspector, design: Design, pipe: "DiffusionPipeline") -> dict[str, Any]:
    """Returns an inspection as it stands in its JSON file: by layer, source and measure a list of heads per step."""
    words = PromptWords.of(pipe, family_of(denoisers(pipe)[0]).text)
    steps = len(inspector.recorded_steps)
    tokens = {layer: (total / steps).tolist() for layer, total in inspector.tokens.items()}
    return {
        "kind": "inspection",
        "prompt": design.prompt,
        "seed": design.seed,
        "conditions": _described(design),
        "steps": inspector.recorded_steps,
        "tokens": words.pieces(design.prompt or ""),
        "layers": {
            layer: {
                "tokens": _rounded(tokens[layer]),
                **{name: {one: _rounded(x.tolist()) for one, x in some.items()} for name, some in sources.items()},
            }
            for layer, sources in inspector.measured().items()
        },
        "ablation": {
            str(step): {
                "without": _rounded(inspector.totals[step]),
                "layers": {layer: {name: _change(one) for name, one in some.items()} for layer, some in layers.items()},
            }
            for step, layers in inspector.changes.items()
        },
    }


def write_inspection(record: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes both files, and returns their paths."""
    paths = [folder / "inspection.json", folder / "inspection.png"]
    with atomic_path(paths[0]) as partial:
        partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    with atomic_path(paths[1]) as partial:
        plot_inspection(record, partial)
    return paths


def _described(design: Design) -> dict[str, str]:
    """Returns what the design file says of each condition, by the name of its measures."""
    source: Any = design.source.get("conditions", {})
    described = {}
    for name, conditions in design.conditions.items():
        for index, one in enumerate(conditions):
            values = [v for key, v in source[name][index].items() if key not in one.common_fields()]
            texts = [" + ".join(v) if isinstance(v, Mapping) else str(v) for v in values]
            described[f"{name} {index + 1}"] = ", ".join(texts)
    return described


def _change(change: Change) -> dict[str, Any]:
    return {"layer": _rounded(change.layer), "heads": _rounded(list(change.heads))}


def _rounded(value: Any) -> Any:
    """Returns numbers with five significant digits."""
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else float(f"{value:.5g}")
