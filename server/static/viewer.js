// The picture on its canvas: frames, zoom, pan, the before/after split, and where a light's place is on screen. A frame
// that is a canvas itself, which the GPU draws into, lies below: to copy it would cost more than to draw it.

import { calm, clamp, pen, perFrame } from './dom.js';

const MOST_ZOOM = 16;
const REVEAL_MS = 900;

/**
 * @typedef {[x: number, y: number]} Point  on the stage, in CSS pixels
 * @typedef {'relit' | 'light' | 'albedo' | 'depth' | 'normals'} View  what can be looked at
 * @typedef {ImageBitmap | HTMLCanvasElement} Picture
 * @typedef {{x: number, y: number, w: number, h: number, scale: number}} Box
 */

/** Tells of `move` whenever the picture's place on the stage changes. */
export class Viewer extends EventTarget {
  /** @type {[width: number, height: number] | null} of the photo */
  size = null;
  zoom = 1;
  /** @type {number | null} before/after: 0..1, null without */
  split = null;
  /** @type {View} */
  view = 'relit';
  #canvas;
  /** @type {Point} */
  #pan = [0, 0];
  /** @type {Partial<Record<View | 'before', Picture>>} */
  #frames = {};
  /** @type {HTMLCanvasElement | null} the frame that lies below */
  #below = null;
  #revealed = 0;
  /** @type {[width: number, height: number]} */
  #css = [0, 0];
  #rem = 14;
  draw = perFrame(() => this.#draw());

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    super();
    this.#canvas = canvas;
    new ResizeObserver(() => {
      this.#css = [canvas.clientWidth, canvas.clientHeight];
      this.#rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
      this.#changed();
    }).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', this.draw);
  }

