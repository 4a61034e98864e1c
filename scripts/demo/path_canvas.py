"""The demo's canvas for a path over an image: each point has a time, as fast as it was drawn."""

from typing import Final

import gradio as gr

CANVAS: Final = """
<svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img" aria-label="The path over the scene">
<image href="${background}" width="1" height="1" preserveAspectRatio="none"/>
<polyline points="${JSON.parse(value).map(p => p[0] + ',' + p[1]).join(' ')}"/>
${JSON.parse(value).slice(0, 1).map(p => `<circle cx="${p[0]}" cy="${p[1]}" r="0.02"/>`).join('')}
</svg>"""
STYLE: Final = """
svg { width: 100%; max-width: 480px; aspect-ratio: 1; touch-action: none; cursor: crosshair; display: block }
polyline { fill: none; stroke: #e11d48; stroke-width: 0.012; stroke-linejoin: round }
circle { fill: #e11d48 }"""
DRAWING: Final = """
let points = null;
const place = event => {
  const box = element.querySelector('svg').getBoundingClientRect();
  const inside = share => Math.round(1e4 * Math.min(1, Math.max(0, share))) / 1e4;
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height),
          event.timeStamp / 1000];
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('svg')) return;
  event.preventDefault();
  points = [place(event)];
});
window.addEventListener('pointermove', event => {
  if (points === null) return;
  points.push(place(event));
  const line = element.querySelector('polyline');
  if (line) line.setAttribute('points', points.map(p => p[0] + ',' + p[1]).join(' '));
});
window.addEventListener('pointerup', () => {
  if (points === null) return;
  const [begin, end] = [points[0][2], points[points.length - 1][2]];
  if (end > begin) props.value = JSON.stringify(points.map(p => [p[0], p[1], (p[2] - begin) / (end - begin)]));
  points = null;
});"""


def path_canvas(path: str, background: str) -> gr.HTML:
    """Adds a canvas whose value is a JSON list of (x, y, time), all in [0, 1]; `background` is a data URI."""
    return gr.HTML(
        path,
        html_template=CANVAS,
        css_template=STYLE,
        js_on_load=DRAWING,
        background=background,
        elem_id="path",
    )
