/** The part of the canvas that is shown: zoomed and moved by wheel, two fingers, the middle button or Space. */

const MOST = 16;
const NOTCH = 50; // most of a turn of the wheel that counts, in pixels
const LINE = 16; // pixels of a line, for wheels that count lines

export class View {
  scale = 1;
  x = 0;
  y = 0;
  held = false; // whether Space is pressed, with which dragging moves the view
  #fingers = new Map();
  #last = null; // where the view was dragged to

  /**
   * @param cancel is called when fingers or a button that had begun a stroke turn out to move the view.
   */
  constructor(holder, changed, cancel) {
    Object.assign(this, { holder, changed, cancel });
    const listen = (name, act) => holder.addEventListener(name, (event) => act(event), { capture: true, passive: false });
    listen("pointerdown", (event) => this.#down(event));
    listen("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) listen(name, (event) => this.#up(event));
    listen("wheel", (event) => this.#wheel(event));
  }

  /** Shows the canvas larger or smaller; the place `at`, in pixels of the page, stays where it is. */
  zoom(factor, at = { x: this.holder.clientWidth / 2, y: this.holder.clientHeight / 2 }) {
    const scale = Math.min(MOST, Math.max(1, this.scale * factor));
    const ratio = scale / this.scale;
    this.scale = scale;
    this.move(at.x + (this.x - at.x) * ratio - this.x, at.y + (this.y - at.y) * ratio - this.y);
  }

  /** Moves the canvas by pixels of the page, as far as it fills its place. */
  move(x, y) {
    const { clientWidth, clientHeight } = this.holder;
    this.x = Math.min(0, Math.max(clientWidth * (1 - this.scale), this.x + x));
    this.y = Math.min(0, Math.max(clientHeight * (1 - this.scale), this.y + y));
    this.changed();
  }

  /** Shows all of the canvas. */
  fit() {
    this.zoom(1 / this.scale);
  }

  #place({ clientX, clientY }) {
    const { left, top } = this.holder.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  }

  #down(event) {
    if (event.pointerType === "touch") this.#fingers.set(event.pointerId, this.#place(event));
    const drags = event.button === 1 || (this.held && event.button === 0);
    if (drags) this.#last = this.#place(event);
    if (!drags && this.#fingers.size < 2) return;
    event.preventDefault();
    event.stopPropagation();
    this.holder.setPointerCapture(event.pointerId);
    this.cancel();
  }

  #move(event) {
    const to = this.#place(event);
    if (this.#fingers.size > 1 && this.#fingers.has(event.pointerId)) this.#pinch(event.pointerId, to);
    else if (this.#last) {
      this.move(to.x - this.#last.x, to.y - this.#last.y);
      this.#last = to;
    } else return;
    event.stopPropagation();
  }

  #pinch(id, to) {
    const before = [...this.#fingers.values()];
    this.#fingers.set(id, to);
    const after = [...this.#fingers.values()];
    const middle = ([one, other]) => ({ x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 });
    const apart = ([one, other]) => Math.hypot(one.x - other.x, one.y - other.y);
    const [from, now] = [middle(before), middle(after)];
    this.zoom(apart(after) / Math.max(1, apart(before)), from);
    this.move(now.x - from.x, now.y - from.y);
  }

  #up(event) {
    this.#fingers.delete(event.pointerId);
    this.#last = null;
  }

  /** Zooms with Ctrl, as trackpads send two fingers; moves the view of a larger canvas; else scrolls the page. */
  #wheel(event) {
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE : 1;
    const [x, y] = [event.deltaX * unit, event.deltaY * unit];
    if (event.ctrlKey || event.metaKey) this.zoom(2 ** (-Math.min(NOTCH, Math.max(-NOTCH, y)) / 100), this.#place(event));
    else if (this.scale > 1) event.shiftKey ? this.move(-y, -x) : this.move(-x, -y);
    else return;
    event.preventDefault();
  }
}
