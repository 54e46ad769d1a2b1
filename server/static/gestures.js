// Mouse, finger, pen, wheel and keys on the stage.

import { around, clamp } from './dom.js';
import { placeOf, rounded, setPlace } from './rig.js';

const NEAREST = 3;
const FARTHEST = -1.5;
const REACH = 1.6;
const MIDDLE = 1; // button of a mouse

/**
 * @typedef {import('./rig.js').Light} Light
 * @typedef {import('./rig.js').Vector} Vector
 * @typedef {import('./viewer.js').Point} Point
 * @typedef {{kind: 'pan' | 'split', last: Point}} Slide  the picture, or the divider, goes with the pointer
 * @typedef {object} Carry  a light, or what a spot aims at, goes with the pointer
 * @property {'light' | 'target'} kind
 * @property {Point} last
 * @property {Point} offset  from the pointer to the handle's middle
 * @property {Light} [before]  the light as it was, where it was not taken by its handle
 * @typedef {object} Pinch  two fingers: the picture's zoom, or the selected light's depth
 * @property {'pinch' | 'depth'} kind
 * @property {Point} last
 * @property {number} spread  between the fingers
 * @property {number} from  the light's depth as they began
 * @typedef {{kind: 'tool', last: Point}} Stroke  what the tool does
 * @typedef {Slide | Carry | Pinch | Stroke} Drag
 * @typedef {object} Tool  what one finger, a pen or the mouse does instead of moving the light
 * @property {(event: PointerEvent) => boolean} ignores  is this one not meant?
 * @property {(event: PointerEvent, at: Point) => void} down
 * @property {(event: PointerEvent, toStage: (event: PointerEvent) => Point) => void} move
 * @property {() => void} end
 * @property {() => void} interrupt  a second finger came
 * @typedef {object} Act  what the page does for a gesture
 * @property {() => void} compare
 * @property {(share: number) => void} split
 * @property {() => void} remove
 * @property {() => void} focus
 * @property {() => void} paint
 */

export class Gestures {
  /** @type {Tool | null} */
  tool = null;
  #stage;
  #store;
  #viewer;
  #act;
  /** @type {Map<number, Point>} */
  #pointers = new Map();
  /** @type {Drag | null} */
  #drag = null;
  #wheelEnd = 0;

  /**
   * @param {HTMLElement} stage
   * @param {import('./store.js').Store} store
   * @param {import('./viewer.js').Viewer} viewer
   * @param {Act} act
   */
  constructor(stage, store, viewer, act) {
    this.#stage = stage;
    this.#store = store;
    this.#viewer = viewer;
    this.#act = act;
    stage.addEventListener('pointerdown', (event) => this.#down(event));
    stage.addEventListener('pointermove', (event) => this.#move(event));
    stage.addEventListener('pointerup', (event) => this.#up(event));
    stage.addEventListener('pointercancel', (event) => this.#up(event));
    stage.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    stage.addEventListener('keydown', (event) => this.#key(event));
    document.addEventListener('keydown', (event) => {
      if (event.target === document.body) this.#key(event);
    });
    stage.addEventListener('dblclick', (event) => {
      if (!this.tool && !around(event, '.handle, .tools, .divider')) this.#viewer.fit();
    });
  }

  /** Is there a picture to work on? (While a photo is read, the one on the stage is not lit yet.) */
  get #idle() {
    return !this.#viewer.size || document.body.dataset.state !== 'ready';
  }

  /** @type {(event: MouseEvent) => Point} */
  #at(event) {
    const box = this.#stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (this.#idle || around(event, '.tools, .notice, .own-light') || !this.#isMeant(event)) return;
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    this.#stage.setPointerCapture(event.pointerId);
    if (this.#pointers.size > 2) return;
    const handle = around(event, '.handle');
    if (this.#pointers.size === 2) this.#pinchFrom();
    else if (handle) {
      event.preventDefault(); // the browser's own drag; so the focus is ours to set
      this.#take(handle, at);
    } else if (around(event, '.divider')) this.#begin({ kind: 'split', last: at });
    else this.#onPicture(event, at);
  }

  /** @type {(event: PointerEvent, at: Point) => void} */
  #onPicture(event, at) {
    if (this.tool && event.button !== MIDDLE) {
      event.preventDefault();
      this.#begin({ kind: 'tool', last: at });
      this.tool.down(event, at);
    } else if (this.tool || !this.#viewer.isFit || !this.#viewer.isLit) this.#begin({ kind: 'pan', last: at });
    else {
      event.preventDefault();
      this.#act.focus(); // so that the keys go on from here
      const before = structuredClone(this.#store.light);
      this.#begin({ kind: 'light', last: at, offset: [0, 0], before });
      this.#place(at);
    }
  }

  /** @param {PointerEvent} event */
  #isMeant(event) {
    return this.tool ? !this.tool.ignores(event) : event.button === 0;
  }

  /** @type {(handle: HTMLElement, at: Point) => void} */
  #take(handle, at) {
    handle.focus({ preventScroll: true });
    const isTarget = 'target' in handle.dataset;
    if (!isTarget) this.#store.select(Number(handle.dataset.light));
    const grip = this.#viewer.toStage(handlePlace(this.#store.light, isTarget));
    this.#begin({ kind: isTarget ? 'target' : 'light', last: at, offset: [grip[0] - at[0], grip[1] - at[1]] });
  }

  /** @param {Drag} drag */
  #begin(drag) {
    this.#drag = drag;
    this.#stage.dataset.drag = drag.kind;
  }

  /** @param {PointerEvent} event */
  #move(event) {
    if (!this.#pointers.has(event.pointerId)) return;
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    const drag = this.#drag;
    if (!drag) return;
    if (drag.kind === 'pinch' || drag.kind === 'depth') this.#pinch(drag);
    else if (this.#pointers.size === 1) {
      if (drag.kind === 'pan') this.#viewer.panBy(at[0] - drag.last[0], at[1] - drag.last[1]);
      else if (drag.kind === 'tool') this.tool?.move(event, (each) => this.#at(each));
      else if (drag.kind === 'split') this.#act.split((at[0] - this.#viewer.box.x) / this.#viewer.box.w);
      else this.#place(at);
      drag.last = at;
    }
  }

  /** @param {PointerEvent} event */
  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const drag = this.#drag;
    if (this.#pointers.size) return; // the last finger ends it
    this.#drag = null;
    delete this.#stage.dataset.drag;
    if (drag?.kind === 'tool') this.tool?.end();
    if (drag && ['light', 'target', 'depth'].includes(drag.kind)) this.#store.commit();
  }

  /** @param {Point} at */
  #place(at) {
    const drag = this.#drag;
    if (drag?.kind !== 'light' && drag?.kind !== 'target') return;
    const [x, y] = this.#viewer.toScene([at[0] + drag.offset[0], at[1] + drag.offset[1]]);
    this.#moveTo(drag.kind === 'target', ([, , z]) => [x, y, z]);
  }

  /**
   * Moves the selected light, or its target, within reach.
   * @param {boolean} isTarget
   * @param {(place: Vector) => Vector} where
   */
  #moveTo(isTarget, where) {
    const [width, height] = this.#viewer.size ?? [1, 1];
    const tall = REACH * Math.max(1, height / width);
    this.#store.change((_rig, light) => {
      const [x, y, z] = where(handlePlace(light, isTarget));
      /** @type {Vector} */
      const next = [clamp(x, -REACH, REACH), clamp(y, -tall, tall), clamp(z, FARTHEST, NEAREST)];
      if (isTarget && light.type === 'spot') {
        light.target = rounded(next);
        setPlace(light, light.position); // not where it aims at
      } else setPlace(light, next);
    });
  }

