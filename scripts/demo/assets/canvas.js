/** The page's canvas: one design with its layers, from which the value of the component is made. */

import { Designers } from "./designers.js";
import { designOf, isBlank, KINDS, MIDDLE, opened, SIDE } from "./design.js";
import { readFile } from "./files.js";
import { drawThumbnails, History } from "./history.js";
import { InitialFields } from "./initial.js";
import { covered, scaledTo, sketchOf } from "./ink.js";
import { Panel } from "./panel.js";
import { Paper } from "./paper.js";
import { isDrawing, PhotoChooser } from "./photo.js";
import { Settings } from "./settings.js";
import { Shelf } from "./shelf.js";
import { Store } from "./store.js";
import { StyleFields } from "./styles.js";
import { Viewer } from "./viewer.js";

const TOOLS = { b: "draw", e: "erase", v: "move", r: "box", m: "region", i: "mask" };
const PAINTS = { draw: "marks", region: "area", mask: "mask" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const OPACITY = 0.5; // of a new background
const FAR = 10; // pixels that arrow keys move with Shift
const ZOOM = 1.25;
const PAN = 40; // pixels that arrow keys move the view
const IMAGES = 48; // that are kept
const UNKEPT =
  "The browser's storage is full or blocked: a reload loses the last changes. Save an image (PNG), which holds its design.";

/** @param submit generates an image. */
export async function mount(element, props, server, submit) {
  const root = element.querySelector(".canvas-page");
  const name = `weftwork canvas of ${props.model}`;
  const shelves = { state: new Shelf(name, 1), images: new Shelf(`${name} images`, IMAGES) };
  const [saved] = await shelves.state.all();
  const page = new CanvasPage(root, props, server, submit, shelves, saved);
  root.design = () => page.design(); // for other scripts
  root.started = () => page.viewer.hide();
  root.finished = (images, maps, mapped) => page.finished(images, maps, mapped);
}

class CanvasPage {
  aside = null; // a design that is generated beside the canvas

  constructor(root, props, server, submit, shelves, saved) {
    Object.assign(this, { root, props, server, submit });
    const { adapters, size } = props;
    const kept = (done) => this.#reportKept(done);
    this.store = new Store(saved ?? opened(props.first, props), shelves.state, kept);
    this.paper = new Paper(this.find(".paper"), this.store, size, () => this.publish(), server.region);
    this.tools = this.paper.tools;
    this.panel = new Panel(this.find(".layers"), this.store, this.tools, props, () => this.choose("region"));
    this.designers = new Designers(this.find(".designers"), this.store, props.designers);
    this.settings = new Settings(root, this.store, size, props.samplers);
    this.photo = new PhotoChooser(this.find(".photo"), ({ message }) => this.report(message, true), {
      initial: (photo, image) => this.initial.set(covered(image, this.paper.pixels).toDataURL("image/png")),
      lines: async (photo) => this.#addSketch(await server.lines(photo.toDataURL("image/png"))),
      background: (photo) => this.store.set({ background: { source: photo.toDataURL("image/webp"), opacity: OPACITY } }),
      sketch: (photo) => this.#addImage(photo),
      reference: (photo, image) => {
        const read = covered(image, [SIDE, SIDE]); // the middle square
        this.store.insert({ kind: "reference", photo: read.toDataURL("image/png"), region: MIDDLE });
        this.choose("move");
      },
      subject: (photo) => {
        this.store.insert({ kind: "subject", photo: photo.toDataURL("image/png"), region: "everywhere" });
        this.#focusWords();
      },
    });
    for (const kind of KINDS.slice(1)) this.find(`[data-photo=${kind}]`).hidden = !adapters[kind];
    this.initial = new InitialFields(this.find(".initial"), this.store, (tool) => this.choose(tool));
    this.styles = new StyleFields(this.find(".styles"), this.store, props.styles);
    this.history = new History(shelves.images, kept);
    this.history.listen(() => this.drawHistory());
    this.store.listen(() => this.show());
    this.#connectTools();
    this.find("[data-setting=prompt]").onkeydown = (event) => {
      if (event.key === "Enter") this.submit();
    };
    this.#connectFiles();
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("keyup", ({ key }) => key === " " && (this.paper.view.held = false));
    this.choose("draw");
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  /** Where results are shown, a component of its own beside the canvas. */
  get viewer() {
    this.shown ??= new Viewer(document.querySelector("#viewer .viewer"), this);
    return this.shown;
  }

  drawHistory() {
    const { items } = this.history;
    this.find(".history").hidden = !items.length;
    const choose = (item) => this.viewer.choose(item);
    drawThumbnails(this.find(".history ol"), items, { pressed: [this.shown?.item], name: "Image", choose });
  }

  /**
   * Shows the images of a run; those that were shown before stay where there are no new ones.
   *
   * @param mapped the adapter, place and text of each map's condition.
   */
  async finished(images, maps, mapped) {
    this.aside = null;
    this.publish();
    const shown = maps.map(({ image }, index) => ({ address: image.url, ...mapped[index] }));
    const each = maps.length / images.length; // those of the first image come first
    const withMaps = images.map(({ image }, index) => ({
      address: image.url,
      maps: shown.slice(index * each, (index + 1) * each),
    }));
    const added = await this.history.add(withMaps);
    this.viewer.showBatch(added);
    this.root.dataset.runs = 1 + Number(this.root.dataset.runs ?? 0);
  }

  /** The seed of the next images; null draws one for each run. */
  get seed() {
    return this.store.state.settings.seed ?? null;
  }

  set seed(value) {
    const { seed: _, ...others } = this.store.state.settings;
    this.store.set({ settings: value === null ? others : { ...others, seed: value } });
  }

  /** Begins the next images with one, a bitmap. */
  begin(image) {
    const { width, height } = image;
    const { settings } = this.store.state;
    const same = String([width, height]) === String(this.paper.pixels);
    const source = covered(image, [width, height]).toDataURL("image/png"); // without the design inside of the file
    this.initial.set(source, same ? settings : { ...settings, width, height });
  }

  /** Generates a design that stays beside the canvas. */
  generate(design) {
    this.aside = design;
    this.publish();
    this.submit();
  }

  show() {
    const { layers, background, initial } = this.store.state;
    const focused = this.root.contains(document.activeElement) ? document.activeElement : null;
    this.paper.draw();
    this.panel.draw();
    this.styles.draw();
    this.initial.draw(this.tools);
    this.shown?.draw();
    this.find("[data-do=undo]").disabled = !this.store.canUndo;
    this.find("[data-do=redo]").disabled = !this.store.canRedo;
    const [width, height] = this.paper.size;
    this.find(".paper").style.aspectRatio = `${width} / ${height}`;
    this.find(".paper").classList.toggle("empty", !background && !initial && layers.every(isBlank));
    this.find(".background").hidden = !background;
    if (background) this.find(".background input").value = background.opacity;
    this.settings.draw();
    this.designers.draw();
    this.publish();
    if (focused) this.#keepFocus(focused);
  }

  /** Leaves the focus to the element that had it, or to the canvas where that is hidden, disabled or removed. */
  #keepFocus(element) {
    const target = element.checkVisibility() && !element.disabled ? element : this.find(".paper");
    if (document.activeElement !== target) target.focus({ preventScroll: true });
  }

  /** Makes the design the component's value, which is sent when an image is generated. */
  publish() {
    this.props.value = this.aside ?? this.design();
  }

  design() {
    return designOf(this.store.state, this.props.adapters, this.paper.drawings);
  }

  report(text, error = false) {
    this.find(".notes").textContent = text;
    this.find(".notes").classList.toggle("error", error);
  }

  #reportKept(done) {
    if (!done) this.report(UNKEPT, true);
    else if (this.find(".notes").textContent === UNKEPT) this.report("");
  }

  choose(tool) {
    this.tools.tool = tool;
    this.tools.paints = PAINTS[tool] ?? this.tools.paints; // the eraser acts on what was painted last
    this.resize(this.tools.widths[this.tools.paints]);
    this.find(".paper").dataset.tool = tool;
    for (const button of this.root.querySelectorAll("[data-tool]"))
      if (button.tagName === "BUTTON") button.ariaPressed = button.dataset.tool === tool;
    this.show();
  }

  #focusWords() {
    this.find(".layer[aria-current=true] .words").focus();
  }

  resize(width) {
    const input = this.find("[data-size]");
    input.value = width;
    this.tools.widths[this.tools.paints] = Number(input.value);
    this.find(".size output").value = input.value;
  }

  #connectTools() {
    for (const button of this.root.querySelectorAll("button[data-tool]"))
      button.onclick = () => this.choose(button.dataset.tool);
    this.find("[data-size]").oninput = (event) => this.resize(event.target.value);
    const actions = {
      undo: () => this.store.undo(),
      redo: () => this.store.redo(),
      add: () => {
        this.store.insert();
        this.#focusWords();
      },
      open: () => this.find("input[type=file]").click(),
      clear: () => this.store.set({ background: null }),
    };
    for (const [name, act] of Object.entries(actions)) this.find(`[data-do=${name}]`).onclick = act;
    const { view } = this.paper;
    const zooms = { in: () => view.zoom(ZOOM), out: () => view.zoom(1 / ZOOM), fit: () => view.fit() };
    for (const [name, act] of Object.entries(zooms)) this.find(`[data-zoom=${name}]`).onclick = act;
    this.find(".background input").oninput = ({ target }) =>
      this.store.set({ background: { ...this.store.state.background, opacity: Number(target.value) } }, "background");
    this.find(".examples").hidden = !this.props.examples.length;
    for (const name of this.props.examples) {
      const button = document.createElement("button");
      button.textContent = name;
      button.ariaLabel = `Example: ${name}`;
      button.onclick = async () => this.open(await this.server.example(name));
      this.find(".examples").append(button);
    }
  }

  #connectFiles() {
    const input = this.find("input[type=file]");
    input.onchange = async () => {
      const files = [...input.files];
      input.value = ""; // the same file can be chosen again
      for (const file of files) await this.take(file);
    };
    this.root.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.root.classList.add("dropping");
    });
    this.root.addEventListener("dragleave", () => this.root.classList.remove("dropping"));
    this.root.addEventListener("drop", async (event) => {
      event.preventDefault();
      this.root.classList.remove("dropping");
      for (const file of event.dataTransfer.files) await this.take(file);
    });
  }

  /** Opens a file: a design, or an image, whose use is chosen unless a drawing can be nothing but a sketch. */
  async take(file) {
    try {
      const { design, image } = await readFile(file);
      if (design) this.open(design);
      else this.#takeImage(image);
      this.report(design ? `Opened ${file.name}.` : "");
    } catch (error) {
      this.report(error.message, true);
    }
  }

  #takeImage(image) {
    const canvas = scaledTo(image, this.paper.size);
    const { width, height } = canvas;
    const drawing = isDrawing(canvas.getContext("2d").getImageData(0, 0, width, height).data);
    const { reference, subject } = this.props.adapters;
    if (drawing && !reference && !subject) this.#addImage(canvas);
    else this.photo.show(canvas, image, drawing ? "sketch" : "lines");
  }

  /** Replaces the layers and settings by those of a design; undo brings them back. */
  open(design) {
    this.store.set(opened(design, this.props));
  }

  #addImage(canvas) {
    const source = sketchOf(canvas);
    if (!source) throw new Error("Sketch: got one tone all over; use an image of strokes on a plain ground");
    this.#addSketch(source);
  }

  #addSketch(source) {
    const image = { source, exact: false };
    const { active } = this.store;
    if (active && isBlank(active)) this.store.layer(active.id, { image, visible: true });
    else this.store.insert({ image });
  }

  #key(event) {
    const { key, target } = event;
    const chord = event.ctrlKey || event.metaKey;
    if (chord && key === "Enter") return this.submit();
    if (target.matches("input:not([type=range])")) return;
    if (target.matches(".paper") && this.#view(event)) return event.preventDefault();
    if (this.#shortcut(key, chord, event.shiftKey, target)) event.preventDefault();
  }

  /** Moves or zooms the view by a key of the canvas, and returns whether it is one for that. */
  #view({ key, altKey, ctrlKey, metaKey, shiftKey }) {
    const { view } = this.paper;
    if (key === " ") view.held = true;
    else if (altKey && ARROWS[key]) view.move(...ARROWS[key].map((way) => -way * PAN));
    else if (key.toLowerCase() === "z" && !ctrlKey && !metaKey) view.zoom(shiftKey ? 1 / ZOOM : ZOOM);
    else if (key === "0") view.fit();
    else return false;
    return true;
  }

  /** Does what a key stands for, and returns whether it stands for something. */
  #shortcut(key, chord, shift, target) {
    const lower = key.toLowerCase();
    if (chord) {
      if (lower === "z") shift ? this.store.redo() : this.store.undo();
      else if (lower === "y") this.store.redo();
      return "zy".includes(lower);
    }
    if (lower === "i" && !this.store.state.initial) return false;
    else if (TOOLS[lower]) this.choose(TOOLS[lower]);
    else if (key === "[" || key === "]") this.resize(this.tools.widths[this.tools.paints] + (key === "]" ? 1 : -1));
    else if (!target.matches(".paper")) return false;
    else if (ARROWS[key]) this.tools.nudge(...ARROWS[key].map((way) => way * (shift ? FAR : 1)));
    else if (key === "+" || key === "-") this.tools.scale(key === "+" ? 1.05 : 1 / 1.05);
    else if (key === "Delete") this.panel.act("remove");
    else return false;
    return true;
  }
}
