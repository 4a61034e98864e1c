/** The canvas itself, on Konva: layers of strokes, and the tools that draw, erase, move and set boxes on them. */

import "./konva.min.js";
import { canvasSize, isUnmoved } from "./design.js";
import { fitted, inkOf, onWhite, tinted } from "./ink.js";

const { Konva } = globalThis;
Konva.showWarnings = false; // it advises against more than five layers

const FAINT = 0.4;
const NEAR = 8; // pixels around the pointer in which strokes are looked for
const STEP = 2; // canvas pixels between points of a stroke
const LEAST_BOX = 0.02;

export class Paper {
  tool = "draw";
  width = 4;
  #nodes = new Map();
  #sketches = new Map();
  #box = null;
  #busy = null; // how the gesture under way goes on and ends

  /** @param changed is called when an image of a layer is loaded. */
  constructor(holder, store, own, changed) {
    Object.assign(this, { holder, store, own, changed });
    this.stage = new Konva.Stage({ container: holder, width: 1, height: 1 });
    this.top = new Konva.Layer();
    this.stage.add(this.top);
    this.stage.on("pointerdown", (event) => this.#begin(event));
    this.stage.on("pointermove", () => this.#busy?.move(this.#point()));
    this.stage.on("pointerup pointercancel", () => this.#end());
    new ResizeObserver(() => this.#resize()).observe(holder);
  }

  get size() {
    return canvasSize(this.store.state.settings, this.own);
  }

  #resize() {
    const [width, height] = this.size;
    const shown = this.holder.clientWidth;
    if (!shown) return; // on a tab that is not open
    this.stage.setAttrs({ width: shown, height: (shown * height) / width, scaleX: shown / width, scaleY: shown / width });
  }

  /** Shows the state. */
  draw() {
    const { layers, active } = this.store.state;
    this.#resize();
    for (const [id, node] of this.#nodes)
      if (!layers.some((one) => one.id === id)) {
        node.layer.destroy();
        this.#nodes.delete(id);
        this.#sketches.delete(id);
      }
    for (const one of layers) {
      if (!this.#nodes.has(one.id)) this.#nodes.set(one.id, this.#added());
      const node = this.#nodes.get(one.id);
      if (node.shown !== one) this.#fill(node, one);
      node.layer.visible(one.visible).opacity(one.id === active ? 1 : FAINT);
    }
    this.top.moveToTop();
    this.#drawTop();
  }

  #added() {
    const layer = new Konva.Layer({ listening: false });
    const group = new Konva.Group();
    layer.add(group);
    this.stage.add(layer);
    group.on("dragend", () => this.#placed());
    return { layer, group, shown: null };
  }

  #fill(node, one) {
    const { group } = node;
    node.shown = one;
    group.destroyChildren();
    group.setAttrs(one.place);
    const ink = one.image && inkOf(one.image.source, () => this.#loaded(one.id));
    if (ink) group.add(new Konva.Image({ image: tinted(ink, one.color), ...fitted(ink, this.size) }));
    for (const mark of one.marks) group.add(lineOf(mark, one));
  }

  #loaded(id) {
    const node = this.#nodes.get(id);
    if (node) node.shown = null;
    this.draw();
    this.changed();
  }

  #drawTop() {
    this.top.destroyChildren();
    const { layers, active } = this.store.state;
    for (const one of layers)
      if (one.visible && Array.isArray(one.region)) {
        const box = this.#boxOf(one, one.id === active);
        this.top.add(box);
        if (one.id === active) this.#box = box;
      }
    const node = this.tool === "move" ? this.#nodes.get(active)?.group : this.tool === "box" ? this.#box : null;
    const shown = node && node.getLayer()?.visible() && node.getClientRect().width > 0;
    if (shown) this.top.add(this.#newFrame(node));
  }

  #newFrame(node) {
    const boxed = this.tool === "box";
    const frame = new Konva.Transformer({
      nodes: [node],
      flipEnabled: false,
      rotateEnabled: !boxed,
      keepRatio: !boxed,
      anchorSize: 12,
      anchorCornerRadius: 6,
      padding: boxed ? 0 : 4,
    });
    frame.on("transformend", () => (boxed ? this.#boxed() : this.#placed()));
    return frame;
  }

  #boxOf(one, active) {
    const [width, height] = this.size;
    const [left, top, right, bottom] = one.region;
    const box = new Konva.Rect({
      x: left * width,
      y: top * height,
      width: (right - left) * width,
      height: (bottom - top) * height,
      stroke: one.color,
      strokeWidth: active ? 2 : 1,
      dash: [8, 5],
      opacity: active ? 1 : FAINT,
      draggable: active && this.tool === "box",
      listening: active && this.tool === "box",
    });
    box.on("dragend", () => this.#boxed());
    return box;
  }

  /** Returns the pointer in canvas pixels. */
  #point() {
    return this.stage.getRelativePointerPosition();
  }

  #begin({ evt, target }) {
    if (!evt.isPrimary || evt.button > 0 || target.getLayer?.() === this.top) return; // a handle or a box
    this.holder.focus({ preventScroll: true });
    this.stage.content.setPointerCapture(evt.pointerId); // strokes go on outside
    const point = this.#point();
    if (this.tool === "move") this.#drag();
    else if (this.store.active) this.#busy = this.tool === "box" ? this.#newBox(point) : this.#stroke(point);
  }

  #end() {
    const busy = this.#busy;
    this.#busy = null;
    busy?.end();
  }

  #stroke(point) {
    const { active: one } = this.store;
    const { group, layer } = this.#nodes.get(one.id);
    const inverse = group.getTransform().copy().invert();
    const mark = { points: [], width: this.width, erase: this.tool === "erase" };
    const line = lineOf(mark, one);
    group.add(line);
    layer.visible(true);
    let last = null;
    const move = (to) => {
      if (last && Math.hypot(to.x - last.x, to.y - last.y) < STEP) return;
      last = to;
      const { x, y } = inverse.point(to);
      mark.points.push(round(x), round(y));
      line.points(mark.points.length > 2 ? mark.points : [x, y, x, y]); // a dot is a line without length
    };
    move(point);
    return {
      move,
      end: () => this.store.layer(one.id, { marks: [...one.marks, mark], visible: true }),
    };
  }

  #newBox(from) {
    const [width, height] = this.size;
    const { id, color } = this.store.active;
    const shown = new Konva.Rect({ stroke: color, strokeWidth: 2, dash: [8, 5] });
    this.top.add(shown);
    const inside = ({ x, y }) => [Math.min(width, Math.max(0, x)), Math.min(height, Math.max(0, y))];
    const [left, top] = inside(from);
    return {
      move: (to) => {
        const [x, y] = inside(to);
        shown.setAttrs({ x: Math.min(left, x), y: Math.min(top, y), width: Math.abs(x - left), height: Math.abs(y - top) });
      },
      end: () => {
        const region = this.#fractions(shown.getAttrs());
        shown.destroy();
        if (region) this.store.layer(id, { region });
      },
    };
  }

