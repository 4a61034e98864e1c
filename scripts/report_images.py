"""Images of the HTML report, each with what its design consists of, and a link that saves the design."""

import base64
import html
import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weftwork.datasets.readers.inline_images import PREFIX
from weftwork.pipelines.designs.files import moved_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
"""A JSON object."""
IMAGE_STYLE: Final = """
img { max-width: 100%; }
.images { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.strip { flex-wrap: nowrap; overflow-x: auto; padding-bottom: .5rem; }
figure { margin: 0; flex: none; max-width: 100%; width: 16rem; font-size: .85em; }
figure > a > img, figure > img { width: 100%; }
.images > img { width: 24rem; }
.parts { display: grid; grid-template-columns: 3.5rem 1fr; gap: .35rem .6rem; align-items: center; }
.parts img { background: white; border: 1px solid var(--line); }
figcaption, figure p { overflow-wrap: anywhere; margin: .35rem 0; }
"""
SHARED: Final = ("weight", "region", "start", "end", "layers", "cfg", "ink")
"""Keys of conditions that are shown behind what they are of, in short."""


def image(path: Path) -> str:
    """Returns an image file as an element that contains it."""
    return _element(base64.b64encode(path.read_bytes()).decode(), path.stem)


def drawn(plots: "Mapping[str, Figure]") -> str:
    """Returns plots as an element, with their titles as alternative texts."""
    elements = []
    for name, plot in plots.items():
        plot.savefig(file := BytesIO(), dpi=150)
        elements.append(_element(base64.b64encode(file.getvalue()).decode(), name))
    return f'<div class="images">{"".join(elements)}</div>'


def figure(
    path: Path, design: Record | None, folder: Path, truth: Path | None = None, caption: str | None = None
) -> str:
    """Returns an image with the parts of its design and the true image below it, if there are any.

    Args:
        folder: that of the HTML, beside which the saved design is opened.
    """
    shown = image(path)
    if design is not None:
        design = moved_paths(design, path.parent, folder)
        text = base64.b64encode(json.dumps(design).encode()).decode()
        name = html.escape(f"{path.stem}.json")
        link = f'<a download="{name}" href="data:application/json;base64,{text}" title="save the design">'
        shown = f"{link}{shown}</a>"
    parts = [] if design is None else list(_parts(design))
    if truth is not None:
        parts.append((image(truth), "the true image"))
    cells = "".join(f"<div>{picture}</div><div>{words}</div>" for picture, words in parts)
    head = "" if caption is None else f"<figcaption>{html.escape(caption)}</figcaption>"
    prompt = "" if design is None else f"<p>{html.escape(str(design.get('prompt', '')))}</p>"
    return f'<figure>{head}{shown}{prompt}<div class="parts">{cells}</div></figure>'


def _parts(design: Record) -> Iterator[tuple[str, str]]:
    """Yields each condition, ControlNet and LoRA of a design as an element of its image, if any, and its words."""
    conditions: Record = design.get("conditions") or {}
    for one in chain(*conditions.values(), design.get("controlnets") or (), design.get("loras") or ()):
        images = [value for key, value in one.items() if key not in SHARED and str(value).startswith(PREFIX)]
        words = [_words(value) for key, value in one.items() if key not in SHARED and value not in images]
        words += [f"{key} {one[key]}" for key in ("weight", "start", "end") if one.get(key) is not None]
        picture = "".join(_element(value.removeprefix(PREFIX), "") for value in images)
        yield picture, html.escape(", ".join(words))


def _words(value: object) -> str:
    """Returns a text or shares by name; a single share is named only."""
    if isinstance(value, Mapping):
        return " + ".join(f"{share:.2g} {name}" if len(value) > 1 else str(name) for name, share in value.items())
    return str(value)


def _element(content: str, name: str) -> str:
    return f'<img loading="lazy" alt="{html.escape(name)}" src="{PREFIX}{content}">'
