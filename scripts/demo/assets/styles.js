/** Shares of styles for the whole image, chosen from samples, with weight and schedule. */

import { served } from "./files.js";

const STRENGTH = { weight: ["Weight", 1, 1.5], start: ["Start", 0, 1], end: ["End", 1, 1] };

export class StyleFields {
  /** @param styles names of the styles with paths of samples; none where no style adapter is attached. */
  constructor(element, store, styles) {
    Object.assign(this, { element, store, styles: styles.map(([name]) => name) });
    element.hidden = !styles.length;
    this.inputs = new Map();
    for (const [name, sample] of styles) {
      const row = this.#add(name, name, 1);
      if (sample) row.prepend(this.#newSample(name, sample));
    }
    for (const [key, [label, , most]] of Object.entries(STRENGTH)) this.#add(key, label, most);
  }

  #add(key, text, most) {
    const row = document.createElement("div");
    row.className = "share";
    row.innerHTML = `<span></span><output></output><input type="range" min="0" max="${most}" step="0.05">`;
    row.querySelector("span").textContent = text;
    const input = row.querySelector("input");
    input.ariaLabel = text;
    input.oninput = () => this.#change();
    this.inputs.set(key, input);
    this.element.querySelector(key in STRENGTH ? ".strength" : ".fields").append(row);
    return row;
  }

  /** Returns the sample of a style as a button that adds the style to the mixture, or takes it out. */
  #newSample(name, path) {
    const button = document.createElement("button");
    button.innerHTML = "<img alt='' loading='lazy'>";
    button.firstChild.src = served(path);
    button.ariaLabel = `Style ${name}`;
    button.onclick = () => {
      const input = this.inputs.get(name);
      input.value = Number(input.value) > 0 ? 0 : 1;
      this.#change();
    };
    return button;
  }

  #change() {
    const value = (key) => Number(this.inputs.get(key).value);
    const style = Object.fromEntries(this.styles.map((name) => [name, value(name)]).filter(([, share]) => share > 0));
    const { style: _, ...others } = this.store.state.others;
    const strength = Object.fromEntries(Object.keys(STRENGTH).map((key) => [key, value(key)]));
    strength.end = Math.max(strength.start, strength.end);
    const mixed = Object.keys(style).length > 0;
    this.store.set({ others: mixed ? { ...others, style: [{ style, ...strength }] } : others }, "style");
  }

  draw() {
    const record = this.store.state.others.style?.[0] ?? {};
    const shares = typeof record.style === "string" ? { [record.style]: 1 } : (record.style ?? {});
    for (const [key, input] of this.inputs) {
      const value = key in STRENGTH ? (record[key] ?? STRENGTH[key][1]) : (shares[key] ?? 0);
      if (Number(input.value) !== value) input.value = value;
      input.parentElement.querySelector("output").value = Number(value).toFixed(2);
      const sample = input.parentElement.querySelector("button");
      if (sample) sample.ariaPressed = value > 0;
    }
  }
}
