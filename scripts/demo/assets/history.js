/** A strip of the images that were made, each with its design. */

import { readFile } from "./files.js";
import { shrunk } from "./ink.js";

const KEPT = 12;
const SIDE = 384;

export class History {
  #known = null;

  /**
   * @param open shows a design on the canvas.
   * @param useSeed makes a seed that of the next image.
   */
  constructor(element, key, open, useSeed) {
    Object.assign(this, { element, key, items: saved(key), chosen: null });
    this.strip = element.querySelector("ol");
    this.figure = element.querySelector("figure");
    const act = (name, action) => {
      element.querySelector(`[data-history=${name}]`).onclick = () => {
        action(this.chosen.design);
        this.choose(null);
      };
    };
    act("open", open);
    act("seed", ({ seed }) => useSeed(seed));
    act("close", () => {});
    this.draw();
  }

  /** Adds the image at an address; one that was added last is not added again. */
  async add(url) {
    if (!url || url === this.#known) return;
    this.#known = url;
    const file = await (await fetch(url)).blob();
    const { design } = await readFile(new File([file], "made.png"));
    const image = shrunk(await createImageBitmap(file), SIDE);
    this.items = [{ design, image }, ...this.items].slice(0, KEPT);
    try {
      localStorage.setItem(this.key, JSON.stringify(this.items));
    } catch {
      // storage is full: the strip lasts until the page is closed
    }
    this.draw();
  }

  choose(item) {
    this.chosen = item;
    this.figure.hidden = item === null;
    if (item === null) return;
    this.figure.querySelector("img").src = item.image;
    this.figure.querySelector("figcaption span").textContent = `${item.design.prompt} · seed ${item.design.seed}`;
  }

  draw() {
    this.element.hidden = !this.items.length;
    this.strip.replaceChildren(...this.items.map((item, index) => this.#thumbnail(item, index)));
  }

  #thumbnail(item, index) {
    const row = document.createElement("li");
    row.innerHTML = "<button><img alt=''></button>";
    const button = row.firstChild;
    button.ariaLabel = `Image ${index + 1}, seed ${item.design.seed}`;
    button.firstChild.src = item.image;
    button.onclick = () => this.choose(this.chosen === item ? null : item);
    return row;
  }
}

function saved(key) {
  try {
    const items = JSON.parse(localStorage.getItem(key));
    return Array.isArray(items) ? items : [];
  } catch {
    return [];
  }
}
