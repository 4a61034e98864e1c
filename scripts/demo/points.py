"""The demo's viewer of coloured points: turned by dragging or by arrow keys, and drawn without WebGL."""

import base64
import json
from typing import Final

import gradio as gr
import numpy as np
from jaxtyping import Float, UInt8

from weftwork.datasets.readers.cameras import Camera

UNIT: Final = 8192
"""Coordinates are 16-bit integers, this many to the distance of the point that the viewer turns around."""
TEMPLATE: Final = """
<canvas width="512" height="512" tabindex="0" role="img" data-cloud='${value}'
  aria-label="Points; drag or use the arrow keys to turn them, + and - to zoom"></canvas>
<p>Drag, or arrow keys, to turn; + and - to zoom; 0 for the camera's view.</p>"""
STYLE: Final = """
canvas { width: 100%; max-width: 512px; aspect-ratio: 1; display: block; background: #111; cursor: grab;
         touch-action: none }
p { font-size: 0.8em; opacity: 0.7; margin: 0.3em 0 }"""
TURNING: Final = """
let cloud = null, known = null, yaw = 0, pitch = 0, near = 1, held = null;
const load = () => {
  const text = element.querySelector('canvas')?.dataset.cloud;
  if (text !== known) {
    known = text;
    cloud = null;
    [yaw, pitch, near] = [0, 0, 1];
    if (text) {
      const {data, ...about} = JSON.parse(text);
      const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0)), count = bytes.length / 9;
      const places = new Int16Array(bytes.buffer, 0, 3 * count), colors = bytes.subarray(6 * count);
      cloud = {...about, count, places, colors};
    }
  }
  draw();
};
const draw = () => {
  const canvas = element.querySelector('canvas');
  if (!canvas) return;
  const side = canvas.width, context = canvas.getContext('2d'), image = context.createImageData(side, side);
  const pixels = new Uint32Array(image.data.buffer).fill(0xff111111), depths = new Float32Array(side * side).fill(1e9);
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  for (let i = 0; cloud && i < cloud.count; i++) {
    const x = cloud.places[3 * i] / cloud.unit, y = cloud.places[3 * i + 1] / cloud.unit;
    const z = cloud.places[3 * i + 2] / cloud.unit, away = z - 1;
    const across = cy * x + sy * away, back = cy * away - sy * x;
    const depth = cp * back - sp * y + 1 / near, down = cp * y + sp * back;
    if (depth < 0.05) continue;
    const size = Math.min(24, Math.ceil(side / cloud.columns * z / depth));
    const left = Math.round((cloud.focal[0] * across / depth + cloud.center[0]) * side - size / 2);
    const top = Math.round((cloud.focal[1] * down / depth + cloud.center[1]) * side - size / 2);
    const color = 0xff000000 | cloud.colors[3 * i + 2] << 16 | cloud.colors[3 * i + 1] << 8 | cloud.colors[3 * i];
    for (let v = Math.max(0, top); v < Math.min(side, top + size); v++)
      for (let u = Math.max(0, left); u < Math.min(side, left + size); u++)
        if (depth < depths[v * side + u]) { depths[v * side + u] = depth; pixels[v * side + u] = color; }
  }
  context.putImageData(image, 0, 0);
};
const turn = (across, down) => {
  yaw += across;
  pitch = Math.max(-1.5, Math.min(1.5, pitch + down));
  draw();
};
element.addEventListener('pointerdown', event => {
  if (event.target.closest('canvas')) held = [event.clientX, event.clientY];
});
window.addEventListener('pointermove', event => {
  if (held === null) return;
  turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
  held = [event.clientX, event.clientY];
});
window.addEventListener('pointerup', () => { held = null; });
element.addEventListener('keydown', event => {
  const steps = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]}[event.key];
  if (steps) turn(...steps);
  else if (event.key === '+' || event.key === '-') { near *= event.key === '+' ? 1.1 : 1 / 1.1; draw(); }
  else if (event.key === '0') { [yaw, pitch, near] = [0, 0, 1]; draw(); }
  else return;
  event.preventDefault();
});
new MutationObserver(load).observe(element, {childList: true, subtree: true, attributeFilter: ['data-cloud']});
load();"""


def points_viewer(elem_id: str) -> gr.HTML:
    """Adds a viewer of `points_shown`; gradio 6.31's own viewer stayed empty (gradio issue 12158)."""
    return gr.HTML("", html_template=TEMPLATE, css_template=STYLE, js_on_load=TURNING, elem_id=elem_id)


def points_shown(
    points: Float[np.ndarray, "height width 3"], pixels: UInt8[np.ndarray, "height width 3"], camera: Camera
) -> str:
    """Returns points in world coordinates for the viewer, which starts at the camera and turns around their middle."""
    matrix = camera.world_to_camera
    local = points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    scaled = local / max(float(np.median(local[:, 2])), 1e-6) * UNIT
    places = np.clip(np.round(scaled), -32768, 32767).astype("<i2")
    about = {"unit": UNIT, "columns": points.shape[1], "focal": camera.focal, "center": camera.center}
    data = places.tobytes() + np.ascontiguousarray(pixels).tobytes()
    return json.dumps({**about, "data": base64.b64encode(data).decode()})