  /** Returns a rectangle in fractions of the canvas, cut at its edges; null for one that is too small. */
  #fractions({ x, y, width = 0, height = 0 }) {
    const [w, h] = this.size;
    const share = (value) => Math.round(1e3 * Math.min(1, Math.max(0, value))) / 1e3;
    const box = [share(x / w), share(y / h), share((x + width) / w), share((y + height) / h)];
    return box[2] - box[0] >= LEAST_BOX && box[3] - box[1] >= LEAST_BOX ? box : null;
  }

  /** Takes over a box that was dragged or resized. */
  #boxed() {
    const { x, y, width, height, scaleX = 1, scaleY = 1 } = this.#box.getAttrs();
    const region = this.#fractions({ x, y, width: width * scaleX, height: height * scaleY });
    if (region) this.store.layer(this.store.state.active, { region }, null);
    this.draw();
  }

  /** Drags the layer whose strokes are under the pointer, or else the active one. */
  #drag() {
    const { layers } = this.store.state;
    const hit = layers.find((one) => one.visible && this.#hasInk(one.id));
    if (hit) this.store.select(hit.id);
    this.#nodes.get(this.store.state.active)?.group.startDrag();
  }

  #hasInk(id) {
    const { x, y } = this.stage.getPointerPosition();
    const canvas = this.#nodes.get(id).layer.getNativeCanvasElement();
    const ratio = canvas.width / this.stage.width();
    const side = Math.ceil(2 * NEAR * ratio);
    const near = canvas.getContext("2d").getImageData((x - NEAR) * ratio, (y - NEAR) * ratio, side, side);
    return near.data.some((value, i) => i % 4 === 3 && value > 0);
  }

  /** Takes over where the active layer was moved to; its box moves with it. */
  #placed(kind = null) {
    const one = this.store.active;
    const { group } = this.#nodes.get(one.id);
    if (Object.keys(one.place).every((key) => one.place[key] === group[key]())) return;
    const before = new Konva.Group(one.place).getTransform().copy().invert();
    const way = group.getTransform().copy().multiply(before);
    const place = Object.fromEntries(Object.keys(one.place).map((key) => [key, group[key]()]));
    const region = Array.isArray(one.region) ? (this.#movedBox(one.region, way) ?? one.region) : one.region;
    this.store.layer(one.id, { place, region }, kind);
  }

  #movedBox([left, top, right, bottom], way) {
    const [width, height] = this.size;
    const corners = [left, right].flatMap((x) => [top, bottom].map((y) => way.point({ x: x * width, y: y * height })));
    const [xs, ys] = ["x", "y"].map((axis) => corners.map((one) => one[axis]));
    const [x, y] = [Math.min(...xs), Math.min(...ys)];
    return this.#fractions({ x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y });
  }

  /** Moves the active layer, or with the box tool its box, by canvas pixels. */
  nudge(x, y) {
    const one = this.store.active;
    if (!one) return;
    if (this.tool === "box" && Array.isArray(one.region)) {
      const region = this.#movedBox(one.region, new Konva.Transform([1, 0, 0, 1, x, y]));
      if (region) this.store.layer(one.id, { region }, "nudge");
      return;
    }
    this.#nodes.get(one.id).group.move({ x, y });
    this.#placed("nudge");
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
    const group = this.#nodes.get(this.store.state.active)?.group;
    if (!group?.hasChildren()) return;
    const box = group.getClientRect({ relativeTo: group.getLayer() });
    change(group, { x: box.x + box.width / 2, y: box.y + box.height / 2 });
    this.#placed();
  }

  /** Returns the sketch of a layer, black on white, in a data URI; null if it is empty. */
  sketch(one) {
    const { marks, image, place } = one;
    if (image?.exact && !marks.length && isUnmoved(place)) return image.source;
    const known = this.#sketches.get(one.id);
    if (known?.marks === marks && known.image === image && known.place === place) return known.source;
    const loaded = !image || inkOf(image.source, () => {});
    const node = this.#nodes.get(one.id);
    if (!node || !loaded || (!marks.length && !image)) return null;
    const [width, height] = this.size;
    const copy = node.group.clone();
    const source = onWhite(copy.toCanvas({ x: 0, y: 0, width, height, pixelRatio: 1 }));
    copy.destroy();
    this.#sketches.set(one.id, { marks, image, place, source });
    return source;
  }
}

const round = (value) => Math.round(10 * value) / 10;

/** Returns a stroke; its width stays the same when its layer is scaled. */
function lineOf({ points, width, erase }, { color, place }) {
  const scale = Math.sqrt(Math.abs(place.scaleX * place.scaleY)) || 1;
  return new Konva.Line({
    points: points.length > 2 ? points : [...points, ...points],
    stroke: color,
    strokeWidth: width / scale,
    lineCap: "round",
    lineJoin: "round",
    globalCompositeOperation: erase ? "destination-out" : "source-over",
  });
}
