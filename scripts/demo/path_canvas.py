"""The demo's canvas for paths of walkers over an image: each point has a time, as fast as it was drawn."""

from typing import Final

import gradio as gr

COLORS: Final = ("#ff7f0e", "#2ca02c", "#d62728", "#9467bd")
"""By walker; those of tracks in `plot_audio`."""
WALKERS: Final = len(COLORS)
CANVAS: Final = """
<svg viewBox="0 0 1 1" preserveAspectRatio="none" role="img" aria-label="The paths over the scene">
<image href="${background}" width="1" height="1" preserveAspectRatio="none"/>
${JSON.parse(value).map((path, walker) => `<g style="--walker: ${colors[walker]}">
<polyline points="${path.map(p => p[0] + ',' + p[1]).join(' ')}"/>
${path.slice(0, 1).map(p => `<circle cx="${p[0]}" cy="${p[1]}" r="0.02"/>`).join('')}
</g>`).join('')}
</svg>
<div>
<button type="button" data-action="add">Add a walker</button>
<button type="button" data-action="remove">Remove the last</button>
<span>${JSON.parse(value).at(-1).length ? '' : 'Now draw the path of this walker.'}</span>
</div>"""
STYLE: Final = """
svg { width: 100%; aspect-ratio: 1; touch-action: none; cursor: crosshair; display: block }
polyline { fill: none; stroke: var(--walker); stroke-width: 0.012; stroke-linejoin: round }
circle { fill: var(--walker) }
div { display: flex; gap: 0.5em; align-items: center; margin-top: 0.5em }
button { padding: 0.4em 0.8em; border: 1px solid var(--border-color-primary); border-radius: var(--radius-md);
         background: var(--button-secondary-background-fill) }"""
DRAWING: Final = """
let points = null;
const place = event => {
  const box = element.querySelector('svg').getBoundingClientRect();
  const inside = share => Math.round(1e4 * Math.min(1, Math.max(0, share))) / 1e4;
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height),
          event.timeStamp / 1000];
};
element.addEventListener('click', event => {
  const action = event.target.dataset.action, paths = JSON.parse(props.value);
  if (action === 'add' && paths.at(-1).length && paths.length < props.colors.length) paths.push([]);
  else if (action === 'remove' && paths.length > 1) paths.pop();
  else return;
  props.value = JSON.stringify(paths);
});
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('svg')) return;
  event.preventDefault();
  points = [place(event)];
});
window.addEventListener('pointermove', event => {
  if (points === null) return;
  points.push(place(event));
  const line = [...element.querySelectorAll('polyline')].at(-1);
  if (line) line.setAttribute('points', points.map(p => p[0] + ',' + p[1]).join(' '));
});
window.addEventListener('pointerup', () => {
  if (points === null) return;
  const [begin, end] = [points[0][2], points[points.length - 1][2]];
  const path = points.map(p => [p[0], p[1], (p[2] - begin) / (end - begin)]);
  if (end > begin) props.value = JSON.stringify([...JSON.parse(props.value).slice(0, -1), path]);
  points = null;
});"""


def path_canvas(paths: str, background: str) -> gr.HTML:
    """Adds a canvas whose value is a JSON list with a list of (x, y, time), all in [0, 1], by walker; of an empty list
    the path is drawn next. `background` is a data URI."""
    return gr.HTML(
        paths,
        html_template=CANVAS,
        css_template=STYLE,
        js_on_load=DRAWING,
        background=background,
        colors=COLORS,
        elem_id="path",
    )
