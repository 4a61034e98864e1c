"""The page of plots of an inspection: heat maps of layers and heads, what is added over the steps, and words read."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float

from weftwork.attention_processors.core.ablation import WHOLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Record = Mapping[str, Any]
"""An inspection as it is in its JSON file."""
COLUMNS: Final = 3
CELLS: Final = 80
"""Heat maps of more cells have no numbers in them."""
TOKENS: Final = 32
"""Number of keys that are shown where their words are not known."""


@dataclass(frozen=True)
class Section:
    """Heat maps of one quantity, by title, with one scale."""

    title: str
    maps: Mapping[str, Float[np.ndarray, "layer head"]]
    colors: str
    most: float = 1.0
    last: str | None = None
    """Label of the last column, where it is no head."""

    @property
    def columns(self) -> int:
        return COLUMNS + (len(self.maps) == COLUMNS + 1)

    @property
    def rows(self) -> int:
        return -(-len(self.maps) // self.columns)


def plot_inspection(record: Record, path: Path) -> None:
    """Writes the page of an inspection's record as PNG."""
    from matplotlib.figure import Figure

    names = labels(list(record["layers"]))
    sections = [_reading(record), *_changes(record), _own(record)]
    heights = [0.6 + section.rows * (0.8 + 0.28 * len(names)) for section in sections]
    figure = Figure(figsize=(15, sum(heights) + 5), layout="constrained")
    steps = f"{len(record['steps'])} steps"
    figure.suptitle(
        f"Attention by layer and head: \u201c{record['prompt']}\u201d, seed {record['seed']}, {steps}", fontsize=15
    )
    parts: Any = figure.subfigures(len(sections) + 1, height_ratios=[*heights, 4.4])
    for part, section in zip(parts, sections, strict=False):
        _draw(part, section, names)
    left, right = parts[-1].subplots(1, 2)
    _over_steps(left, record)
    _tokens(right, record)
    figure.savefig(path, dpi=100, format="png")


def labels(layers: Sequence[str]) -> list[str]:
    """Returns short names of layers: without the ends that all have, and without words that tell nothing."""
    parts = [name.split(".") for name in layers]
    while all(len(one) > 1 and one[-1] == parts[0][-1] for one in parts):
        parts = [one[:-1] for one in parts]
    names = [re.sub(r"(_blocks?|\.attentions|\.transformer_blocks)\b", "", ".".join(one)) for one in parts]
    return [name.replace(".", " ") for name in names] if len(set(names)) == len(names) else list(layers)


def _reading(record: Record) -> Section:
    layers = record["layers"].values()
    sources = dict.fromkeys(name for some in layers for name, one in some.items() if name != "tokens" and "read" in one)
    maps = {_title(record, name): _grid([_mean(some.get(name), "read") for some in layers]) for name in sources}
    title = (
        "What each head reads: share of each condition in what the head puts out, mean over steps.\n"
        "At one layer and head, all maps add up to 1"
    )
    return Section(title, maps, "Blues")


def _changes(record: Record) -> list[Section]:
    sections = []
    for step, ablation in record["ablation"].items():
        maps = {}
        for name in (WHOLE, *ablation["without"]):
            rows = [some.get(name) for some in ablation["layers"].values()]
            all_of_it = "" if name == WHOLE else f" ({ablation['without'][name]:.2f} without it in all layers)"
            title = "without the head, or the layer" if name == WHOLE else f"without {name} there{all_of_it}"
            maps[title] = _grid(
                [None if one is None else one["heads"] for one in rows], [one and one["layer"] for one in rows]
            )
        title = (
            f"What changes without it: change of the prediction at step {step}, as a share of the prediction.\n"
            "Where numbers are small, the layer or head hardly matters"
        )
        most = max(float(np.nanmax(grid)) for grid in maps.values())
        sections.append(Section(title, maps, "Purples", most or 1.0, "layer"))
    return sections


