/** The designer of the image, whom the prompt names as "NAME style": a button with a cat for each that the model knows. */

const SAMPLES = new URL("designers.png", import.meta.url); // a cat by each designer, in the order of their names

export class Designers {
  /** @param names of designers; none hides the buttons. */
  constructor(element, store, names) {
    this.store = store;
    this.names = names.toSorted((one, other) => other.length - one.length); // "old noto" before "noto"
    element.hidden = !names.length;
    this.buttons = names.map((name, index) => {
      const button = document.createElement("button");
      button.innerHTML = "<i></i>";
      button.firstChild.style.background = `#fff url("${SAMPLES}") ${(100 * index) / (names.length - 1)}% / auto 100%`;
      button.append(name);
      button.onclick = () => this.#choose(name);
      return button;
    });
    element.append(...this.buttons);
  }

  /** The designer that the prompt names; undefined for none. */
  get #named() {
    const words = this.store.state.settings.prompt.toLowerCase();
    return this.names.find((name) => words.includes(styleOf(name)));
  }

  /** Writes a designer into the prompt in the place of another, or takes it out again. */
  #choose(name) {
    const { settings } = this.store.state;
    const named = this.#named;
    let { prompt } = settings;
    if (named === undefined) prompt = [styleOf(name), prompt].filter(Boolean).join(", ");
    else if (named !== name) prompt = prompt.replace(new RegExp(styleOf(named), "i"), styleOf(name));
    else prompt = prompt.replace(new RegExp(`${styleOf(name)},? *`, "i"), "").replace(/, *$/, "");
    this.store.set({ settings: { ...settings, prompt } });
  }

  draw() {
    const named = this.#named;
    for (const button of this.buttons) button.ariaPressed = button.textContent === named;
  }
}

const styleOf = (name) => `${name} style`;