  /** Begins with another photo, or none: every frame of the last one is freed. */
  clear() {
    for (const picture of Object.values(this.#frames)) release(picture);
    this.#frames = {};
    this.#place(null);
    this.size = null;
    this.split = null;
    this.view = 'relit';
    this.#revealed = 0;
    this.fit();
  }

  /** @type {(width: number, height: number) => void} */
  setSize(width, height) {
    this.size = [width, height];
    this.#changed();
  }

  /** @type {(name: View | 'before', picture: Picture) => void} */
  setFrame(name, picture) {
    if (this.#frames[name] !== picture) release(this.#frames[name]);
    this.#frames[name] = picture;
    this.size ??= [picture.width, picture.height];
    if (name === 'relit' && !this.#revealed) this.#revealed = calm() || !this.#frames.before ? 1 : performance.now();
    this.draw();
  }

  /** @param {View | 'before'} name */
  frame(name) {
    return this.#frames[name];
  }

  /** Room around the picture when it fits: [side, top, bottom] in CSS pixels; the tools lie in the bottom one. */
  get margins() {
    return (this.#css[0] > 700 ? [2.3, 2, 6] : [0.85, 0.85, 5.3]).map((v) => v * this.#rem);
  }

  /**
   * The picture's place on the stage, in CSS pixels.
   * @returns {Box}
   */
  get box() {
    const [stageWidth, stageHeight] = this.#css;
    const [width, height] = this.size ?? [4, 3];
    const [side, top, bottom] = this.margins;
    const fit = Math.min((stageWidth - 2 * side) / width, (stageHeight - top - bottom) / height);
    const scale = Math.max(0.001, Math.min(fit, 8)) * this.zoom;
    const w = width * scale;
    const h = height * scale;
    const middle = [stageWidth / 2, top + (stageHeight - top - bottom) / 2];
    return { x: middle[0] + this.#pan[0] - w / 2, y: middle[1] + this.#pan[1] - h / 2, w, h, scale };
  }

  get stage() {
    return this.#css;
  }

  /** How large a frame the screen can show, in pixels of its longer side. */
  get sharpSide() {
    const { w, h } = this.box;
    return Math.min(Math.max(...(this.size ?? [1024])), Math.ceil(Math.max(w, h) * (devicePixelRatio || 1)));
  }

  /**
   * From the scene (x -1..1 from left to right, y up, the same unit) to the stage.
   * @param {number[]} place
   * @returns {Point}
   */
  toStage([x, y]) {
    const { x: left, y: top, w, h } = this.box;
    return [left + (w * (1 + x)) / 2, top + h / 2 - (y * w) / 2];
  }

  /**
   * And back.
   * @param {Point} at
   * @returns {[x: number, y: number]}
   */
  toScene([px, py]) {
    const { x: left, y: top, w, h } = this.box;
    return [(2 * (px - left)) / w - 1, (top + h / 2 - py) / (w / 2)];
  }

  /** Does the view follow the lights? */
  get isLit() {
    return this.view === 'relit' || this.view === 'light';
  }

  get isFit() {
    return this.zoom === 1 && this.#pan.every((v) => v === 0);
  }

  fit() {
    this.zoom = 1;
    this.#pan = [0, 0];
    this.#changed();
  }

  /**
   * Zooms by a factor and keeps the point of the stage where it is.
   * @param {number} factor
   * @param {Point} at
   */
  zoomBy(factor, at = [this.#css[0] / 2, this.#css[1] / 2]) {
    const before = this.box;
    this.zoom = clamp(this.zoom * factor, 1, MOST_ZOOM);
    const after = this.box;
    const real = after.scale / before.scale;
    this.#pan = [
      this.#pan[0] + at[0] - (after.x + (at[0] - before.x) * real),
      this.#pan[1] + at[1] - (after.y + (at[1] - before.y) * real),
    ];
    this.panBy(0, 0);
  }

  /** @type {(dx: number, dy: number) => void} */
  panBy(dx, dy) {
    const { w, h } = this.box;
    /** @type {(length: number, stage: number) => number} */
    const limit = (length, stage) => Math.max(0, (length - stage) / 2 + 80);
    const free = this.zoom > 1.001;
    /** @type {(v: number, length: number, stage: number) => number} */
    const clip = (v, length, stage) => (free ? clamp(v, -limit(length, stage), limit(length, stage)) : 0);
    this.#pan = [clip(this.#pan[0] + dx, w, this.#css[0]), clip(this.#pan[1] + dy, h, this.#css[1])];
    this.#changed();
  }

  #changed() {
    this.draw();
    this.dispatchEvent(new Event('move'));
  }

  #draw() {
    const canvas = this.#canvas;
    const dpr = devicePixelRatio || 1;
    const [width, height] = this.#css.map((v) => Math.round(v * dpr));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = pen(canvas);
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, ...this.#css);
    if (!this.size) return;
    const box = this.box;
    canvas.dataset.box = [box.x, box.y, box.w, box.h].map((v) => v.toFixed(2)).join(' ');
    const { before, relit } = this.#frames;
    const main = this.#frames[this.view] ?? relit ?? before;
    if (!main) return;
    const smooth = box.scale < 4 || main.width < this.size[0];
    context.imageSmoothingQuality = 'high';
    context.imageSmoothingEnabled = smooth;
    this.#place(main, smooth);
    if (!this.#below) cast(context, box, dpr);
    this.#reveal(context, box, main);
    if (this.split !== null && before) {
      context.save();
      context.beginPath();
      context.rect(box.x, box.y, box.w * this.split, box.h);
      context.clip();
      paint(context, before, box);
      context.restore();
    }
  }

  /** @type {(main: Picture | null, smooth?: boolean) => void} */
  #place(main, smooth = true) {
    const below = main instanceof HTMLCanvasElement ? main : null;
    if (this.#below && this.#below !== below) this.#below.hidden = true;
    this.#below = below;
    if (!below) return;
    const { x, y, w, h } = this.box;
    below.hidden = false;
    Object.assign(below.style, {
      width: `${w}px`, height: `${h}px`, transform: `translate(${x}px, ${y}px)`,
      imageRendering: smooth ? 'auto' : 'pixelated',
    });
  }

  /**
   * Paints the frame; the first relit one comes out of the photo as it was.
   * @type {(context: CanvasRenderingContext2D, box: Box, main: Picture) => void}
   */
  #reveal(context, box, main) {
    const { before } = this.#frames;
    const since = performance.now() - this.#revealed;
    if (this.view === 'relit' && before && this.#revealed > 1 && since < REVEAL_MS) {
      const left = (1 - since / REVEAL_MS) ** 3;
      if (!this.#below) paint(context, main, box);
      paint(context, before, box, left);
      this.draw();
    } else {
      this.#revealed &&= 1;
      if (!this.#below) paint(context, main, box);
    }
  }
}

/** @param {Picture | undefined} picture */
function release(picture) {
  if (picture instanceof ImageBitmap) picture.close();
}

/** @type {(context: CanvasRenderingContext2D, picture: Picture, box: Box, alpha?: number) => void} */
function paint(context, picture, box, alpha = 1) {
  context.globalAlpha = alpha;
  context.drawImage(picture, box.x, box.y, box.w, box.h);
  context.globalAlpha = 1;
}

/**
 * The shadow of the picture on the stage.
 * @type {(context: CanvasRenderingContext2D, box: Box, dpr: number) => void}
 */
function cast(context, box, dpr) {
  context.save();
  context.shadowColor = 'rgb(0 0 0 / 0.35)';
  context.shadowBlur = 30;
  context.shadowOffsetY = 8 * dpr;
  context.fillRect(box.x + 1, box.y + 1, box.w - 2, box.h - 2);
  context.restore();
}
