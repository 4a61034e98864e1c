/** The canvas itself, on Konva: layers of strokes above the initial image, in the part that is shown. */

import "./konva.min.js";
import { canvasSize, pixelsOf, placeOf } from "./design.js";
import { Drawings } from "./drawings.js";
import { bitmapOf, covered, fitted, inkOf } from "./ink.js";
import { hatched, rectOf, SketchAreas } from "./regions.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

const { Konva } = globalThis;
Konva.showWarnings = false; // it advises against more than five layers

const FAINT = 0.4;

export class Paper {
  #nodes = new Map();
  #box = null;

  /**
   * @param changed is called when an image of a layer is loaded.
   * @param areaOf returns the mask of a sketch.
   */
  constructor(holder, store, own, changed, areaOf) {
    Object.assign(this, { holder, store, own, changed });
    this.areas = new SketchAreas(areaOf);
    this.drawings = new Drawings(this, (id) => this.#loaded(id));
    this.stage = new Konva.Stage({ container: holder, width: 1, height: 1 });
    this.ground = new Konva.Layer({ listening: false });
    this.top = new Konva.Layer();
    this.stage.add(this.ground, this.top);
    this.tools = new Tools(this);
    this.view = new View(holder, () => this.#resize(), () => this.tools.cancel());
    this.stage.on("pointerdown", (event) => this.#begin(event));
    this.stage.on("pointermove", () => this.tools.move());
    this.stage.on("pointerup pointercancel", () => this.tools.end());
    new ResizeObserver(() => this.#resize()).observe(holder);
  }

  get size() {
    return canvasSize(this.pixels);
  }

  /** Width and height of the image that is generated. */
  get pixels() {
    return pixelsOf(this.store.state.settings, this.own);
  }

  groupOf(id) {
    return this.#nodes.get(id)?.group;
  }

  #resize() {
    const [width, height] = this.size;
    const shown = this.holder.clientWidth;
    if (!shown) return; // on a tab that is not open
    const { x, y, scale } = this.view;
    this.holder.parentElement.querySelector(".zoom output").value = `${Math.round(100 * scale)} %`;
    const ratio = (scale * shown) / width;
    this.stage.setAttrs({ width: shown, height: (shown * height) / width, x, y, scaleX: ratio, scaleY: ratio });
  }

  /** Shows the state. */
  draw() {
    const { layers, active } = this.store.state;
    this.#resize();
    for (const [id, node] of this.#nodes)
      if (!layers.some((one) => one.id === id)) {
        node.layer.destroy();
        this.#nodes.delete(id);
        this.drawings.forget(id);
      }
    for (const one of layers) {
      if (!this.#nodes.has(one.id)) this.#nodes.set(one.id, this.#added());
      const node = this.#nodes.get(one.id);
      if (node.shown !== one) this.#fill(node, one);
      node.layer.visible(one.visible).opacity(one.id === active && !this.#masking ? 1 : FAINT);
    }
    this.top.moveToTop();
    this.#drawTop();
    this.#drawGround();
  }

  /** Shows what lies below the strokes: the background, the initial image, and the region of the active layer. */
  #drawGround() {
    const { background, initial } = this.store.state;
    const again = () => this.#drawGround();
    this.ground.destroyChildren();
    const image = background && bitmapOf(background.source, again);
    if (image) this.ground.add(new Konva.Image({ image, ...fitted(image, this.size), opacity: background.opacity }));
    const first = initial && bitmapOf(initial.source, again);
    if (first) this.ground.add(new Konva.Image({ image: covered(first, this.size) }));
    const regions = [this.#maskOf(initial), !this.#masking && this.#regionOf(this.store.active)];
    for (const region of regions) if (region) this.ground.add(region);
  }

  /** Whether the brush acts on the part of the initial image that is drawn anew, which is then seen alone. */
  get #masking() {
    return this.tools.paints === "mask";
  }

  #added() {
    const layer = new Konva.Layer({ listening: false });
    const group = new Konva.Group();
    layer.add(group);
    this.stage.add(layer);
    group.on("dragend", () => this.tools.placed());
    return { layer, group, shown: null };
  }

  #fill(node, one) {
    const { layer, group } = node;
    node.shown = one;
    if (one.photo) layer.zIndex(1); // below the strokes, above the ground
    group.destroyChildren();
    group.setAttrs(placeOf(one));
    group.add(...this.drawings.reference(one), ...this.drawings.shapes(one, one, one.color));
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
    const node = this.tools.tool === "move" ? this.#nodes.get(active)?.group : this.tools.tool === "box" ? this.#box : null;
    const shown = node && node.getLayer()?.visible() && node.getClientRect().width > 0;
    if (shown) this.top.add(this.#newFrame(node));
  }

  /** Returns the hatched region of a layer that strokes enclose or a brush has painted; null for others. */
  #regionOf(one) {
    if (!one?.visible || !["sketch", "mask"].includes(one.region)) return null;
    if (one.region === "mask") return this.#maskOf(one);
    const sketch = this.drawings.sketch(one);
    return sketch && this.#hatched(this.areas.of(sketch, () => this.#drawGround()), one);
  }

  #maskOf(one) {
    const mask = one && this.drawings.mask(one);
    return mask && this.#hatched(inkOf(mask, () => this.#drawGround(), true), one);
  }

  #hatched(ink, { color }) {
    return ink && new Konva.Image({ image: hatched(ink, color), ...fitted(ink, this.size), listening: false });
  }

  #newFrame(node) {
    const boxed = this.tools.tool === "box";
    const frame = new Konva.Transformer({
      nodes: [node],
      flipEnabled: false,
      rotateEnabled: !boxed && !this.store.active.photo,
      keepRatio: !boxed,
      anchorSize: 12,
      anchorCornerRadius: 6,
      padding: boxed ? 0 : 4,
    });
    frame.on("transformend", () => (boxed ? this.tools.boxed(this.#box) : this.tools.placed()));
    return frame;
  }

  #boxOf(one, active) {
    const box = new Konva.Rect({
      ...rectOf(one.region, this.size),
      stroke: one.color,
      strokeWidth: active ? 2 : 1,
      dash: [8, 5],
      opacity: active ? 1 : FAINT,
      draggable: active && this.tools.tool === "box",
      listening: active && this.tools.tool === "box",
    });
    box.on("dragend", () => this.tools.boxed(this.#box));
    return box;
  }

  #begin({ evt, target }) {
    if (!evt.isPrimary || evt.button > 0 || target.getLayer?.() === this.top) return; // a handle or a box
    this.holder.focus({ preventScroll: true });
    this.stage.content.setPointerCapture(evt.pointerId); // strokes go on outside
    this.tools.begin();
  }
}
