// A handle on the picture for each light, and the lines that tell what the selected one does.

import { $, clamp, find, h, svg } from './dom.js';
import { swatch } from './colour.js';
import { inWords, lightValue, placeOf, setPlace, TYPES } from './rig.js';

/** @typedef {import('./rig.js').Vector} Vector */

const EDGE = 26;

export class Handles {
  #store;
  #viewer;
  #layer = $('#handles');
  #guides = find('#guides', SVGSVGElement);
  /** @type {HTMLButtonElement[]} */
  #buttons = [];
  /** Where the photo's own light came from; null: unknown. @type {Vector | null} */
  ownLight = null;
  #own = h('button', {
    type: 'button', className: 'own-light', 'aria-label': 'The photo was lit from here: put the light there',
    title: 'The photo was lit from here. Click to put the light there.', hidden: true,
  });
  #target = h('button', {
    type: 'button', className: 'handle target', 'aria-label': 'Spot target', 'aria-describedby': 'handle-help',
  });
  #shape = {
    line: svg('line', { class: 'guide' }),
    ring: svg('ellipse', { class: 'guide' }),
    halo: svg('line', { class: 'guide halo' }),
  };

  /**
   * @param {import('./store.js').Store} store
   * @param {import('./viewer.js').Viewer} viewer
   */
  constructor(store, viewer) {
    this.#store = store;
    this.#viewer = viewer;
    this.#target.dataset.target = '';
    this.#own.onclick = () => this.#takeOwn();
    this.#layer.append(this.#own, this.#target);
    this.#guides.append(this.#shape.halo, this.#shape.line, this.#shape.ring);
    for (const type of ['change', 'select']) store.addEventListener(type, () => this.sync());
    viewer.addEventListener('move', () => this.sync());
    this.#layer.addEventListener('focusin', (event) => {
      const light = event.target instanceof HTMLElement ? event.target.dataset.light : undefined;
      if (light !== undefined && Number(light) !== store.selected) store.select(Number(light));
    });
  }

  sync() {
    const { rig, selected } = this.#store;
    const shown = this.#viewer.size !== null;
    while (this.#buttons.length < rig.lights.length) this.#add();
    while (this.#buttons.length > rig.lights.length) this.#buttons.pop()?.remove();
    rig.lights.forEach((light, index) => {
      const button = this.#buttons[index];
      const place = placeOf(light);
      const chosen = index === selected;
      button.classList.toggle('chosen', chosen);
      button.classList.toggle('off', light.on === false);
      button.classList.toggle('behind', place[2] < 0);
      button.dataset.type = light.type;
      button.title = `${TYPES[light.type]}: ${inWords(light)}`;
      button.style.setProperty('--light', swatch(light));
      button.style.setProperty('--near', clamp(1 + 0.22 * (place[2] - 0.7), 0.72, 1.4).toFixed(3));
      if (shown) this.#put(button, place);
    });
    this.#own.hidden = !this.ownLight || !shown;
    if (this.ownLight && shown) this.#put(this.#own, this.ownLight);
    const light = rig.lights[selected];
    this.#target.hidden = light.type !== 'spot';
    if (light.type === 'spot') {
      this.#target.setAttribute('aria-label', `Spot target ${selected + 1}`);
      if (shown) this.#put(this.#target, light.target);
    }
    if (shown) this.#guide(light);
  }

  /** Puts the selected light where the photo's own came from. */
  #takeOwn() {
    const { ownLight } = this;
    if (!ownLight) return;
    this.#store.apply((_rig, light) => setPlace(light, ownLight));
    this.focus();
  }

  /** Puts the focus on a light's handle. */
  focus(index = this.#store.selected) {
    this.#buttons[index]?.focus({ preventScroll: true });
  }

  #add() {
    const index = this.#buttons.length;
    const rays = Array.from({ length: 8 }, (_, i) => {
      const [c, s] = [Math.cos((i * Math.PI) / 4), Math.sin((i * Math.PI) / 4)];
      return svg('line', { x1: 13.5 * c, y1: 13.5 * s, x2: 17.5 * c, y2: 17.5 * s, class: 'ray' });
    });
    const sun = svg(
      'svg', { viewBox: '-22 -22 44 44', 'aria-hidden': 'true' },
      svg('circle', { class: 'aura', r: 20 }),
      ...rays,
      svg('circle', { class: 'core', r: 10.5 }),
      svg('text', { y: 4 }, String(index + 1)),
    );
    const button = h('button', {
      type: 'button', className: 'handle', 'aria-label': `Light ${index + 1}`, 'aria-describedby': 'handle-help',
    }, sun);
    button.dataset.light = String(index);
    this.#buttons.push(button);
    this.#layer.append(button);
  }

  /** @type {(button: HTMLElement, place: Vector) => void} */
  #put(button, place) {
    const [x, y] = this.#onStage(place);
    button.style.transform = `translate(${x}px, ${y}px)`;
  }

  /**
   * On the stage, and never beyond its edge, where nobody could take hold of it.
   * @param {Vector} place
   */
  #onStage(place) {
    const [x, y] = this.#viewer.toStage(place);
    const [width, height] = this.#viewer.stage;
    const [, , tools] = this.#viewer.margins;
    return [clamp(x, EDGE, Math.max(EDGE, width - EDGE)), clamp(y, EDGE, Math.max(EDGE, height - tools))];
  }

  /** @param {import('./rig.js').Light} light */
  #guide(light) {
    const { line, ring, halo } = this.#shape;
    const [x1, y1] = this.#onStage(placeOf(light));
    const [x2, y2] = this.#viewer.toStage(light.type === 'spot' ? light.target : [0, 0]);
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const gap = Math.min(1, 22 / length);
    const ends = light.type === 'point' ? { x1, y1, x2: x1, y2: y1 }
      : { x1: x1 + (x2 - x1) * gap, y1: y1 + (y2 - y1) * gap, x2, y2 };
    for (const [name, value] of Object.entries(ends)) {
      for (const node of [line, halo]) node.setAttribute(name, value.toFixed(1));
    }
    const reach = light.type === 'directional' ? 0 : (lightValue(light, 'range') * this.#viewer.box.w) / 2;
    for (const [name, value] of Object.entries({ cx: x1, cy: y1, rx: reach, ry: reach })) {
      ring.setAttribute(name, String(value));
    }
  }
}
