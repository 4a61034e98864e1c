/** The result: one image with what can be done next, or two that are compared, and the images of the same run. */

import { drawThumbnails, seedOf } from "./history.js";
import { MapView } from "./maps.js";

const SEEDS = 2 ** 31;

export class Viewer {
  item = null;
  #other = null; // what the item is compared with
  #batch = [];

  /**
   * @param element of viewer.html.
   * @param page `open(design)`, `begin(image)`, `generate(design)`, `seed`, `history` and `paper`.
   */
  constructor(element, page) {
    Object.assign(this, { element, page });
    this.maps = new MapView(element, page.paper.areas);
    this.strength = this.find(".vary input");
    this.strength.oninput = () => this.draw();
    this.divide = this.find(".sheet input");
    this.divide.oninput = () => this.find(".sheet").style.setProperty("--divide", `${this.divide.value}%`);
    const actions = {
      vary: () => this.#vary(),
      compare: () => this.#compare(),
      seed: () => (page.seed = this.#seedIsKept ? null : this.item.design.seed),
      open: () => page.open(this.item.design),
      begin: async () => page.begin(await createImageBitmap(this.item.file)),
      png: () => save(this.item.file, "weftwork.png"),
      json: () => save(new Blob([JSON.stringify(this.item.design, null, 2)]), "design.json"),
    };
    for (const [name, act] of Object.entries(actions)) this.find(`[data-view=${name}]`).onclick = act;
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Shows the newest image of a run. */
  showBatch(items) {
    if (items.length) [this.item, this.#batch, this.#other] = [items.at(-1), items, null];
    this.#place(this.item !== null);
    this.draw();
  }

  /** Shows an image, or compares the shown one with it while two are compared. */
  choose(item) {
    if (this.#other && item !== this.item) this.#other = item;
    else this.item = item;
    this.#place(true);
    this.draw();
  }

  /** Makes room for the image that is generated. */
  hide() {
    this.#place(false);
  }

  #place(visible) {
    this.element.hidden = !visible;
    this.element.closest("#results").classList.toggle("viewed", visible);
  }

  draw() {
    if (!this.item) return;
    const [image, other] = this.element.querySelectorAll(".sheet > img");
    const compared = this.#other !== null;
    image.src = this.item.image;
    other.hidden = this.divide.hidden = !compared;
    this.find(".sheet").classList.toggle("divided", compared);
    if (compared) other.src = this.#other.image;
    this.find(".caption").textContent = [this.item, this.#other].filter(Boolean).map(seedOf).join("  |  ");
    this.maps.draw(this.item);
    this.find(".vary output").value = Number(this.strength.value).toFixed(2);
    this.find("[data-view=compare]").ariaPressed = compared;
    this.find("[data-view=compare]").disabled = this.page.history.items.length < 2;
    this.find("[data-view=seed]").ariaPressed = this.#seedIsKept;
    const shown = { pressed: [this.item, this.#other], name: "Image of this run", choose: (one) => this.choose(one) };
    drawThumbnails(this.find(".batch"), this.#batch.length > 1 ? this.#batch : [], shown);
    this.page.drawHistory();
  }

  get #seedIsKept() {
    return this.page.seed === this.item.design.seed;
  }

  #vary() {
    const { design } = this.item;
    const variation = { seed: Math.floor(Math.random() * SEEDS), strength: Number(this.strength.value) };
    this.page.generate({ ...design, variations: [...(design.variations ?? []), variation] });
  }

  #compare() {
    const { items } = this.page.history;
    const index = items.indexOf(this.item);
    this.#other = this.#other ? null : (items[index + 1] ?? items[index - 1]);
    this.draw();
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
