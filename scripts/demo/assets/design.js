/** Designs, the JSON of weftwork.pipelines.designs, as layers of the canvas, and layers as designs. */

export const SIDE = 512;
const PREFIX = "data:image/png;base64,";
export const COLORS = ["#dc2626", "#2563eb", "#059669", "#c2410c", "#7c3aed", "#0e7490", "#be185d", "#4d7c0f"];
const INITIAL = "#a21caf"; // of its mask
const STRENGTH = 0.8;
export const MIDDLE = [0.25, 0.25, 0.75, 0.75]; // where boxes begin
export const KINDS = ["pair", "reference", "subject"];
const UNMOVED = { x: 0, y: 0, scaleX: 1, scaleY: 1, rotation: 0 };

/** Returns width and height of the image of a design; `own` are those of the model. */
export const pixelsOf = (settings, own) => [settings.width ?? own[0], settings.height ?? own[1]];

/** Returns width and height of the canvas: its longer side has SIDE pixels, its shape is that of the image. */
export function canvasSize([width, height]) {
  const scale = SIDE / Math.max(width, height);
  return [Math.round(width * scale), Math.round(height * scale)];
}

/**
 * Returns a layer: the text, strength and region of a condition, and what is drawn on it.
 *
 * `kind` is that of the condition, one of KINDS; references and subjects have the image `photo`, a data URI.
 * `marks` are strokes in canvas pixels before `place` moves them; `image` lies below them, and `exact` says that it is
 * the sketch of a design as it was; `region` is "sketch", "everywhere", "mask" or a box in fractions; `area` are strokes
 * of the mask, and below them the mask of a design; `rest` are other keys of the condition.
 */
export function newLayer(others, parts = {}) {
  const used = new Set(others.map((one) => one.color));
  const color = COLORS.find((one) => !used.has(one)) ?? COLORS[others.length % COLORS.length];
  const id = 1 + Math.max(0, ...others.map((one) => one.id));
  const empty = { text: "", weight: 1, start: 0, end: 1, region: "sketch", visible: true, marks: [], image: null };
  Object.assign(empty, { kind: "pair", photo: null, area: { marks: [], image: null } });
  return { id, color, place: UNMOVED, rest: {}, ...empty, ...parts };
}

/** Returns what the run begins with: an image, how much of it is given up, and the part that is drawn anew. */
export function newInitial(source, parts = {}) {
  const area = { marks: [], image: null };
  return { id: "initial", color: INITIAL, place: UNMOVED, source, strength: STRENGTH, area, ...parts };
}

/** Returns whether a layer has neither strokes nor an image. */
export const isBlank = (one) => !one.photo && !one.image && !one.marks.length;

/** Returns the box of a layer, the whole canvas for other regions. */
export const boxOf = ({ region }) => (Array.isArray(region) ? region : [0, 0, 1, 1]);

/** Returns whether moving a layer changes its box alone, in which its image is shown. */
export const isBoxed = ({ kind, region }) => kind === "reference" && region !== "mask";

/** Returns where the strokes, brushed region and image of a layer were moved to. */
export const placeOf = (one) => (isBoxed(one) ? UNMOVED : one.place);

export const isUnmoved = (place) => Object.entries(UNMOVED).every(([key, value]) => place[key] === value);

/** Returns the state of a design; `adapters` are names by kind of layers, `shipped` is the model's name if it is. */
export function opened(record, { adapters, shipped }) {
  if (typeof record?.prompt !== "string" || (record.conditions && typeof record.conditions !== "object"))
    throw new Error("Design: got a file that holds none; use the JSON or an image that weftwork wrote");
  const { conditions, $schema, model, image, mask_image, strength, ...settings } = record;
  if (model && model !== shipped)
    throw new Error(`Design: got one for ${model}, which is not open; run weftwork demo --model ${model}`);
  const others = { ...conditions };
  const layers = [];
  const kept = []; // sketches of the whole image, which have no layer
  for (const [kind, adapter] of Object.entries(adapters)) {
    for (const one of others[adapter] ?? [])
      if (one.sketch || one.text || one.image) layers.push(newLayer(layers, layerParts(one, kind)));
      else kept.push(one);
    delete others[adapter];
  }
  if (!layers.length) layers.push(newLayer([]));
  const initial = image ? openedInitial(image, mask_image, strength) : null;
  return { layers, active: layers[0].id, settings, others, kept, initial };
}

function openedInitial(image, mask, strength) {
  checkInline(image, mask);
  const area = { marks: [], image: mask ? { source: mask, exact: true } : null };
  return newInitial(image, { area, strength: strength ?? STRENGTH });
}

function checkInline(...images) {
  for (const image of images)
    if (image && !image.startsWith(PREFIX))
      throw new Error(`Design: got the path ${image}, which a page cannot read; open an image that weftwork made`);
}

function layerParts(record, kind) {
  const { sketch = null, image: photo = null, text, weight, start, end, region = null, ...rest } = record;
  checkInline(sketch, photo, region === "sketch" || Array.isArray(region) ? null : region);
  const parts = { kind, photo, text: text ?? "", weight: weight ?? 1, start: start ?? 0, end: end ?? 1, rest };
  if (sketch) parts.image = { source: sketch, exact: true };
  if (Array.isArray(region) || region === "sketch") parts.region = region;
  else if (region === null) parts.region = "everywhere";
  else Object.assign(parts, { region: "mask", area: { marks: [], image: { source: region, exact: true } } });
  return parts;
}

/** Returns the design of a state; `drawings` has the sketch and the mask of a layer as data URIs, or null if empty. */
export function designOf(state, adapters, drawings) {
  const conditions = { ...state.others };
  for (const kind of KINDS) {
    const layers = state.layers.filter((one) => one.visible && one.kind === kind);
    const records = layers.flatMap((one) => recordOf(one, drawings) ?? []);
    if (kind === "pair") records.push(...state.kept);
    if (records.length) conditions[adapters[kind] ?? kind] = records; // the server refuses those without an adapter
  }
  return { ...state.settings, ...drawings.initial(state.initial), conditions };
}

function recordOf(layer, drawings) {
  const sketch = drawings.sketch(layer);
  const text = layer.text.trim();
  if (!sketch && !text && !layer.photo) return null;
  const rest = { ...layer.rest };
  if (!layer.image?.exact || layer.image.source !== sketch) delete rest.ink; // drawn here: dark on white
  const record = { ...rest, weight: layer.weight };
  if (layer.photo) record.image = layer.photo;
  if (sketch) record.sketch = sketch;
  if (text) record.text = text;
  if (Array.isArray(layer.region)) record.region = layer.region;
  else if (layer.region === "mask" && drawings.mask(layer)) record.region = drawings.mask(layer);
  else if (layer.region === "sketch" && sketch) record.region = "sketch";
  if (layer.start > 0) record.start = layer.start;
  if (layer.end < 1) record.end = layer.end;
  return record;
}