  #pinchFrom() {
    const [a, b] = [...this.#pointers.values()];
    const drag = this.#drag;
    if (drag?.kind === 'tool') this.tool?.interrupt();
    const before = drag?.kind === 'light' ? drag.before : undefined;
    if (before) this.#store.change((_rig, light) => { Object.assign(light, before); }); // it was not meant to move
    const spread = Math.hypot(a[0] - b[0], a[1] - b[1]);
    const byHandle = drag?.kind === 'light' && !before;
    const from = placeOf(this.#store.light)[2];
    this.#begin({ kind: byHandle ? 'depth' : 'pinch', last: between(a, b), spread, from });
  }

  /** @param {Pinch} drag */
  #pinch(drag) {
    const [a, b] = [...this.#pointers.values()];
    if (!b) return;
    const spread = Math.hypot(a[0] - b[0], a[1] - b[1]);
    const middle = between(a, b);
    if (drag.kind === 'depth') this.#moveTo(false, ([x, y]) => [x, y, drag.from + Math.log2(spread / drag.spread)]);
    else {
      this.#viewer.zoomBy(spread / drag.spread, middle);
      this.#viewer.panBy(middle[0] - drag.last[0], middle[1] - drag.last[1]);
      drag.spread = spread;
      drag.last = middle;
    }
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    if (this.#idle || around(event, '.notice')) return;
    event.preventDefault();
    const step = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    if (event.ctrlKey || event.metaKey || this.tool || !this.#viewer.isLit) {
      this.#viewer.zoomBy(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.002)), this.#at(event));
      return;
    }
    this.#moveTo(false, ([x, y, z]) => [x, y, z - step * 0.001]);
    clearTimeout(this.#wheelEnd);
    this.#wheelEnd = setTimeout(() => this.#store.commit('wheel'), 300);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (this.#idle || event.ctrlKey || event.metaKey || event.altKey) return;
    const handle = around(event, '.handle');
    if ((handle && this.#keyOnHandle(handle, event)) || this.#keyOnPicture(event.key)) event.preventDefault();
  }

  /** @type {(handle: HTMLElement, event: KeyboardEvent) => boolean} whether the key means something here */
  #keyOnHandle(handle, { key, shiftKey }) {
    const nudge = nudges(shiftKey ? 0.1 : 0.02)[key];
    if (nudge) {
      this.#moveTo('target' in handle.dataset, ([x, y, z]) => [x + nudge[0], y + nudge[1], z + nudge[2]]);
      this.#store.commit('nudge');
    } else if (key === 'Delete' || key === 'Backspace') this.#act.remove();
    else return false;
    return true;
  }

  /** @type {(key: string) => boolean} whether the key means something here */
  #keyOnPicture(key) {
    if (key === 'c') this.#act.compare();
    else if (key === '+' || key === '=') this.#viewer.zoomBy(1.25);
    else if (key === '-') this.#viewer.zoomBy(0.8);
    else if (key === '0') this.#viewer.fit();
    else if (key === 'b') this.#act.paint();
    else if (key === 'h') this.#stage.toggleAttribute('data-bare');
    else return false;
    return true;
  }
}

/** @type {(light: Light, isTarget: boolean) => Vector} */
const handlePlace = (light, isTarget) => (isTarget && light.type === 'spot' ? light.target : placeOf(light));

/** @type {(a: Point, b: Point) => Point} */
const between = (a, b) => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];

/** @type {(step: number) => Record<string, Vector>} */
const nudges = (step) => ({
  ArrowLeft: [-step, 0, 0], ArrowRight: [step, 0, 0], ArrowUp: [0, step, 0], ArrowDown: [0, -step, 0],
  PageUp: [0, 0, 0.1], PageDown: [0, 0, -0.1],
});