def _own(record: Record) -> Section:
    titles = {
        "most": "attention to the key that is read most",
        "entropy": "evenness: 1 = all keys alike, 0 = one key",
        "share": "attention to the text, the rest is the image's",
    }
    maps = {name: _grid([_mean(some["text"], name) for some in record["layers"].values()]) for name in titles}
    if np.nanmin(maps["share"]) > 0.999:  # cross-attention
        del maps["share"]
    title = (
        "How the model's own attention reads, mean over steps.\n"
        "A key with most of the attention of a head is a sink: the head then adds the same everywhere"
    )
    return Section(title, {titles[name]: grid for name, grid in maps.items()}, "Greens")


def _title(record: Record, name: str) -> str:
    described = record["conditions"].get(name)
    return name if described is None else f"{name}: {textwrap.shorten(described, 42, placeholder='…')}"


def _mean(source: Mapping[str, Any] | None, measure: str) -> list[float] | None:
    return None if source is None else np.mean(source[measure], 0).tolist()


def _grid(
    rows: Sequence[Sequence[float] | None], last: Sequence[float | None] | None = None
) -> Float[np.ndarray, "layer head"]:
    """Returns rows of different lengths, with NaN where there is nothing, and a last column behind the longest."""
    width = max((len(row) for row in rows if row is not None), default=0)
    grid = np.full((len(rows), width + (last is not None)), np.nan)
    for index, row in enumerate(rows):
        grid[index, : len(row or ())] = row or ()
    if last is not None:
        grid[:, -1] = np.array(last, float)
    return grid


def _draw(figure: "SubFigure", section: Section, names: Sequence[str]) -> None:
    figure.suptitle(section.title, fontsize=12)
    grid = figure.subplots(section.rows, section.columns, squeeze=False, sharey=True)
    drawn = None
    for axes, (title, values) in zip(grid.flat, section.maps.items(), strict=False):
        drawn = axes.imshow(
            values, cmap=section.colors, vmin=0, vmax=section.most, aspect="auto", interpolation="nearest"
        )
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        heads = values.shape[1] - (section.last is not None)
        shown = range(0, heads, 1 + heads // 16)
        ticks = [str(head) for head in shown]
        axes.set_xticks(
            [*shown, *([heads] if section.last else [])], [*ticks, *([section.last] if section.last else [])]
        )
        axes.set_xlabel("head", fontsize=8)
        for (row, column), value in np.ndenumerate(values) if values.size <= CELLS else ():
            if np.isfinite(value):
                color = "white" if value > 0.6 * section.most else "black"
                axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=7, color=color)
    for axes in grid.flat[len(section.maps) :]:
        axes.set_axis_off()
    if drawn is not None:
        figure.colorbar(drawn, ax=grid, fraction=0.03, pad=0.01)


def _over_steps(axes: "Axes", record: Record) -> None:
    from matplotlib.ticker import MaxNLocator

    layers = record["layers"].values()
    for name in dict.fromkeys(name for some in layers for name, one in some.items() if name not in ("tokens", "text")):
        values = [np.mean(some[name]["influence"], 1) for some in layers if "read" in some.get(name, ())]
        if values:
            axes.plot(record["steps"], np.mean(values, 0), marker=".", label=_title(record, name))
    axes.set(xlabel="step", ylabel="size relative to the text's", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(
        "What each condition adds over the steps, mean over layers and heads (1 = as much as the text)", fontsize=10
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def _tokens(axes: "Axes", record: Record) -> None:
    read = np.mean([some["tokens"] for some in record["layers"].values()], 0)
    names = list(record["tokens"][: len(read)]) or [str(index) for index in range(min(len(read), TOKENS))]
    rest = len(read) - len(names)
    values = [*read[: len(names)], *([read[len(names) :].sum()] if rest else [])]
    names += [f"{'padding' if record['tokens'] else 'others'} ({rest} keys)"] if rest else []
    axes.bar(range(len(names)), values)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set(ylabel="share of attention")
    axes.set_title("Words of the prompt that are read, mean over layers, heads and steps", fontsize=10)
    axes.grid(alpha=0.3, axis="y")
