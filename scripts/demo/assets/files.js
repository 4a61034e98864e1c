/** Files that are dropped on the page: designs as JSON or in a PNG's text chunk, and images as sketches. */

const SIGNATURE = "89504e470d0a1a0a";
const CHUNKS = ["weftwork", "weft"]; // the second is of earlier versions

/** Returns `{design}` or `{image}`, a bitmap. */
export async function readFile(file) {
  if (file.type === "application/json" || file.name.endsWith(".json")) return { design: parsed(await file.text()) };
  const text = chunkOf(await file.arrayBuffer());
  if (text !== null) {
    const record = parsed(text);
    return { design: { ...record.design, seed: record.seed ?? record.design?.seed } };
  }
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("Sketch: got a file that is not an image; use PNG, JPEG or WebP");
  });
  return { image: bitmap };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("Design: got a file that is not JSON; choose another one");
  }
}

/** Returns the text chunk with the design of a PNG; null for other files. */
function chunkOf(buffer) {
  const bytes = new Uint8Array(buffer);
  const hex = [...bytes.subarray(0, 8)].map((one) => one.toString(16).padStart(2, "0")).join("");
  if (hex !== SIGNATURE) return null;
  const view = new DataView(buffer);
  const latin = new TextDecoder("latin1");
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    if (latin.decode(bytes.subarray(at + 4, at + 8)) !== "tEXt") continue;
    const [key, text] = split(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
    if (CHUNKS.includes(latin.decode(key))) return latin.decode(text);
  }
  return null;
}

function split(bytes) {
  const end = bytes.indexOf(0);
  return [bytes.subarray(0, end), bytes.subarray(end + 1)];
}

/** Returns the address of a file that the demo serves. */
export function served(path) {
  const { root, api_prefix } = window.gradio_config;
  return `${root}${api_prefix}/file=${path}`;
}
