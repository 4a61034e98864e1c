/** Attention maps of an image: where each of its conditions acted, beside the region that it was given. */

import { COLORS, SIDE } from "./design.js";
import { inkOf } from "./ink.js";
import { hatched } from "./regions.js";

const DASH = [10, 7];

export class MapView {
  #shown = null; // the item, and the index of its map

  /**
   * @param element of viewer.html.
   * @param areas of sketches.
   */
  constructor(element, areas) {
    Object.assign(this, { areas });
    this.list = element.querySelector(".maps");
    this.image = element.querySelector(".map");
    this.given = element.querySelector(".given");
  }

  /** Shows the names of an item's maps, and the map that was chosen for it. */
  draw(item) {
    if (this.#shown?.item !== item) this.#shown = null;
    const index = this.#shown?.index ?? -1;
    const buttons = item.maps.map(({ adapter, place, text }, one) => {
      const button = document.createElement("button");
      button.textContent = text || `${adapter} ${place + 1}`;
      button.style.setProperty("--color", COLORS[one % COLORS.length]);
      button.ariaPressed = one === index;
      button.onclick = () => {
        this.#shown = one === index ? null : { item, index: one };
        this.draw(item);
      };
      return button;
    });
    this.list.replaceChildren(...buttons);
    this.image.hidden = this.given.hidden = index < 0;
    if (index < 0) return;
    const { image, adapter, place } = item.maps[index];
    this.image.src = image;
    this.#drawGiven(item.design.conditions?.[adapter]?.[place], COLORS[index % COLORS.length], item);
  }

  /** Draws the region of a condition: a box dashed, other areas hatched. */
  #drawGiven({ region, sketch } = {}, color, item) {
    this.given.width = this.given.height = SIDE;
    const context = this.given.getContext("2d");
    if (Array.isArray(region)) {
      const [left, top, right, bottom] = region.map((one) => one * SIDE);
      Object.assign(context, { strokeStyle: color, lineWidth: 4 });
      context.setLineDash(DASH);
      context.strokeRect(left, top, right - left, bottom - top);
    } else if (region) {
      const again = () => this.draw(item);
      const ink = region === "sketch" ? this.areas.of(sketch, again) : inkOf(region, again, true);
      if (ink) context.drawImage(hatched(ink, color), 0, 0, SIDE, SIDE);
    }
  }
}
