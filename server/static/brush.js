// A mask while it is painted: strokes on a canvas of its own, and what takes them back. White is inside, black outside.

/**
 * @typedef {object} Tip  what a stroke is made with
 * @property {number} radius  in pixels of the mask
 * @property {number} softness  0..1: the outer share of the radius over which it fades
 * @property {boolean} erase
 * @typedef {{x: number, y: number, w: number, h: number}} Rect  in pixels of the mask
 * @typedef {Rect & {values: Uint8Array}} Patch  a part of the mask as it was, or will be again
 * @typedef {[x: number, y: number]} Place  in pixels of the mask, from its top left corner
 */

const LONG = 1024; // pixels of a mask's longer side
const SHORT = 64; // of its shorter one at least: rounded to pixels, its shape is the photo's within 1 %
const SPACING = 0.2; // radii between two dabs
const MOST_KEPT = 24e6; // bytes of what can be taken back
const FADE = 8; // steps of a soft edge

/** @type {(width: number, height: number) => HTMLCanvasElement} */
function sheet(width, height) {
  const canvas = document.createElement('canvas');
  return Object.assign(canvas, { width, height });
}

/** @param {HTMLCanvasElement} canvas */
function reader(canvas) {
  const context = canvas.getContext('2d', { willReadFrequently: true });
  if (!context) throw new Error('This browser cannot draw on a canvas.');
  return context;
}

export class Brush {
  #canvas;
  #context;
  #before; // the mask as it was when the stroke began
  /** @type {Tip} */
  #tip = { radius: 0, softness: 0, erase: false };
  #dab = sheet(1, 1);
  /** Where the last dab is, while a stroke goes on. @type {Place | null} */
  #last = null;
  #pressure = 1;
  #left = 0; // to the next dab
  /** @type {Rect | null} of the stroke */
  #touched = null;
  /** @type {Rect | null} since it was last asked for */
  #news = null;
  #blank = true;
  /** @type {Patch[]} */
  #done = [];
  /** @type {Patch[]} */
  #undone = [];

  /**
   * An empty mask for a photo of this size.
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    const [long, short] = [Math.max(width, height), Math.min(width, height)];
    const share = Math.min(1, Math.max(LONG / long, SHORT / short));
    this.#canvas = sheet(Math.max(1, Math.round(width * share)), Math.max(1, Math.round(height * share)));
    this.#context = reader(this.#canvas);
    this.#before = reader(sheet(this.#canvas.width, this.#canvas.height));
    this.load(null);
  }

  /** The mask, grey and opaque. */
  get canvas() {
    return this.#canvas;
  }

  get isPainting() {
    return this.#last !== null;
  }

  /** Has nobody painted yet, and was there nothing? */
  get isBlank() {
    return this.#blank;
  }

