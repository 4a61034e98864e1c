/** Tools of the canvas: what a pointer or a key draws, erases, moves and sets. */

import "./konva.min.js";
import { boxOf, isBlank, isBoxed, MIDDLE, placeOf } from "./design.js";
import { lineOf } from "./drawings.js";
import { fractions, movedBox } from "./regions.js";

const { Konva } = globalThis;

const NEAR = 8; // pixels around the pointer in which strokes are looked for
const CLICK = 3; // pixels that the pointer may move in a click
const SHIFT = 16; // canvas pixels from a layer to its copy
const STEP = 2; // canvas pixels between points of a stroke
const PAINTED = 0.45; // opacity of a region while it is painted

export class Tools {
  tool = "draw";
  paints = "marks"; // what the brushes act on: strokes, with "area" the region, with "mask" that of the initial image
  widths = { marks: 4, area: 32, mask: 48 };
  #busy = null; // how the gesture under way goes on and ends

  /** @param paper with `store`, `stage`, `top`, `size`, `groupOf` and `draw`. */
  constructor(paper) {
    Object.assign(this, { paper, store: paper.store });
  }

  /** The pointer in canvas pixels. */
  get #point() {
    return this.paper.stage.getRelativePointerPosition();
  }

  begin() {
    if (this.tool === "move") {
      this.#busy = this.#drag();
      return;
    }
    if (this.tool === "draw" && this.store.active?.photo) this.#leavePhoto();
    const { active, state } = this.store;
    const boxes = this.tool === "box";
    const one = this.paints === "mask" && !boxes ? state.initial : active;
    if (!one || one.kind === "subject" || (one.photo && this.paints === "marks" && !boxes)) return;
    this.#busy = boxes ? this.#newBox(this.#point) : this.#stroke(one, this.#point);
  }

  /** Makes a layer that takes strokes the active one. */
  #leavePhoto() {
    const blank = this.store.state.layers.findLast(isBlank);
    if (blank) this.store.select(blank.id);
    else this.store.insert();
  }

  move() {
    this.#busy?.move(this.#point);
  }

  end() {
    const busy = this.#busy;
    this.#busy = null;
    busy?.end();
  }

  /** Ends a gesture as if it had not begun. */
  cancel() {
    this.#busy?.line?.destroy();
    this.#busy = null;
    for (const group of this.paper.stage.find("Group")) group.stopDrag();
    this.paper.draw();
  }

  #stroke(one, point) {
    const { paints } = this;
    const inverse = new Konva.Group(one.place).getTransform().copy().invert();
    const mark = { points: [], width: this.widths[paints], erase: this.tool === "erase" };
    const line = lineOf(paints === "marks" ? mark : { ...mark, erase: false }, one);
    if (paints === "marks") {
      const group = this.paper.groupOf(one.id).add(line);
      group.getLayer().visible(true);
    } else this.paper.top.add(new Konva.Group({ ...one.place, opacity: PAINTED }).add(line));
    let last = null;
    const move = (to) => {
      if (last && Math.hypot(to.x - last.x, to.y - last.y) < STEP) return;
      last = to;
      const { x, y } = inverse.point(to);
      mark.points.push(round(x), round(y));
      line.points(mark.points.length > 2 ? mark.points : [x, y, x, y]); // a dot is a line without length
    };
    move(point);
    return { line, move, end: () => this.#keep(one, mark, paints) };
  }

  #keep(one, mark, paints) {
    const added = ({ marks }) => ({ marks: [...marks, mark] });
    const area = { ...one.area, ...added(one.area) };
    if (paints === "mask") this.store.set({ initial: { ...one, area } });
    else this.store.layer(one.id, { ...(paints === "area" ? { region: "mask", area } : added(one)), visible: true });
  }

  #newBox(from) {
    const [width, height] = this.paper.size;
    const { id, color } = this.store.active;
    const shown = new Konva.Rect({ stroke: color, strokeWidth: 2, dash: [8, 5] });
    this.paper.top.add(shown);
    const inside = ({ x, y }) => [Math.min(width, Math.max(0, x)), Math.min(height, Math.max(0, y))];
    const [left, top] = inside(from);
    return {
      move: (to) => {
        const [x, y] = inside(to);
        shown.setAttrs({ x: Math.min(left, x), y: Math.min(top, y), width: Math.abs(x - left), height: Math.abs(y - top) });
      },
      end: () => {
        const region = fractions(shown.getAttrs(), this.paper.size);
        shown.destroy();
        if (region) this.store.layer(id, { region });
      },
    };
  }

  /** Takes over a box that was dragged or resized. */
  boxed(box) {
    const { x, y, width, height, scaleX = 1, scaleY = 1 } = box.getAttrs();
    const region = fractions({ x, y, width: width * scaleX, height: height * scaleY }, this.paper.size);
    if (region) this.store.layer(this.store.state.active, { region }, null);
    this.paper.draw();
  }

  /**
   * Drags a layer under the pointer, strokes before images and the active one before others, or else the active one. A
   * click on the active one picks the next: layers that cover each other are not hidden from the mouse.
   */
  #drag() {
    const { layers, active } = this.store.state;
    const all = layers.filter((one) => one.visible && this.#hasInk(one.id));
    const strokes = all.filter((one) => !one.photo);
    const hits = strokes.length ? strokes : all;
    const index = hits.findIndex((one) => one.id === active);
    if (index < 0 && hits.length) this.store.select(hits[0].id);
    const group = this.paper.groupOf(this.store.state.active);
    group?.startDrag();
    const from = this.paper.stage.getPointerPosition();
    const end = () => {
      const { x, y } = this.paper.stage.getPointerPosition();
      if (index < 0 || Math.hypot(x - from.x, y - from.y) > CLICK) return;
      group.stopDrag(); // of the layer that is still the active one
      this.store.select(hits[(index + 1) % hits.length].id);
    };
    return { move: () => {}, end };
  }

  #hasInk(id) {
    const { x, y } = this.paper.stage.getPointerPosition();
    const canvas = this.paper.groupOf(id).getLayer().getNativeCanvasElement();
    const ratio = canvas.width / this.paper.stage.width();
    const side = Math.ceil(2 * NEAR * ratio);
    const near = canvas.getContext("2d").getImageData((x - NEAR) * ratio, (y - NEAR) * ratio, side, side);
    return near.data.some((value, i) => i % 4 === 3 && value > 0);
  }

  /** Takes over where the active layer was moved to; its box moves with it, and of a reference the box alone. */
  placed(kind = null) {
    const one = this.store.active;
    const group = this.paper.groupOf(one.id);
    const from = placeOf(one);
    if (Object.keys(from).every((key) => from[key] === group[key]())) return;
    const way = group.getTransform().copy().multiply(new Konva.Group(from).getTransform().copy().invert());
    const boxed = isBoxed(one);
    const place = boxed ? from : Object.fromEntries(Object.keys(from).map((key) => [key, group[key]()]));
    const moved = boxed || Array.isArray(one.region) ? movedBox(boxOf(one), way, this.paper.size) : null;
    this.store.layer(one.id, { place, region: moved ?? one.region }, kind);
  }

  /**
   * Returns a copy beside a layer, with its box; a reference that acts everywhere gets one, to be told from it. What
   * `newLayer` sets itself is left out.
   */
  copyOf({ id, color, ...parts }) {
    const { place, region } = parts;
    if (isBoxed(parts) && !Array.isArray(region)) return { ...parts, region: MIDDLE };
    const way = new Konva.Transform([1, 0, 0, 1, SHIFT, SHIFT]);
    const moved = Array.isArray(region) ? movedBox(region, way, this.paper.size) : null;
    return { ...parts, place: { ...place, x: place.x + SHIFT, y: place.y + SHIFT }, region: moved ?? region };
  }

  /** Moves the active layer, or with the box tool its box, by canvas pixels. */
  nudge(x, y) {
    const one = this.store.active;
    if (!one) return;
    if (this.tool === "box" && Array.isArray(one.region)) {
      const region = movedBox(one.region, new Konva.Transform([1, 0, 0, 1, x, y]), this.paper.size);
      if (region) this.store.layer(one.id, { region }, "nudge");
      return;
    }
    this.paper.groupOf(one.id).move({ x, y });
    this.placed("nudge");
  }

  /** Scales the active layer around its middle. */
  scale(factor) {
    this.#around((group, { x, y }) => {
      const place = { x: x + (group.x() - x) * factor, y: y + (group.y() - y) * factor };
      group.setAttrs({ ...place, scaleX: group.scaleX() * factor, scaleY: group.scaleY() * factor });
    });
  }

  /** Mirrors the active layer, left to right. */
  mirror() {
    this.#around((group, { x }) =>
      group.setAttrs({ x: 2 * x - group.x(), rotation: -group.rotation(), scaleX: -group.scaleX() }),
    );
  }

  #around(change) {
    const group = this.paper.groupOf(this.store.state.active);
    if (!group?.hasChildren()) return;
    const box = group.getClientRect({ relativeTo: group.getLayer() });
    change(group, { x: box.x + box.width / 2, y: box.y + box.height / 2 });
    this.placed();
  }
}

const round = (value) => Math.round(10 * value) / 10;
