// Painting a mask on the stage: the brush's ring, what it has covered, its tools and its keys.

import { around, buttonAt, clamp, find, h, icon, pen, perFrame } from './dom.js';
import { radios, slider } from './controls.js';
import { say } from './notices.js';

/**
 * @typedef {import('./brush.js').Brush} Brush
 * @typedef {import('./viewer.js').Point} Point
 * @typedef {import('./gestures.js').Tool} Tool
 * @typedef {object} Act
 * @property {(resting: boolean) => void} painted  the mask is another; resting: no stroke goes on
 * @property {() => boolean} inverted  is light to go where the mask is not?
 * @property {() => void} closed
 */

const KEPT = 'relight.brush';
const SIZES = [4, 400]; // of the brush, in CSS pixels across
const GROW = 1.2;
const LEAST_PRESSURE = 0.2;
const TAKE_BACK_MS = 300; // a stroke this young, or this short in CSS pixels, was meant to be a pinch
const TAKE_BACK_PX = 16;
const STEP = 8; // of the brush that keys move, in CSS pixels
const STRIPE = 6; // CSS pixels, as the picture lies when the brush is taken
const COLOURS = [[236, 48, 255, 0.55], [12, 8, 20, 0.5]]; // of the stripes: one of them is seen on any photo
const ERASER = 32; // the bit of `buttons`: a pen that is turned round

