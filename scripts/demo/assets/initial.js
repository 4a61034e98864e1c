/** The image that the run begins with: how much of it is given up, and the part that is drawn anew. */

import { newInitial } from "./design.js";

export class InitialFields {
  /** @param choose chooses a tool. */
  constructor(element, store, choose) {
    Object.assign(this, { element, store, choose });
    this.find("input").oninput = ({ target }) => this.#set({ strength: Number(target.value) }, "strength");
    this.find("[data-initial=whole]").onclick = () => this.#set({ area: newInitial().area });
    this.find("[data-initial=clear]").onclick = () => this.set(null);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** @param settings of the image that is generated. */
  set(source, settings = this.store.state.settings) {
    this.store.set({ initial: source && newInitial(source), settings });
  }

  #set(parts, kind = null) {
    this.store.set({ initial: { ...this.store.state.initial, ...parts } }, kind);
  }

  draw(tools) {
    const { initial } = this.store.state;
    this.element.hidden = !initial;
    if (!initial) {
      if (tools.paints === "mask") this.choose("draw");
      return;
    }
    this.element.style.setProperty("--color", initial.color);
    this.find("img").src = initial.source;
    this.find("input").value = initial.strength;
    this.find("output").value = initial.strength.toFixed(2);
    const masked = initial.area.marks.length > 0 || initial.area.image !== null;
    this.find("[data-initial=whole]").disabled = !masked;
    this.find("p").textContent = masked ? "The hatched part is drawn anew; the rest stays." : "All of it is drawn anew.";
  }
}
