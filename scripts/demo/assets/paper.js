/** The canvas itself, on Konva: layers of strokes, and the tools that draw, erase, move and set boxes on them. */

import "./konva.min.js";
import { canvasSize, isUnmoved } from "./design.js";
import { bitmapOf, fitted, inkImage, inkOf, tinted } from "./ink.js";
import { fractions, hatched, movedBox, SketchAreas } from "./regions.js";

const { Konva } = globalThis;
Konva.showWarnings = false; // it advises against more than five layers

const FAINT = 0.4;
const NEAR = 8; // pixels around the pointer in which strokes are looked for
const STEP = 2; // canvas pixels between points of a stroke
const PAINTED = 0.45; // opacity of a region while it is painted

export class Paper {
  tool = "draw";
  paints = "marks"; // what the brushes act on: strokes, or with "area" the region
  widths = { marks: 4, area: 32 };
  #nodes = new Map();
  #images = new Map();
  #box = null;
  #busy = null; // how the gesture under way goes on and ends

  /**
   * @param changed is called when an image of a layer is loaded.
   * @param areaOf returns the mask of a sketch.
   */
  constructor(holder, store, own, changed, areaOf) {
    Object.assign(this, { holder, store, own, changed });
    this.areas = new SketchAreas(areaOf);
    this.stage = new Konva.Stage({ container: holder, width: 1, height: 1 });
    this.ground = new Konva.Layer({ listening: false });
    this.top = new Konva.Layer();
    this.stage.add(this.ground, this.top);
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
        this.#images.delete(id);
      }
    for (const one of layers) {
      if (!this.#nodes.has(one.id)) this.#nodes.set(one.id, this.#added());
      const node = this.#nodes.get(one.id);
      if (node.shown !== one) this.#fill(node, one);
      node.layer.visible(one.visible).opacity(one.id === active ? 1 : FAINT);
    }
    this.top.moveToTop();
    this.#drawTop();
    this.#drawGround();
  }

  /** Shows what lies below the strokes: the background, and the region of the active layer. */
  #drawGround() {
    const { background } = this.store.state;
    this.ground.destroyChildren();
    const image = background && bitmapOf(background.source, () => this.#drawGround());
    if (image) this.ground.add(new Konva.Image({ image, ...fitted(image, this.size), opacity: background.opacity }));
    const region = this.#regionOf(this.store.active);
    if (region) this.ground.add(region);
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
    group.add(...this.#shapes(one, one, one.color));
  }

  /** Returns the image and strokes of a layer, or as a mask those of its region. */
  #shapes(one, { image, marks }, color, mask = false) {
    const ink = image && inkOf(image.source, () => this.#loaded(one.id), mask);
    const shown = ink ? [new Konva.Image({ image: tinted(ink, color), ...fitted(ink, this.size) })] : [];
    return [...shown, ...marks.map((mark) => lineOf(mark, one))];
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

  /** Returns the hatched region of a layer that strokes enclose or a brush has painted; null for others. */
  #regionOf(one) {
    if (!one?.visible || !["sketch", "mask"].includes(one.region)) return null;
    const [source, again] = [one.region === "mask" ? this.mask(one) : this.sketch(one), () => this.#drawGround()];
    const known = source && (one.region === "mask" ? inkOf(source, again, true) : this.areas.of(source, again));
    return known && new Konva.Image({ image: hatched(known, one.color), ...fitted(known, this.size), listening: false });
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
    const inverse = new Konva.Group(one.place).getTransform().copy().invert();
    const area = this.paints === "area";
    const mark = { points: [], width: this.widths[this.paints], erase: this.tool === "erase" };
    const line = lineOf(area ? { ...mark, erase: false } : mark, one);
    if (area) this.top.add(new Konva.Group({ ...one.place, opacity: PAINTED }).add(line));
    else group.add(line);
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
    const added = ({ marks }) => ({ marks: [...marks, mark] });
    const painted = () => (area ? { region: "mask", area: { ...one.area, ...added(one.area) } } : added(one));
    return { move, end: () => this.store.layer(one.id, { ...painted(), visible: true }) };
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
        const region = fractions(shown.getAttrs(), this.size);
        shown.destroy();
        if (region) this.store.layer(id, { region });
      },
    };
  }

  /** Takes over a box that was dragged or resized. */
  #boxed() {
    const { x, y, width, height, scaleX = 1, scaleY = 1 } = this.#box.getAttrs();
    const region = fractions({ x, y, width: width * scaleX, height: height * scaleY }, this.size);
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
    const region = Array.isArray(one.region) ? (movedBox(one.region, way, this.size) ?? one.region) : one.region;
    this.store.layer(one.id, { place, region }, kind);
  }

  /** Moves the active layer, or with the box tool its box, by canvas pixels. */
  nudge(x, y) {
    const one = this.store.active;
    if (!one) return;
    if (this.tool === "box" && Array.isArray(one.region)) {
      const region = movedBox(one.region, new Konva.Transform([1, 0, 0, 1, x, y]), this.size);
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
    return this.#drawn(one, one, false);
  }

  /** Returns the painted region of a layer, white on black, in a data URI; null if it is empty. */
  mask(one) {
    return this.#drawn(one, one.area, true);
  }

  #drawn(one, { marks, image }, mask) {
    const { place } = one;
    if (image?.exact && !marks.length && isUnmoved(place)) return image.source;
    const known = this.#images.get(one.id)?.[mask];
    if (known?.marks === marks && known.image === image && known.place === place) return known.source;
    const loaded = !image || inkOf(image.source, () => this.#loaded(one.id), mask);
    if (!loaded || (!marks.length && !image)) return null;
    const [width, height] = this.size;
    const group = new Konva.Group(place).add(...this.#shapes(one, { marks, image }, one.color, mask));
    const source = inkImage(group.toCanvas({ x: 0, y: 0, width, height, pixelRatio: 1 }), mask);
    group.destroy();
    this.#images.set(one.id, { ...this.#images.get(one.id), [mask]: { marks, image, place, source } });
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
