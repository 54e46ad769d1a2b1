// Mouse, finger, pen, wheel and keys on the stage.

import { clamp } from './dom.js';
import { placeOf, setPlace } from './rig.js';

const NEAREST = 3;
const FARTHEST = -1.5;
const REACH = 1.6;

export class Gestures {
  #stage;
  #store;
  #viewer;
  #act; // {compare, split, remove, focus} of the page
  #pointers = new Map();
  #drag = null;
  #wheelEnd = 0;

  constructor(stage, store, viewer, act) {
    this.#stage = stage;
    this.#store = store;
    this.#viewer = viewer;
    this.#act = act;
    stage.addEventListener('pointerdown', (event) => this.#down(event));
    stage.addEventListener('pointermove', (event) => this.#move(event));
    for (const type of ['pointerup', 'pointercancel']) stage.addEventListener(type, (event) => this.#up(event));
    stage.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    stage.addEventListener('keydown', (event) => this.#key(event));
    document.addEventListener('keydown', (event) => event.target === document.body && this.#key(event));
    stage.addEventListener('dblclick', (event) => event.target.closest('.handle, .tools, .divider') || this.#viewer.fit());
  }

  /** Is there a picture to work on? (While a photo is read, the one on the stage is not lit yet.) */
  get #idle() {
    return !this.#viewer.size || document.body.dataset.state !== 'ready';
  }

  #at(event) {
    const box = this.#stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #down(event) {
    if (this.#idle || event.button > 0 || event.target.closest('.tools, .notice')) return;
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    this.#stage.setPointerCapture(event.pointerId);
    if (this.#pointers.size === 2) return this.#pinchFrom();
    if (this.#pointers.size > 2) return undefined;
    const handle = event.target.closest('.handle');
    if (handle) {
      event.preventDefault(); // the browser's own drag; so the focus is ours to set
      handle.focus({ preventScroll: true });
      const isTarget = 'target' in handle.dataset;
      if (!isTarget) this.#store.select(Number(handle.dataset.light));
      const place = isTarget ? this.#store.light.target : placeOf(this.#store.light);
      const grip = this.#viewer.toStage(place);
      this.#begin(isTarget ? 'target' : 'light', at, { offset: [grip[0] - at[0], grip[1] - at[1]] });
    } else if (event.target.closest('.divider')) this.#begin('split', at);
    else if (!this.#viewer.isFit || this.#viewer.view !== 'relit') this.#begin('pan', at);
    else {
      event.preventDefault();
      this.#act.focus(); // so that the keys go on from here
      const { light } = this.#store;
      this.#begin('light', at, { offset: [0, 0], before: structuredClone(light) });
      this.#place(at);
    }
    return undefined;
  }

  #begin(kind, at, more = {}) {
    this.#drag = { kind, last: at, ...more };
    this.#stage.dataset.drag = kind;
  }

  #move(event) {
    if (!this.#pointers.has(event.pointerId)) return;
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    const drag = this.#drag;
    if (!drag) return;
    if (drag.kind === 'pinch' || drag.kind === 'depth') this.#pinch(drag);
    else if (this.#pointers.size === 1) {
      if (drag.kind === 'pan') this.#viewer.panBy(at[0] - drag.last[0], at[1] - drag.last[1]);
      else if (drag.kind === 'split') this.#act.split((at[0] - this.#viewer.box.x) / this.#viewer.box.w);
      else this.#place(at);
      drag.last = at;
    }
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const drag = this.#drag;
    if (this.#pointers.size) return; // the last finger ends it
    this.#drag = null;
    delete this.#stage.dataset.drag;
    if (['light', 'target', 'depth'].includes(drag?.kind)) this.#store.commit();
  }

  #place(at) {
    const { kind, offset } = this.#drag;
    const [x, y] = this.#viewer.toScene([at[0] + offset[0], at[1] + offset[1]]);
    this.#moveTo(kind === 'target', () => [x, y]);
  }

  #moveTo(isTarget, where) {
    const aspect = this.#viewer.size[1] / this.#viewer.size[0];
    this.#store.change((rig, light) => {
      const place = isTarget ? light.target : placeOf(light);
      const [x, y, z = place[2]] = where(place);
      const next = [clamp(x, -REACH, REACH), clamp(y, -REACH * Math.max(1, aspect), REACH * Math.max(1, aspect)), clamp(z, FARTHEST, NEAREST)];
      if (isTarget) light.target = next.map((v) => Math.round(v * 1000) / 1000);
      setPlace(light, isTarget ? light.position : next);
    });
  }

  #pinchFrom() {
    const [a, b] = [...this.#pointers.values()];
    const before = this.#drag?.before;
    const onLight = this.#drag?.kind === 'light' && !before; // by its handle
    if (before) this.#store.change((rig, light) => { Object.assign(light, before); }); // the first finger did not mean the light
    const spread = Math.hypot(a[0] - b[0], a[1] - b[1]);
    const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    this.#begin(onLight ? 'depth' : 'pinch', middle, { spread, from: placeOf(this.#store.light)[2] });
  }

  #pinch(drag) {
    const [a, b] = [...this.#pointers.values()];
    if (!b) return;
    const spread = Math.hypot(a[0] - b[0], a[1] - b[1]);
    const middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    if (drag.kind === 'depth') this.#moveTo(false, ([x, y]) => [x, y, drag.from + Math.log2(spread / drag.spread)]);
    else {
      this.#viewer.zoomBy(spread / drag.spread, middle);
      this.#viewer.panBy(middle[0] - drag.last[0], middle[1] - drag.last[1]);
      drag.spread = spread;
      drag.last = middle;
    }
  }

  #wheel(event) {
    if (this.#idle || event.target.closest('.notice')) return;
    event.preventDefault();
    const step = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    if (event.ctrlKey || event.metaKey || this.#viewer.view !== 'relit') {
      this.#viewer.zoomBy(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.002)), this.#at(event));
      return;
    }
    this.#moveTo(false, ([x, y, z]) => [x, y, z - step * 0.001]);
    clearTimeout(this.#wheelEnd);
    this.#wheelEnd = setTimeout(() => this.#store.commit('wheel'), 300);
  }

  #key(event) {
    const handle = event.target.closest('.handle');
    const big = event.shiftKey ? 0.1 : 0.02;
    const nudge = {
      ArrowLeft: [-big, 0, 0], ArrowRight: [big, 0, 0], ArrowUp: [0, big, 0], ArrowDown: [0, -big, 0],
      PageUp: [0, 0, 0.1], PageDown: [0, 0, -0.1],
    }[event.key];
    if (this.#idle || event.ctrlKey || event.metaKey || event.altKey) return;
    if (handle && nudge) {
      this.#moveTo('target' in handle.dataset, ([x, y, z]) => [x + nudge[0], y + nudge[1], z + nudge[2]]);
      this.#store.commit('nudge');
    } else if (handle && (event.key === 'Delete' || event.key === 'Backspace')) this.#act.remove();
    else if (event.key === 'c') this.#act.compare();
    else if (event.key === '+' || event.key === '=') this.#viewer.zoomBy(1.25);
    else if (event.key === '-') this.#viewer.zoomBy(0.8);
    else if (event.key === '0') this.#viewer.fit();
    else if (event.key === 'h') this.#stage.toggleAttribute('data-bare');
    else return;
    event.preventDefault();
  }
}