/** @type {Record<string, Point>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** What the stage's gestures do while a mask is painted. @implements {Tool} */
export class Painting {
  /** @type {Brush | null} */
  #brush = null;
  #stage;
  #viewer;
  #act;
  #erase = false;
  #size = 60;
  #softness = 0.4;
  /** The ring's middle on the stage. @type {Point} */
  #at = [0, 0];
  /** Where the stroke began, and when. @type {Point} */
  #from = [0, 0];
  #began = 0;
  #by = ''; // type of the pointer that painted last
  #flip = 0; // 255 while the cover shows where the mask is not
  #stripe = STRIPE; // pixels of the mask
  /** @type {import('./controls.js').Control[]} */
  #controls = [];
  #cover = h('canvas', { className: 'cover', ariaHidden: 'true' });
  #ring = h('button', {
    type: 'button', className: 'ring', 'aria-label': 'Brush', 'aria-describedby': 'ring-help',
    onkeydown: (/** @type {KeyboardEvent} */ event) => this.#keyOnRing(event),
    onkeyup: (/** @type {KeyboardEvent} */ event) => { if (event.key === ' ') this.end(); },
    onfocus: () => this.#step(0, 0),
    onblur: () => this.end(),
  });
  #undo = tool('undo', 'Undo stroke', 'Undo stroke (Ctrl Z)', () => this.#edit('undo'));
  #redo = tool('redo', 'Redo stroke', 'Redo stroke (Ctrl Shift Z)', () => this.#edit('redo'));
  #seen = tool('eye', 'Show mask', 'Show mask (O)', () => this.#toggleCover(), true);
  #bar;
  #sliders = find('#brush', HTMLElement);
  #show = perFrame(() => this.#paintCover());
  #tell = perFrame(() => this.#brush?.isPainting && this.#act.painted(false));

  /**
   * @param {HTMLElement} stage
   * @param {import('./viewer.js').Viewer} viewer
   * @param {Act} act
   */
  constructor(stage, viewer, act) {
    this.#stage = stage;
    this.#viewer = viewer;
    this.#act = act;
    this.#recall();
    const mode = radios({
      legend: 'Stroke', options: { paint: 'Paint', erase: 'Erase' }, get: () => (this.#erase ? 'erase' : 'paint'),
      set: (value) => this.#setErase(value === 'erase'),
    });
    this.#bar = h(
      'div', { className: 'tools brush-tools', role: 'group', 'aria-label': 'Brush' }, mode.node,
      h('span', {}, this.#undo, this.#redo),
      h(
        'span', {}, this.#seen,
        tool('invert', 'Invert mask', 'Invert mask (I)', () => this.#edit('invert')),
        tool('bin', 'Clear mask', 'Clear mask', () => this.#edit('clear')),
      ),
      h('button', { type: 'button', className: 'primary', id: 'painted', onclick: () => this.close() }, 'Done'),
    );
    this.#controls.push(mode, ...this.#shape());
    stage.append(
      this.#cover, this.#ring, this.#bar,
      h('p', { id: 'ring-help', className: 'unseen' }, 'Arrow keys move it, with Shift farther; hold Space to paint.'),
    );
    stage.addEventListener('pointermove', (event) => this.#hover(event));
    stage.addEventListener('pointerleave', () => this.#placeRing(false));
    viewer.addEventListener('move', () => this.#place());
    // Before the page's own keys
    addEventListener('keydown', (event) => this.#key(event), { capture: true });
    this.#open(false);
  }

  get isOpen() {
    return this.#brush !== null;
  }

  /** @param {Brush} brush */
  begin(brush) {
    this.#brush = brush;
    const { width, height } = brush.canvas;
    Object.assign(this.#cover, { width, height });
    this.#flip = -1;
    this.#stripe = Math.max(1, STRIPE * this.#scale);
    const { x, y, w, h: tall } = this.#viewer.box;
    this.#at = [x + w / 2, y + tall / 2];
    this.#open(true);
    this.#place();
    this.update();
    find('.brush-tools input:checked', HTMLInputElement).focus({ preventScroll: true });
    say('Brush. Paint where the light goes; Escape leaves.');
  }

  close() {
    if (!this.#brush) return;
    this.end();
    this.#brush = null;
    const within = document.activeElement?.closest('.brush-tools, .ring');
    this.#open(false);
    this.#act.closed();
    if (within) buttonAt('#paint').focus({ preventScroll: true });
  }

  /** Shows the mask as it is now. */
  update() {
    const brush = this.#brush;
    if (!brush) return;
    for (const control of this.#controls) control.update();
    this.#undo.disabled = !brush.canUndo;
    this.#redo.disabled = !brush.canRedo;
    this.#show();
  }

  /** @param {boolean} on */
  #open(on) {
    this.#stage.toggleAttribute('data-brush', on);
    for (const node of [this.#cover, this.#ring, this.#bar, this.#sliders]) node.hidden = !on;
    this.#placeRing(false);
  }

  // ---- strokes -----------------------------------------------------------------------------------------------------

  /** The right button, and a hand that lies on the glass while a pen paints. @param {PointerEvent} event */
  ignores(event) {
    const byHand = this.#by === 'pen' && event.pointerType === 'touch' && this.#brush?.isPainting;
    return event.button === 2 || Boolean(byHand);
  }

  /** @type {(event: PointerEvent, at: Point) => void} */
  down(event, at) {
    this.#by = event.pointerType;
    this.#stroke(at, pressureOf(event), (event.buttons & ERASER) !== 0);
  }

  /** @type {(at: Point, pressure: number, erase?: boolean) => void} */
  #stroke(at, pressure, erase = false) {
    const brush = this.#brush;
    if (!brush) return;
    this.#began = performance.now();
    this.#from = this.#at = at;
    const radius = (this.#size / 2) * this.#scale;
    if ((this.#erase || erase) && brush.isBlank) brush.fill(!this.#act.inverted()); // from everywhere
    const inside = (this.#erase || erase) === this.#act.inverted(); // is what the brush leaves to be white?
    brush.begin({ radius, softness: this.#softness, erase: !inside }, this.#onMask(at), pressure);
    this.#placeRing(true);
    this.#painted();
  }

  /** @type {(event: PointerEvent, toStage: (event: PointerEvent) => Point) => void} */
  move(event, toStage) {
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) this.#lineTo(toStage(each), pressureOf(each));
  }

  /** @type {(at: Point, pressure: number) => void} */
  #lineTo(at, pressure) {
    this.#at = at;
    this.#brush?.lineTo(this.#onMask(at), pressure);
    this.#placeRing(true);
    this.#painted();
  }

  end() {
    if (!this.#brush?.isPainting) return;
    this.#brush.end();
    if (this.#by === 'touch') this.#placeRing(false);
    this.#changed();
  }

  /** Two fingers move the picture: what the first one did meanwhile was no stroke. */
  interrupt() {
    const length = Math.hypot(this.#at[0] - this.#from[0], this.#at[1] - this.#from[1]);
    if (performance.now() - this.#began > TAKE_BACK_MS && length > TAKE_BACK_PX) this.end();
    else {
      this.#brush?.cancel();
      this.update();
      this.#act.painted(true);
    }
  }

  /** @param {'undo' | 'redo' | 'invert' | 'clear'} how */
  #edit(how) {
    if (how === 'clear') this.#brush?.fill(this.#act.inverted());
    else this.#brush?.[how]();
    this.#changed();
  }

  #painted() {
    this.#show();
    this.#tell();
  }

  #changed() {
    this.update();
    this.#act.painted(true);
  }

  /** Pixels of the mask in a CSS pixel. */
  get #scale() {
    return (this.#brush?.canvas.width ?? 1) / this.#viewer.box.w;
  }

  /** @type {(at: Point) => Point} */
  #onMask([x, y]) {
    const { box } = this.#viewer;
    return [(x - box.x) * this.#scale, (y - box.y) * this.#scale];
  }

  // ---- the brush ---------------------------------------------------------------------------------------------------

  /** The sliders of its size and its edge. */
  #shape() {
    const size = slider({ label: 'Brush size', low: SIZES[0], high: SIZES[1], scale: 'log', digits: 0, unit: ' px' }, {
      get: () => this.#size, set: (value) => this.#setSize(value), done: () => this.#remember(),
      reset: () => this.#setSize(60),
    });
    const edge = slider({ label: 'Brush softness', low: 0, high: 100, digits: 0, unit: ' %' }, {
      get: () => Math.round(this.#softness * 100), set: (value) => { this.#softness = value / 100; },
      done: () => this.#remember(), reset: () => { this.#softness = 0.4; },
    });
    this.#sliders.append(size.node, edge.node);
    return [size, edge];
  }

  /** @param {number} size */
  #setSize(size) {
    this.#size = clamp(size, SIZES[0], SIZES[1]);
    this.#ring.style.setProperty('--size', `${this.#size}px`);
    this.#placeRing(true);
  }

  /** @param {boolean} erase */
  #setErase(erase) {
    this.#erase = erase;
    this.#ring.toggleAttribute('data-erase', erase);
    this.update();
  }

  #remember() {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify([this.#size, this.#softness]));
    } catch { /* then it begins as it usually does */ }
  }

  #recall() {
    try {
      const [size, softness] = JSON.parse(sessionStorage.getItem(KEPT) ?? '');
      if (Number.isFinite(size) && Number.isFinite(softness)) {
        this.#size = size;
        this.#softness = clamp(softness, 0, 1);
      }
    } catch { /* nothing was kept */ }
    this.#setSize(this.#size);
  }

  // ---- what is seen ------------------------------------------------------------------------------------------------

  /** @param {PointerEvent} event */
  #hover(event) {
    if (!this.#brush || event.pointerType === 'touch' || this.#brush.isPainting) return;
    const isOver = around(event, '.brush-tools') === null;
    const box = this.#stage.getBoundingClientRect();
    if (isOver) this.#at = [event.clientX - box.left, event.clientY - box.top];
    this.#placeRing(isOver);
  }

  /** @param {boolean} seen */
  #placeRing(seen) {
    this.#ring.style.transform = `translate(${this.#at[0]}px, ${this.#at[1]}px)`;
    this.#ring.toggleAttribute('data-seen', seen);
  }

  #place() {
    if (!this.#brush) return;
    const { x, y, w: width, h: height } = this.#viewer.box;
    const place = { width: `${width}px`, height: `${height}px`, transform: `translate(${x}px, ${y}px)` };
    Object.assign(this.#cover.style, place);
  }

  #toggleCover() {
    const seen = this.#cover.toggleAttribute('data-bare') === false;
    this.#seen.setAttribute('aria-pressed', String(seen));
    say(seen ? 'The mask is shown.' : 'The mask is hidden.');
  }

  /** The part of the mask that changed, in stripes. */
  #paintCover() {
    const brush = this.#brush;
    if (!brush) return;
    const { width, height } = brush.canvas;
    const news = brush.takeNews();
    const flip = this.#act.inverted() ? 255 : 0;
    const rect = flip === this.#flip ? news : { x: 0, y: 0, w: width, h: height };
    this.#flip = flip;
    if (!rect) return;
    const values = brush.values(rect);
    const image = new ImageData(rect.w, rect.h);
    const { data } = image;
    for (let row = 0, index = 0; row < rect.h; row += 1) {
      for (let column = 0; column < rect.w; column += 1, index += 1) {
        const stripe = Math.floor((rect.x + column + rect.y + row) / this.#stripe) % 3;
        const [r, g, b, share] = COLOURS[stripe === 2 ? 1 : 0];
        data[4 * index] = r;
        data[4 * index + 1] = g;
        data[4 * index + 2] = b;
        data[4 * index + 3] = Math.abs(values[index] - flip) * share;
      }
    }
    pen(this.#cover).putImageData(image, rect.x, rect.y);
  }

  // ---- keys --------------------------------------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (!this.#brush || event.altKey || document.querySelector('dialog[open]')) return;
    if (around(event, 'input[type=text], input[type=password], textarea, select')) return;
    if (!(event.ctrlKey || event.metaKey ? this.#keyWithCtrl(event) : this.#keyAlone(event.key))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  /** @type {(event: KeyboardEvent) => boolean} whether the key means something here */
  #keyWithCtrl({ key, shiftKey }) {
    const brush = this.#brush;
    const pressed = key.toLowerCase();
    const redo = pressed === 'y' || (pressed === 'z' && shiftKey);
    if (!brush || (!redo && pressed !== 'z')) return false;
    if (!(redo ? brush.canRedo : brush.canUndo)) return false; // the page's turn
    this.#edit(redo ? 'redo' : 'undo');
    return true;
  }

  /** @type {(key: string) => boolean} whether the key means something here */
  #keyAlone(key) {
    if (key === '[' || key === ']') {
      this.#setSize(Math.round(key === ']' ? this.#size * GROW + 1 : this.#size / GROW));
      this.update();
      this.#remember();
      say(`Brush ${this.#size} pixels`);
    } else if (key === 'x') {
      this.#setErase(!this.#erase);
      say(this.#erase ? 'Erase' : 'Paint');
    } else if (key === 'o') this.#toggleCover();
    else if (key === 'i') this.#edit('invert');
    else if (key === 'Escape') this.close();
    else return false;
    return true;
  }

  /** @type {(x: number, y: number) => void} moves the ring by so many CSS pixels, within the picture */
  #step(right, down) {
    const { x, y, w, h: tall } = this.#viewer.box;
    /** @type {Point} */
    const at = [clamp(this.#at[0] + right, x, x + w), clamp(this.#at[1] + down, y, y + tall)];
    if (this.#brush?.isPainting) this.#lineTo(at, 1);
    this.#at = at;
    this.#placeRing(true);
  }

  /** @param {KeyboardEvent} event */
  #keyOnRing(event) {
    const arrow = ARROWS[event.key];
    if (arrow) {
      const step = event.shiftKey ? 5 * STEP : STEP;
      this.#step(arrow[0] * step, arrow[1] * step);
    } else if (event.key !== ' ') return;
    else if (!event.repeat) {
      this.#by = 'key';
      this.#stroke(this.#at, 1);
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** @type {(image: string, label: string, title: string, onclick: () => void, on?: boolean) => HTMLButtonElement} */
function tool(image, label, title, onclick, on) {
  const more = { 'aria-label': label, 'aria-pressed': on, title, onclick };
  return h('button', { type: 'button', className: 'ghost', ...more }, icon(image));
}

/**
 * A share of the radius: a pen's tip grows with its pressure, a finger or a mouse has none to speak of.
 * @param {PointerEvent} event
 */
const pressureOf = ({ pointerType, pressure }) => (
  pointerType === 'pen' ? LEAST_PRESSURE + (1 - LEAST_PRESSURE) * pressure : 1);
