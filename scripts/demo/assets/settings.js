/** Prompt and settings of the run: inputs for keys of the design, and shapes of the image. */

const SHAPES = { "1:1": [1, 1], "3:4": [3, 4], "2:3": [2, 3], "4:3": [4, 3], "3:2": [3, 2] };
const MULTIPLE = 8;
const ICON = 16;

export class Settings {
  /**
   * @param own width and height of the model's images.
   * @param samplers that the model can use.
   */
  constructor(root, store, own, samplers) {
    Object.assign(this, { root, store, own });
    this.inputs = [...root.querySelectorAll("[data-setting]")];
    for (const input of this.inputs) input.oninput = () => this.#take(input);
    ["width", "height"].forEach((side, index) => (this.#input(side).placeholder = own[index]));
    root.querySelector(".sampler").hidden = !samplers.length;
    this.#input("sampler").append(...samplers.map((name) => new Option(name)));
    root.querySelector(".shapes").append(...Object.keys(SHAPES).map((name) => this.#newShape(name)));
  }

  #input(key) {
    return this.inputs.find((one) => one.dataset.setting === key);
  }

  #take(input) {
    const key = input.dataset.setting;
    const { [key]: _, ...others } = this.store.state.settings;
    const value = input.type === "number" ? input.valueAsNumber : input.value;
    const given = key === "prompt" || (value !== "" && !Number.isNaN(value));
    this.store.set({ settings: given ? { ...others, [key]: value } : others }, key);
  }

  #newShape(name) {
    const button = document.createElement("button");
    const [width, height] = SHAPES[name];
    const scale = ICON / Math.max(width, height);
    button.innerHTML = `<i style="width: ${width * scale}px; height: ${height * scale}px"></i><span>${name}</span>`;
    button.dataset.shape = name;
    button.onclick = () => {
      const [wide, high] = this.#size(name);
      this.store.set({ settings: { ...this.store.state.settings, width: wide, height: high } });
    };
    return button;
  }

  /** Returns width and height of a shape, with about as many pixels as the model's images. */
  #size(name) {
    const [width, height] = SHAPES[name];
    const scale = Math.sqrt((this.own[0] * this.own[1]) / (width * height)) / MULTIPLE;
    return [width, height].map((side) => MULTIPLE * Math.round(side * scale));
  }

  draw() {
    const { settings } = this.store.state;
    for (const input of this.inputs) {
      const value = String(settings[input.dataset.setting] ?? "");
      if (input.value !== value && input !== document.activeElement) input.value = value;
    }
    const [width, height] = [settings.width ?? this.own[0], settings.height ?? this.own[1]];
    for (const button of this.root.querySelectorAll("[data-shape]"))
      button.ariaPressed = String(this.#size(button.dataset.shape)) === String([width, height]);
  }
}
