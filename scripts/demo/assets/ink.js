/** Images as ink: black with an alpha of 255 − grey, so that a grey sketch on white is kept exactly. */

const DARK = 128;

const loaded = new Map();

export function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

/** Returns what `convert` makes of an image once it is loaded, else null; then `ready` is called. */
function made(key, source, convert, ready) {
  if (!loaded.has(key)) {
    loaded.set(key, null);
    const image = new Image();
    image.onload = () => {
      loaded.set(key, convert(image));
      ready();
    };
    image.src = source;
  }
  return loaded.get(key);
}

/** Returns the ink of an image, or of a mask what is white, once it is loaded, else null; then `ready` is called. */
export function inkOf(source, ready, mask = false) {
  return made(`${mask} ${source}`, source, (image) => toInk(image, mask), ready);
}

/** Returns an image once it is loaded, else null; then `ready` is called. */
export function bitmapOf(source, ready) {
  return made(source, source, (image) => image, ready);
}

function toInk(image, mask = false) {
  const canvas = newCanvas(image.width, image.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const grey = (i) => Math.round(0.299 * pixels.data[i] + 0.587 * pixels.data[i + 1] + 0.114 * pixels.data[i + 2]);
  let sum = 0;
  for (let i = 0; i < pixels.data.length; i += 4) sum += grey(i);
  const light = mask || sum / (pixels.data.length / 4) < DARK; // light strokes on a dark ground
  for (let i = 0; i < pixels.data.length; i += 4)
    pixels.data.set([0, 0, 0, light ? grey(i) : 255 - grey(i)], i);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Returns ink in a color. */
export function tinted(ink, color) {
  const canvas = newCanvas(ink.width, ink.height);
  const context = canvas.getContext("2d");
  context.drawImage(ink, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = color;
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Returns ink as black on white, or as a mask, white on black, in a data URI; null if there is none. */
export function inkImage(canvas, mask = false) {
  const context = canvas.getContext("2d");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  let most = 0;
  for (let i = 0; i < pixels.data.length; i += 4) {
    const alpha = pixels.data[i + 3];
    const tone = mask ? alpha : 255 - alpha;
    most = Math.max(most, alpha);
    pixels.data.set([tone, tone, tone, 255], i);
  }
  context.putImageData(pixels, 0, 0);
  return most < 16 ? null : canvas.toDataURL("image/png");
}

/** Returns a drawing as black on white in a data URI; null if it has one tone. */
export function sketchOf(canvas) {
  return inkImage(toInk(canvas));
}

/** Returns an image as a canvas on white that fits into a size. */
export function scaledTo(image, size) {
  const { width, height } = fitted(image, size);
  const canvas = newCanvas(Math.round(width), Math.round(height));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Returns place and scale that fit an image into a canvas with its shape kept. */
export function fitted(image, [width, height]) {
  const scale = Math.min(width / image.width, height / image.height);
  const size = { width: image.width * scale, height: image.height * scale };
  return { x: (width - size.width) / 2, y: (height - size.height) / 2, ...size };
}

/** Returns an image as a canvas of a size, which it covers; what is outside is cut off. */
export function covered(image, [width, height]) {
  const scale = Math.max(width / image.width, height / image.height);
  const [wide, high] = [image.width * scale, image.height * scale];
  const canvas = newCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (width - wide) / 2, (height - high) / 2, wide, high);
  return canvas;
}
