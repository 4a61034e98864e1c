/** What layers hold as shapes of Konva, and as images: sketches, regions, and the initial image with its mask. */

import "./konva.min.js";
import { boxOf, isUnmoved } from "./design.js";
import { bitmapOf, covered, fitted, inkImage, inkOf, tinted } from "./ink.js";
import { rectOf } from "./regions.js";

const { Konva } = globalThis;
const CLEAR = 0.7; // opacity of references in boxes, so that strokes are seen
const CLEARER = 0.3; // of others, so that hatched regions are seen

export class Drawings {
  #images = new Map(); // by layer
  #initial = null; // as it is sent

  /**
   * @param paper with the `size` of the canvas and the `pixels` of the generated image.
   * @param loaded is called with the layer whose image is loaded.
   */
  constructor(paper, loaded) {
    Object.assign(this, { paper, loaded });
  }

  /** Returns the image of a reference in its box; nothing for other layers. */
  reference(one) {
    const image = one.kind === "reference" && bitmapOf(one.photo, () => this.loaded(one.id));
    if (!image) return [];
    const { x, y, width, height } = rectOf(boxOf(one), this.paper.size);
    const shown = new Konva.Image({ image, ...fitted(image, [width, height]) });
    return [new Konva.Group({ x, y, opacity: Array.isArray(one.region) ? CLEAR : CLEARER }).add(shown)];
  }

  /** Returns the image and strokes of a layer, or as a mask those of its region. */
  shapes(one, { image, marks }, color, mask = false) {
    const ink = image && inkOf(image.source, () => this.loaded(one.id), mask);
    const shown = ink ? [new Konva.Image({ image: tinted(ink, color), ...fitted(ink, this.paper.size) })] : [];
    return [...shown, ...marks.map((mark) => lineOf(mark, one))];
  }

  /** Returns the sketch of a layer, black on white, in a data URI; null if it is empty. */
  sketch(one) {
    return this.#drawn(one, one, false);
  }

  /** Returns the painted region of a layer, white on black, in a data URI; null if it is empty. */
  mask(one) {
    return this.#drawn(one, one.area, true);
  }

  forget(id) {
    this.#images.delete(id);
  }

  /** @param pixels size of the image; null for that of the canvas, or of an image that is kept as it is. */
  #drawn(one, { marks, image }, mask, pixels = null) {
    const { place } = one;
    const key = `${mask} ${pixels}`;
    const known = this.#images.get(one.id)?.[key];
    if (known?.marks === marks && known.image === image && known.place === place) return known.source;
    const ink = image && inkOf(image.source, () => this.loaded(one.id), mask);
    const kept = image?.exact && !marks.length && isUnmoved(place);
    if (kept && (!pixels || (ink && hasSize(ink, pixels)))) return image.source;
    if ((image && !ink) || (!marks.length && !image)) return null;
    const [width, height] = this.paper.size;
    const group = new Konva.Group(place).add(...this.shapes(one, { marks, image }, one.color, mask));
    const drawn = group.toCanvas({ x: 0, y: 0, width, height, pixelRatio: 1 });
    group.destroy();
    const source = inkImage(pixels ? covered(drawn, pixels) : drawn, mask);
    this.#images.set(one.id, { ...this.#images.get(one.id), [key]: { marks, image, place, source } });
    return source;
  }

  /** Returns the keys of a design for the initial image, which is cut to the shape of the generated one. */
  initial(one) {
    const bitmap = one && bitmapOf(one.source, () => this.loaded(one.id));
    if (!bitmap) return {};
    const { pixels } = this.paper;
    const mask = this.#drawn(one, one.area, true, pixels);
    return { image: this.#cut(one.source, bitmap, pixels), strength: one.strength, ...(mask && { mask_image: mask }) };
  }

  #cut(source, bitmap, pixels) {
    if (hasSize(bitmap, pixels)) return source;
    const key = `${pixels} ${source}`;
    if (this.#initial?.key !== key) this.#initial = { key, image: covered(bitmap, pixels).toDataURL("image/png") };
    return this.#initial.image;
  }
}

const hasSize = ({ width, height }, size) => width === size[0] && height === size[1];

/** Returns a stroke; its width stays the same when its layer is scaled. */
export function lineOf({ points, width, erase }, { color, place }) {
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
