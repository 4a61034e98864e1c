/** The list of layers: text, region, weight and schedule of each, and what is done with it. */

import { MIDDLE, newLayer } from "./design.js";

const icon = (path) => `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${path}"/></svg>`;
const SEEN = icon("M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6");
const HIDDEN = icon("m3 3 18 18M10 5.2A11 11 0 0 1 22 12a18 18 0 0 1-3 3.6M6 7a18 18 0 0 0-4 5s4 7 10 7a10 10 0 0 0 4-.9");
const REGIONS = { sketch: "Strokes", box: "Box", mask: "Brush", everywhere: "All" };
const ACTIONS = {
  up: ["Move up", "m6 14 6-6 6 6"],
  down: ["Move down", "m6 10 6 6 6-6"],
  mirror: ["Mirror", "M12 3v18M9 7 3 17h6zM15 7l6 10h-6z"],
  copy: ["Duplicate", "M9 9h11v11H9zM5 15H4V4h11v1"],
  remove: ["Delete layer", "M4 7h16M10 7V4h4v3M6 7l1 13h10l1-13"],
};
const SUBJECT = "its words in the prompt";
const HINTS = 6;
const LETTERS = 2; // of a text from which on words are suggested
const FRAGMENT = 6; // letters up to which tokens that end longer words are taken for pieces of these

const ROW = `
<div class="head">
  <button class="icon eye"></button>
  <img class="thumb" alt=""><strong>Reference</strong>
  <input class="words" autocomplete="off">
</div>
<div class="more">
  <div class="hints"></div>
  <p class="unknown"></p>
  <div class="row region"><span>Region</span><div class="segments" role="group" aria-label="Region">${Object.entries(REGIONS)
    .map(([key, name]) => `<button data-region="${key}">${name}</button>`)
    .join("")}</div></div>
  <label class="row"><span>Weight</span><input type="range" data-key="weight" min="0" max="2" step="0.05"><output></output></label>
  <div class="row"><span>Steps</span><div class="range">
    <input type="range" data-key="start" min="0" max="1" step="0.05" aria-label="Share of the steps where it begins">
    <input type="range" data-key="end" min="0" max="1" step="0.05" aria-label="Share of the steps where it ends"></div><output></output></div>
  <div class="actions">${Object.entries(ACTIONS)
    .map(([key, [name, path]]) => `<button class="icon" data-act="${key}" title="${name}" aria-label="${name}">${icon(path)}</button>`)
    .join("")}</div>
</div>`;

export class Panel {
  #rows = new Map();

  /**
   * @param props `words` that the model knows, none where its vocabulary is open, `hints` that are suggested in place of
   *   them, and an example of a `text`.
   * @param paint chooses the brush of regions.
   */
  constructor(list, store, tools, { words, hints, text }, paint) {
    Object.assign(this, { list, store, tools, words: new Set(words), example: text, paint });
    const isEnding = (one) => words.some((other) => other !== one && other.endsWith(one));
    this.hints = hints.length ? hints : words.filter((one) => one.length > 2 && (one.length > FRAGMENT || !isEnding(one)));
  }

  /** Shows the state; rows are kept, so that none loses the focus. */
  draw() {
    const { layers, active } = this.store.state;
    for (const [id, row] of this.#rows)
      if (!layers.some((one) => one.id === id)) {
        row.remove();
        this.#rows.delete(id);
      }
    layers.forEach((one, index) => {
      const row = this.#rows.get(one.id) ?? this.#newRow(one.id);
      if (this.list.children[index] !== row) this.list.insertBefore(row, this.list.children[index] ?? null);
      this.#show(row, one, index, one.id === active);
    });
  }

  #newRow(id) {
    const row = document.createElement("li");
    row.className = "layer";
    row.innerHTML = ROW;
    this.#rows.set(id, row);
    const set = (parts, kind) => this.store.layer(id, parts, kind);
    const layer = () => this.store.state.layers.find((one) => one.id === id);
    // the eye would move away from below the pointer, as the row of the active layer above closes
    const select = ({ target }) => target.closest(".eye") || this.store.select(id);
    row.addEventListener("pointerdown", select);
    row.addEventListener("focusin", select);
    row.querySelector(".eye").onclick = () => set({ visible: !layer().visible });
    row.querySelector(".words").oninput = (event) => set({ text: event.target.value }, "text");
    row.querySelector(".words").onkeydown = (event) => {
      const hint = row.querySelector(".hints button");
      if (event.key === "Tab" && !event.shiftKey && hint?.dataset.partial) {
        event.preventDefault();
        hint.click();
      }
    };
    for (const button of row.querySelectorAll("[data-region]"))
      button.onclick = () => {
        const { region } = button.dataset;
        set({ region: region === "box" ? MIDDLE : region });
        if (region === "mask") this.paint();
      };
    for (const input of row.querySelectorAll("[data-key]"))
      input.oninput = () => set(strength(layer(), input.dataset.key, Number(input.value)), input.dataset.key);
    for (const button of row.querySelectorAll("[data-act]")) button.onclick = () => this.act(button.dataset.act);
    return row;
  }

