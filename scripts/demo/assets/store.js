/** The state of the canvas: plain objects that are replaced, never changed, so that undo keeps references only. */

import { newLayer } from "./design.js";

const KEPT = 100;
const SAVE_AFTER = 300;

export class Store {
  #past = [];
  #future = [];
  #kind = null;
  #listeners = [];
  #timer = null;
  #safe; // the state that a reload finds

  /**
   * @param shelf where the state outlives a reload.
   * @param kept is called with whether the shelf has kept it.
   */
  constructor(state, shelf, kept) {
    Object.assign(this, { state, shelf, kept });
    this.#safe = state;
    addEventListener("pagehide", () => this.state !== this.#safe && shelf.putNow(this.state));
  }

  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Replaces parts of the state. Changes of one `kind` that follow each other, as in typing, are undone together. */
  set(parts, kind = null) {
    if (kind === null || kind !== this.#kind) this.#past = [...this.#past.slice(-KEPT + 1), this.state];
    this.#kind = kind;
    this.#future = [];
    this.#show({ ...this.state, ...parts });
  }

  /** Replaces parts of a layer. */
  layer(id, parts, kind = null) {
    const layers = this.state.layers.map((one) => (one.id === id ? { ...one, ...parts } : one));
    this.set({ layers }, kind && `${kind} ${id}`);
  }

  /** Adds a layer, at the end unless a place is given, and makes it the active one. */
  insert(parts, index = this.state.layers.length) {
    const { layers } = this.state;
    const added = newLayer(layers, parts);
    this.set({ layers: layers.toSpliced(index, 0, added), active: added.id });
  }

  /** Makes a layer the one that tools act on; not undone. */
  select(id) {
    if (id !== this.state.active) this.#show({ ...this.state, active: id });
  }

  get active() {
    return this.state.layers.find((one) => one.id === this.state.active) ?? null;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  undo() {
    if (this.canUndo) this.#move(this.#past, this.#future);
  }

  redo() {
    if (this.canRedo) this.#move(this.#future, this.#past);
  }

  #move(from, to) {
    to.push(this.state);
    this.#kind = null;
    this.#show(from.pop());
  }

  #show(state) {
    this.state = state;
    for (const listener of this.#listeners) listener();
    this.#timer ??= setTimeout(() => this.#save(), SAVE_AFTER);
  }

  async #save() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const { state } = this;
    const done = await this.shelf.put(state);
    if (done) this.#safe = state;
    this.kept(done);
  }
}
