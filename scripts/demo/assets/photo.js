/** An image that was opened: what it is used as. */

const GROUND = 16; // tones around the ground of a drawing, and below around its strokes
const STROKES = 48;
const MIDDLE = 0.1; // share of other tones up to which an image is a drawing

/** Returns whether an image has two tones, those of strokes and of their ground. */
export function isDrawing(pixels) {
  const counts = new Array(256).fill(0);
  for (let i = 0; i < pixels.length; i += 4)
    counts[Math.round(0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2])] += 1;
  const total = pixels.length / 4;
  const ground = counts.indexOf(Math.max(...counts));
  const strokes = ground > 127 ? counts.findIndex(Boolean) : counts.findLastIndex(Boolean);
  const between = counts.filter((_, tone) => Math.abs(tone - ground) > GROUND && Math.abs(tone - strokes) > STROKES);
  return between.reduce((sum, one) => sum + one, 0) <= MIDDLE * total;
}

export class PhotoChooser {
  #photo = null;
  #image = null;

  /**
   * @param report is called with errors.
   * @param uses by name what is done with an image: a canvas of the page's size, and the image itself.
   */
  constructor(element, report, uses) {
    this.element = element;
    for (const button of element.querySelectorAll("[data-photo]"))
      button.onclick = async () => {
        element.hidden = true;
        try {
          await uses[button.dataset.photo]?.(this.#photo, this.#image);
        } catch (error) {
          report(error);
        }
      };
  }

  /** @param use that is offered first. */
  show(photo, image, use) {
    [this.#photo, this.#image] = [photo, image];
    this.element.hidden = false;
    this.element.querySelector("img").src = photo.toDataURL("image/png");
    this.element.querySelector(`[data-photo=${use}]`).focus();
  }
}