  #show(row, one, index, active) {
    row.style.setProperty("--color", one.color);
    row.classList.toggle("hidden", !one.visible);
    row.setAttribute("aria-current", active);
    row.dataset.kind = one.kind; // a design that is opened has the same ids
    const thumb = row.querySelector(".thumb");
    if (one.photo && thumb.src !== one.photo) thumb.src = one.photo;
    const [eye, words] = [row.querySelector(".eye"), row.querySelector(".words")];
    eye.innerHTML = one.visible ? SEEN : HIDDEN;
    eye.ariaLabel = one.visible ? "Hide layer" : "Show layer";
    words.setAttribute("aria-label", `Text of layer ${index + 1}`);
    words.placeholder = one.kind === "subject" ? SUBJECT : this.example;
    if (words.value !== one.text) words.value = one.text;
    const region = Array.isArray(one.region) ? "box" : one.region;
    for (const button of row.querySelectorAll("[data-region]")) button.ariaPressed = button.dataset.region === region;
    for (const input of row.querySelectorAll("[data-key]")) input.value = one[input.dataset.key];
    const [weight, steps] = row.querySelectorAll("output");
    weight.value = one.weight.toFixed(2);
    steps.value = `${Math.round(100 * one.start)}–${Math.round(100 * one.end)} %`;
    if (active) this.#hint(row, one);
  }

  #hint(row, one) {
    const unknown = this.words.size ? wordsOf(one.text).filter((word) => !this.words.has(word)) : [];
    const partial = one.text.match(/\p{L}*$/u)[0].toLowerCase();
    const typed = unknown.filter((word) => word !== partial);
    row.querySelector(".unknown").textContent = typed.length ? `Unknown to this model: ${typed.join(", ")}` : "";
    const [end, found] = begun(one.text, this.hints);
    row.querySelector(".hints").replaceChildren(
      ...found.slice(0, HINTS).map((word) => {
        const button = document.createElement("button");
        button.textContent = word;
        button.dataset.partial = this.hints.includes(end) ? "" : end; // Tab leaves the field where the text is complete
        button.onclick = () => {
          this.store.layer(one.id, { text: `${one.text.slice(0, one.text.length - end.length)}${word} ` });
          row.querySelector(".words").focus();
        };
        return button;
      }),
    );
  }

  /** Does something with the active layer. */
  act(name) {
    const { layers, active } = this.store.state;
    const index = layers.findIndex((one) => one.id === active);
    if (index < 0) return;
    if (name === "mirror") this.tools.mirror();
    else if (name === "copy") this.store.insert(this.tools.copyOf(layers[index]), index + 1);
    else if (name === "remove") this.#remove(index);
    else this.#swap(index, name === "up" ? index - 1 : index + 1);
  }

  #remove(index) {
    const layers = this.store.state.layers.toSpliced(index, 1);
    if (!layers.length) layers.push(newLayer([]));
    this.store.set({ layers, active: layers[Math.min(index, layers.length - 1)].id });
  }

  #swap(index, other) {
    const { layers } = this.store.state;
    if (other < 0 || other >= layers.length) return;
    this.store.set({ layers: layers.with(index, layers[other]).with(other, layers[index]) });
  }
}

/** Returns the longest end of a text, from the beginning of a word on, that hints begin with, and these, short ones first. */
function begun(text, hints) {
  if (/\s$/.test(text)) return ["", []];
  for (const { index } of text.matchAll(/(?<![\p{L}\p{N}'-])[\p{L}\p{N}]/gu)) {
    const end = text.slice(index).toLowerCase();
    const found = end.length < LETTERS ? [] : hints.filter((one) => one.startsWith(end) && one !== end);
    if (found.length) return [end, found.sort((one, other) => one.length - other.length)];
  }
  return ["", []];
}

const wordsOf = (text) => text.toLowerCase().match(/\p{L}+/gu) ?? [];

/** Returns a changed weight, start or end; the start stays before the end. */
function strength(layer, key, value) {
  if (key === "start") return { start: Math.min(value, layer.end) };
  if (key === "end") return { end: Math.max(value, layer.start) };
  return { [key]: value };
}
