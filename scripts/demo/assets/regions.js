/** Where layers act, as areas of the canvas: boxes, brushed masks, and what the server finds in strokes. */

import { SIDE } from "./design.js";
import { inkOf, newCanvas } from "./ink.js";

const LEAST_BOX = 0.02;
const SPACING = 10; // canvas pixels between lines of the hatching
const KEPT = 32;

/** Returns a rectangle in fractions of a canvas, cut at its edges; null for one that is too small. */
export function fractions({ x, y, width = 0, height = 0 }, [w, h]) {
  const share = (value) => Math.round(1e3 * Math.min(1, Math.max(0, value))) / 1e3;
  const box = [share(x / w), share(y / h), share((x + width) / w), share((y + height) / h)];
  return box[2] - box[0] >= LEAST_BOX && box[3] - box[1] >= LEAST_BOX ? box : null;
}

/** Returns a box in fractions as a rectangle of a canvas. */
export function rectOf([left, top, right, bottom], [width, height]) {
  return { x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height };
}

/** Returns the box around a box that was moved by a transform of Konva; null where nothing is left on the canvas. */
export function movedBox([left, top, right, bottom], way, size) {
  const [width, height] = size;
  const corners = [left, right].flatMap((x) => [top, bottom].map((y) => way.point({ x: x * width, y: y * height })));
  const [xs, ys] = ["x", "y"].map((axis) => corners.map((one) => one[axis]));
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return fractions({ x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y }, size);
}

/** Returns diagonal lines in a color where a canvas has ink. */
export function hatched(ink, color) {
  const scale = SIDE / Math.max(ink.width, ink.height); // masks of designs may be small
  const canvas = newCanvas(Math.round(ink.width * scale), Math.round(ink.height * scale));
  const context = canvas.getContext("2d");
  context.strokeStyle = color;
  for (let x = -canvas.height; x < canvas.width; x += SPACING) {
    context.moveTo(x, canvas.height);
    context.lineTo(x + canvas.height, 0);
  }
  context.globalAlpha = 0.4;
  context.stroke();
  context.globalAlpha = 0.1;
  context.fillStyle = color;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  context.globalCompositeOperation = "destination-in";
  context.drawImage(ink, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** The areas of sketches, which the server finds as it does when it generates. */
export class SketchAreas {
  #known = new Map();

  /** @param ask returns the mask of a sketch. */
  constructor(ask) {
    this.ask = ask;
  }

  /** Returns the ink of a sketch's area, or null until it is known; then `ready` is called. */
  of(sketch, ready) {
    if (!this.#known.has(sketch)) this.#find(sketch);
    const { mask, waiting } = this.#known.get(sketch);
    if (mask) return inkOf(mask, ready, true);
    waiting?.push(ready);
    return null;
  }

  async #find(sketch) {
    if (this.#known.size >= KEPT) this.#known.delete(this.#known.keys().next().value);
    const waiting = [];
    this.#known.set(sketch, { mask: null, waiting });
    this.#known.set(sketch, { mask: await this.ask(sketch).catch(() => null) });
    for (const ready of waiting) ready();
  }
}
