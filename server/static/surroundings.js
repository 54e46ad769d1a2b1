// Light from all around: a built-in sky or studio that is turned like a ball, or the light of another photo.

import * as api from './api.js';
import { $, buttonAt, canvasAt, fieldAt, find, h, pen } from './dom.js';
import { slider } from './controls.js';
import { toSrgb } from './colour.js';
import { complain, say, working } from './notices.js';

/**
 * @typedef {import('./rig.js').Rig} Rig
 * @typedef {import('./rig.js').Vector} Vector
 * @typedef {(name: string, normal: Vector, rotation: number) => number[] | null} Irradiance
 */

const SIDE = 72; // of the ball, in CSS pixels
const TURN = 180; // degrees for a drag across it
const OTHER = 'photo';

/** @param {number} degrees */
const around = (degrees) => Math.round(((((degrees + 180) % 360) + 360) % 360) - 180);

export class Surroundings {
  #store;
  #irradiance;
  #choice = find('#environment', HTMLSelectElement);
  /** @type {import('./controls.js').Control[]} */
  #controls = [];
  /** @type {Set<string>} The photos that were sent for their light alone. */
  #others = new Set();

  /**
   * @param {import('./store.js').Store} store
   * @param {Irradiance} irradiance  what surfaces get of a built-in environment, where that is known
   */
  constructor(store, irradiance) {
    this.#store = store;
    this.#irradiance = irradiance;
    this.#choice.onchange = () => this.#choose(this.#choice.value);
    this.#dial();
    for (const [key, label, low, high, unit, digits] of /** @type {const} */ ([
      ['rotation', 'Turn', -180, 180, '°', 0], ['intensity', 'Brightness', 0, 4, '', 2]])) {
      const usual = key === 'intensity' ? 1 : 0;
      const control = slider({ label, low, high, unit, digits }, {
        get: () => store.rig.environment?.[key] ?? usual,
        set: (value) => store.change(({ environment }) => { if (environment) environment[key] = value; }),
        done: () => store.commit(key),
        reset: () => store.apply(({ environment }) => { delete environment?.[key]; }),
      });
      this.#controls.push(control);
      $('#turning').append(control.node);
    }
    const field = fieldAt('#match-file');
    buttonAt('#match').onclick = () => field.click();
    field.onchange = () => {
      const [file] = field.files ?? [];
      field.value = '';
      if (file) this.match(file);
    };
    store.addEventListener('change', () => this.update());
    this.update();
  }

  /**
   * The built-in environments of this server.
   * @param {{name: string, title: string}[]} environments
   */
  learn(environments) {
    const options = environments.map(({ name, title }) => h('option', { value: name }, title));
    this.#choice.replaceChildren(h('option', { value: '' }, 'None'), ...options);
    this.update();
  }

  update() {
    const { environment = {} } = this.#store.rig;
    const { name = '', photo, title = 'another photo', rotation = 0 } = environment;
    this.#choice.querySelector(`[value=${OTHER}]`)?.remove();
    if (photo) this.#choice.append(h('option', { value: OTHER }, `As in ${title}`));
    this.#choice.value = photo ? OTHER : name;
    $('#turning').hidden = !photo && !name;
    for (const control of this.#controls) control.update();
    const known = !photo && this.#irradiance(name, [0, 0, 1], rotation) !== null;
    $('#environment-ball').hidden = !known;
    if (known) this.#draw(name, rotation);
  }

  /** @param {string} name */
  #choose(name) {
    if (name === OTHER) return;
    this.#store.apply((rig) => {
      if (name) rig.environment = { ...rig.environment, name, photo: undefined };
      else delete rig.environment;
    });
    say(name ? `Light from all around: ${this.#choice.selectedOptions[0]?.textContent}` : 'No light from all around.');
  }

  /**
   * Takes over the light that another photo was taken in.
   * @param {File} file
   */
  async match(file) {
    try {
      const { job_id: photo } = await api.upload(file, {
        onProgress: (progress) => working({ stage: progress < 1 ? 'sending' : 'checking', progress }),
      });
      this.#others.add(photo);
      this.#store.apply((rig) => { rig.environment = { photo, title: file.name }; });
      say(`Lit as ${file.name} was.`);
    } catch (error) {
      complain(error);
    } finally {
      working(null);
    }
  }

  /** Deletes the photos that were sent for their light alone; one that cannot be, expires. */
  forget() {
    const others = [...this.#others];
    this.#others.clear();
    if (others.includes(this.#store.rig.environment?.photo ?? '')) {
      this.#store.apply((rig) => { delete rig.environment; });
    }
    return Promise.allSettled(others.map((id) => api.erase(id)));
  }

  /** The ball turns with the pointer. */
  #dial() {
    const ball = canvasAt('#environment-ball');
    const store = this.#store;
    let from = 0;
    let before = 0;
    ball.onpointerdown = (event) => {
      ball.setPointerCapture(event.pointerId);
      from = event.clientX;
      before = store.rig.environment?.rotation ?? 0;
    };
    ball.onpointermove = (event) => {
      if (!ball.hasPointerCapture(event.pointerId)) return;
      const rotation = around(before + ((event.clientX - from) / ball.clientWidth) * TURN);
      store.change(({ environment }) => { if (environment) environment.rotation = rotation; });
    };
    ball.onpointerup = ball.onpointercancel = () => store.commit();
  }

  /** @type {(name: string, rotation: number) => void} */
  #draw(name, rotation) {
    const canvas = canvasAt('#environment-ball');
    canvas.width = canvas.height = SIDE;
    const context = pen(canvas);
    const image = context.createImageData(SIDE, SIDE);
    for (let row = 0, at = 0; row < SIDE; row += 1) {
      for (let column = 0; column < SIDE; column += 1, at += 4) {
        const [x, y] = [((column + 0.5) / SIDE) * 2 - 1, 1 - ((row + 0.5) / SIDE) * 2];
        const rim = 1 - x * x - y * y;
        if (rim > 0) {
          const light = this.#irradiance(name, [x, y, Math.sqrt(rim)], rotation) ?? [0.5, 0.5, 0.5];
          light.forEach((v, k) => { image.data[at + k] = 255 * toSrgb(1 - Math.exp(-0.8 * v)); });
          image.data[at + 3] = Math.min(255, rim * SIDE * 90);
        }
      }
    }
    context.putImageData(image, 0, 0);
  }
}
