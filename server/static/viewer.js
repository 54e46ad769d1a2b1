// The picture on its canvas: frames, zoom, pan, the before/after split, and where a light's place is on screen.

import { calm, clamp, perFrame } from './dom.js';

const MOST_ZOOM = 16;
const REVEAL_MS = 900;

export class Viewer extends EventTarget {
  size = null; // [width, height] of the photo
  zoom = 1;
  split = null; // before/after: 0..1, null without
  view = 'relit';
  #canvas;
  #pan = [0, 0];
  #frames = {}; // before, relit, depth, normals
  #revealed = 0;
  #css = [0, 0];
  #rem = 14;
  draw = perFrame(() => this.#draw());

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
    for (const bitmap of Object.values(this.#frames)) bitmap.close();
    this.#frames = {};
    this.size = null;
    this.split = null;
    this.view = 'relit';
    this.#revealed = 0;
    this.fit();
  }

  setSize(width, height) {
    this.size = [width, height];
    this.#changed();
  }

  setFrame(name, bitmap) {
    this.#frames[name]?.close();
    this.#frames[name] = bitmap;
    this.size ??= [bitmap.width, bitmap.height];
    if (name === 'relit' && !this.#revealed) this.#revealed = calm() || !this.#frames.before ? 1 : performance.now();
    this.draw();
  }

  frame(name) {
    return this.#frames[name];
  }

  /** Room around the picture when it fits: [side, top, bottom] in CSS pixels; the tools lie in the bottom one. */
  get margins() {
    return (this.#css[0] > 700 ? [2.3, 2, 6] : [0.85, 0.85, 5.3]).map((v) => v * this.#rem);
  }

  /** The picture's place on the stage, in CSS pixels. */
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

  /** From the scene (x -1..1 left to right, y up, the same unit) to the stage, and back. */
  toStage([x, y]) {
    const { x: left, y: top, w, h } = this.box;
    return [left + (w * (1 + x)) / 2, top + h / 2 - (y * w) / 2];
  }

  toScene([px, py]) {
    const { x: left, y: top, w, h } = this.box;
    return [(2 * (px - left)) / w - 1, (top + h / 2 - py) / (w / 2)];
  }

  get isFit() {
    return this.zoom === 1 && this.#pan.every((v) => v === 0);
  }

  fit() {
    this.zoom = 1;
    this.#pan = [0, 0];
    this.#changed();
  }

  /** Zooms by a factor and keeps the point of the stage where it is. */
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

  panBy(dx, dy) {
    const { w, h } = this.box;
    const limit = (length, stage) => Math.max(0, (length - stage) / 2 + 80);
    const free = this.zoom > 1.001;
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
    const context = canvas.getContext('2d');
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, ...this.#css);
    if (!this.size) return;
    const box = this.box;
    canvas.dataset.box = [box.x, box.y, box.w, box.h].map((v) => v.toFixed(2)).join(' ');
    const { before, relit } = this.#frames;
    const main = this.#frames[this.view] ?? relit ?? before;
    if (!main) return;
    context.imageSmoothingQuality = 'high';
    context.imageSmoothingEnabled = box.scale < 4 || main.width < this.size[0];
    const paint = (bitmap, alpha = 1) => {
      context.globalAlpha = alpha;
      context.drawImage(bitmap, box.x, box.y, box.w, box.h);
      context.globalAlpha = 1;
    };
    context.save();
    context.shadowColor = 'rgb(0 0 0 / 0.35)';
    context.shadowBlur = 30;
    context.shadowOffsetY = 8 * dpr;
    context.fillRect(box.x + 1, box.y + 1, box.w - 2, box.h - 2);
    context.restore();
    const dawn = this.view === 'relit' && before && this.#revealed > 1 ? (performance.now() - this.#revealed) / REVEAL_MS : 1;
    if (dawn < 1) {
      paint(before);
      paint(main, 1 - (1 - dawn) ** 3);
      this.draw();
    } else {
      this.#revealed &&= 1;
      paint(main);
    }
    if (this.split !== null && before) {
      context.save();
      context.beginPath();
      context.rect(box.x, box.y, box.w * this.split, box.h);
      context.clip();
      paint(before);
      context.restore();
    }
  }
}
