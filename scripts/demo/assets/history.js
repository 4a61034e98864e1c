/** The images that were made, each with its design, and their thumbnails. */

import { readFile } from "./files.js";

export class History {
  items = [];
  #known = new Set();
  #listeners = [];

  /**
   * @param shelf that keeps them.
   * @param kept is called with whether the shelf has kept one.
   */
  constructor(shelf, kept) {
    Object.assign(this, { shelf, kept });
    shelf.all().then((items) => {
      this.items.push(...items.map(shown));
      this.#changed();
    });
  }

  listen(listener) {
    this.#listeners.push(listener);
  }

  /**
   * Adds images with attention maps, and returns those that were not added before; each has an address, and a map
   * the adapter and the text of its condition, and its place there.
   */
  async add(images) {
    const added = [];
    for (const { address, maps } of images.filter((one) => !this.#known.has(one.address))) {
      this.#known.add(address);
      const file = new File([await fetched(address)], "weftwork.png", { type: "image/png" });
      const kept = maps.map(async ({ address, ...one }) => ({ ...one, file: await fetched(address) }));
      const item = { ...(await readFile(file)), file, maps: await Promise.all(kept) };
      added.push(shown(item));
      this.kept(await this.shelf.put(item));
    }
    this.items.unshift(...added.toReversed());
    this.#changed();
    return added;
  }

  #changed() {
    for (const listener of this.#listeners) listener();
  }
}

const fetched = async (address) => (await fetch(address)).blob();

/** Whether a map says which condition it is of; those of earlier versions do not. */
const isPlaced = ({ adapter }) => adapter !== undefined;

/** Returns an item with addresses of its images. */
const shown = ({ maps = [], ...item }) => ({
  ...item,
  image: URL.createObjectURL(item.file),
  maps: maps.filter(isPlaced).map(({ file, ...one }) => ({ ...one, image: URL.createObjectURL(file) })),
});

/** Shows items as a row of buttons; `name` names one for people who do not see it. */
export function drawThumbnails(list, items, { pressed, name, choose }) {
  const rows = items.map((item, index) => {
    const row = document.createElement("li");
    row.innerHTML = "<button><img alt=''></button>";
    const button = row.firstChild;
    button.ariaLabel = `${name} ${index + 1}, ${seedOf(item)}`;
    button.title = seedOf(item);
    button.ariaPressed = pressed.includes(item);
    button.firstChild.src = item.image;
    button.onclick = () => choose(item);
    return row;
  });
  list.replaceChildren(...rows);
}

/** Returns the seed of an item in words, with those of its variations. */
export function seedOf({ design: { seed, variations = [] } }) {
  return [`seed ${seed}`, ...variations.map((one) => `${one.seed} at ${one.strength}`)].join(" + ");
}