  /** Was anything done since it was loaded? */
  get isTouched() {
    return this.canUndo || this.canRedo;
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /**
   * Begins with a mask that is there already, or with nothing.
   * @param {CanvasImageSource | null} picture
   */
  load(picture) {
    const { width, height } = this.#canvas;
    this.#context.globalCompositeOperation = 'source-over';
    this.#context.fillStyle = '#000';
    this.#context.fillRect(0, 0, width, height);
    if (picture) this.#context.drawImage(picture, 0, 0, width, height);
    this.#done = [];
    this.#undone = [];
    this.#blank = !picture;
    this.#news = this.#whole;
  }

  /** @returns {Rect} */
  get #whole() {
    return { x: 0, y: 0, w: this.#canvas.width, h: this.#canvas.height };
  }

  /**
   * A stroke begins with a dab. Where it goes twice it changes nothing: a soft edge stays soft.
   * @param {Tip} tip
   * @param {Place} at
   * @param {number} pressure  0..1, a share of the radius
   */
  begin(tip, at, pressure = 1) {
    const { radius, softness, erase } = this.#tip;
    if (tip.radius !== radius || tip.softness !== softness || tip.erase !== erase) this.#dab = dabOf(tip);
    this.#tip = { ...tip };
    this.#keep();
    this.#touched = null;
    this.#stamp(at, pressure);
    this.#last = at;
    this.#pressure = pressure;
    this.#left = 0;
  }

  /**
   * The stroke goes on in a straight line.
   * @param {Place} at
   * @param {number} pressure
   */
  lineTo(at, pressure = 1) {
    const from = this.#last;
    if (!from) return;
    const length = Math.hypot(at[0] - from[0], at[1] - from[1]);
    const step = Math.max(0.5, this.#tip.radius * SPACING * Math.min(pressure, this.#pressure));
    let gone = step - this.#left;
    for (; gone <= length; gone += step) {
      const share = gone / length;
      this.#stamp(
        [from[0] + (at[0] - from[0]) * share, from[1] + (at[1] - from[1]) * share],
        this.#pressure + (pressure - this.#pressure) * share,
      );
    }
    this.#left = length - (gone - step);
    this.#last = at;
    this.#pressure = pressure;
  }

  end() {
    if (!this.#last) return;
    this.#last = null;
    if (this.#touched) this.#remember(this.#touched);
  }

  /** Takes back the stroke that goes on, as if it had not begun. */
  cancel() {
    if (!this.#last) return;
    this.#last = null;
    this.#context.globalCompositeOperation = 'copy';
    this.#context.drawImage(this.#before.canvas, 0, 0);
    this.#tell(this.#whole);
  }

  /** @param {boolean} inside  everything is inside, or nothing */
  fill(inside) {
    this.#over('source-over', inside ? '#fff' : '#000');
  }

  /** What was inside is outside. */
  invert() {
    this.#over('difference', '#fff');
  }

  /** @type {(how: GlobalCompositeOperation, colour: string) => void} */
  #over(how, colour) {
    this.end();
    this.#keep();
    this.#context.globalCompositeOperation = how;
    this.#context.fillStyle = colour;
    this.#context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#remember(this.#whole);
    this.#tell(this.#whole);
  }

  undo() {
    this.#swap(this.#done, this.#undone);
  }

  redo() {
    this.#swap(this.#undone, this.#done);
  }

  /** The part that changed since this was last asked. @returns {Rect | null} */
  takeNews() {
    const news = this.#news;
    this.#news = null;
    return news;
  }

  /**
   * How far inside the pixels of a part are, row by row.
   * @param {Rect} rect
   */
  values(rect) {
    return read(this.#context, rect);
  }

  /** As a PNG. @returns {Promise<Blob>} */
  async png() {
    return new Promise((resolve, reject) => {
      this.#canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The mask is too large.'))), 'image/png');
    });
  }

  #keep() {
    this.#before.globalCompositeOperation = 'copy';
    this.#before.drawImage(this.#canvas, 0, 0);
  }

  /** @type {(at: Place, pressure: number) => void} */
  #stamp([x, y], pressure) {
    const { erase, radius } = this.#tip;
    const half = (this.#dab.width / 2) * Math.max(pressure, 0.5 / radius);
    this.#context.globalCompositeOperation = erase ? 'darken' : 'lighten';
    this.#context.drawImage(this.#dab, x - half, y - half, 2 * half, 2 * half);
    const [left, top] = [Math.max(0, Math.floor(x - half)), Math.max(0, Math.floor(y - half))];
    const right = Math.min(this.#canvas.width, Math.ceil(x + half));
    const bottom = Math.min(this.#canvas.height, Math.ceil(y + half));
    if (right > left && bottom > top) this.#tell({ x: left, y: top, w: right - left, h: bottom - top });
  }

  /** @param {Rect} rect */
  #tell(rect) {
    this.#touched = around(this.#touched, rect);
    this.#news = around(this.#news, rect);
  }

  /**
   * What stood in a part before the stroke can be had again.
   * @param {Rect} rect
   */
  #remember(rect) {
    this.#blank = false;
    this.#undone = [];
    this.#done.push({ ...rect, values: read(this.#before, rect) });
    let kept = this.#done.reduce((sum, { values }) => sum + values.length, 0);
    while (kept > MOST_KEPT) kept -= this.#done.shift()?.values.length ?? kept;
  }

  /** @type {(from: Patch[], to: Patch[]) => void} */
  #swap(from, to) {
    this.end();
    const patch = from.pop();
    if (!patch) return;
    to.push({ ...patch, values: read(this.#context, patch) });
    const image = this.#context.createImageData(patch.w, patch.h);
    for (let index = 0, at = 0; index < patch.values.length; index += 1) {
      const value = patch.values[index];
      image.data[at++] = value;
      image.data[at++] = value;
      image.data[at++] = value;
      image.data[at++] = 255;
    }
    this.#context.putImageData(image, patch.x, patch.y);
    this.#tell(patch);
  }
}

/** @type {(context: CanvasRenderingContext2D, rect: Rect) => Uint8Array<ArrayBuffer>} */
function read(context, { x, y, w, h }) {
  const { data } = context.getImageData(x, y, w, h);
  const values = new Uint8Array(w * h);
  for (let index = 0; index < values.length; index += 1) values[index] = data[4 * index];
  return values;
}

/**
 * One dab, opaque: the lighter of it and the mask is the mask with it; where it erases, the darker.
 * @param {Tip} tip
 */
function dabOf({ radius, softness, erase }) {
  const half = Math.ceil(radius) + 1;
  const canvas = sheet(2 * half, 2 * half);
  const context = reader(canvas);
  const inner = Math.max(0, Math.min(radius - 1, radius * (1 - softness)));
  const fade = context.createRadialGradient(half, half, inner, half, half, Math.max(radius, inner + 0.5));
  for (let step = 0; step <= FADE; step += 1) {
    const t = step / FADE;
    const inside = 1 - t * t * (3 - 2 * t);
    const grey = Math.round(255 * (erase ? 1 - inside : inside));
    fade.addColorStop(t, `rgb(${grey} ${grey} ${grey})`);
  }
  context.fillStyle = fade;
  context.fillRect(0, 0, 2 * half, 2 * half);
  return canvas;
}

/** @type {(a: Rect | null, b: Rect) => Rect} */
function around(a, b) {
  if (!a) return { ...b };
  const [x, y] = [Math.min(a.x, b.x), Math.min(a.y, b.y)];
  return { x, y, w: Math.max(a.x + a.w, b.x + b.w) - x, h: Math.max(a.y + a.h, b.y + b.h) - y };
}
