"""Sketches of vector drawings: every shape drawn again as a white area with a black outline."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Final

_SVG: Final = "{http://www.w3.org/2000/svg}"
_SHAPES: Final = {_SVG + tag for tag in ("path", "circle", "rect", "ellipse", "polygon", "polyline", "line", "use")}
_GROUPS: Final = {_SVG + tag for tag in ("g", "svg", "a")}
_PAINT: Final = ("style", "fill", "stroke", "stroke-dasharray", "fill-opacity", "opacity", "filter")
STROKE: Final = 0.014
"""Width of outlines as a share of the drawing's."""
FAINT: Final = 0.75
"""Shapes less opaque than this are shading, and left out."""


def line_art(svg: str) -> str:
    """The sketch of an SVG drawing, as SVG: areas hide the lines behind them, strokes stay strokes.

    Shading is left out: faint and blurred shapes, and gradients that fade away.
    """
    ElementTree.register_namespace("", _SVG[1:-1])
    root = ElementTree.fromstring(svg)
    width = STROKE * float(root.get("viewBox", "0 0 16 16").split()[2])
    _Sketcher(f"{width:.4g}", _shading(root)).redraw(root, "black", "none")
    return ElementTree.tostring(root, encoding="unicode")


def _shading(root: ElementTree.Element) -> frozenset[str]:
    """References to gradients that fade to nothing and to filters that blur what they draw."""
    found = set()
    for element in root.iter():
        effects = " ".join(child.get("result", "") for child in element)
        fades = any(child.get("stop-opacity") == "0" for child in element)
        if fades or "foregroundBlur" in effects:
            found.add(f"url(#{element.get('id')})")
    return frozenset(found)


@dataclass(frozen=True)
class _Sketcher:
    width: str
    shading: frozenset[str]

    def redraw(self, parent: ElementTree.Element, fill: str, stroke: str) -> None:
        """Redraw all children; `fill` and `stroke` are what they inherit."""
        for element in list(parent):
            if element.tag not in _SHAPES | _GROUPS:
                continue
            own_fill, own_stroke = _property(element, "fill") or fill, _property(element, "stroke") or stroke
            paint = own_stroke if own_fill == "none" else own_fill
            if _opacity(element) < FAINT or {paint, _property(element, "filter")} & self.shading:
                parent.remove(element)
                continue
            if element.tag in _GROUPS:
                self.redraw(element, own_fill, own_stroke)
            self._outline(element, own_fill, own_stroke)

    def _outline(self, element: ElementTree.Element, fill: str, stroke: str) -> None:
        width = _property(element, "stroke-width")
        for name in _PAINT:
            element.attrib.pop(name, None)
        is_stroke = fill == "none" and stroke != "none"
        if element.tag in _SHAPES:
            element.attrib |= {"stroke": "black", "stroke-linejoin": "round"}
            element.set("fill", "none" if fill == "none" else "white")
            width = width if is_stroke else self.width
        if width is not None:
            element.set("stroke-width", width)


def _property(element: ElementTree.Element, name: str) -> str | None:
    found = re.search(rf"(?:^|;)\s*{name}\s*:\s*([^;]+)", element.get("style", ""))
    return found[1].strip() if found else element.get(name)


def _opacity(element: ElementTree.Element) -> float:
    shares = [_property(element, name) or "1" for name in ("opacity", "fill-opacity")]
    return min(float(share[:-1]) / 100 if share.endswith("%") else float(share) for share in shares)
