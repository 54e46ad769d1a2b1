// The panel: presets, the lights and the selected one's controls, the scene.

import { $, buttonAt, canvasAt, h } from './dom.js';
import { drawBall, directionAt } from './ball.js';
import { radios, slider, toggle } from './controls.js';
import { swatch } from './colour.js';
import { say } from './notices.js';
import {
  cleanRig, inWords, lightValue, MOST_LIGHTS, newLight, placeOf, retype, sceneValue, setPlace, setScene, TYPES,
} from './rig.js';

/**
 * @typedef {import('./rig.js').Light} Light
 * @typedef {import('./rig.js').LightKey} LightKey
 * @typedef {import('./rig.js').LightType} LightType
 * @typedef {import('./rig.js').SceneKey} SceneKey
 * @typedef {import('./rig.js').Vector} Vector
 * @typedef {import('./controls.js').Control} Control
 * @typedef {import('./controls.js').SliderLook} SliderLook
 */

const BALL = 116;
/** @type {Partial<Record<LightKey, LightType[]>>} which lights have it; without an entry, all */
const FOR = {
  angle: ['directional'], radius: ['point', 'spot'], range: ['point', 'spot'], cone: ['spot'], blend: ['spot'],
};

/** @type {(SliderLook & {key: LightKey})[]} */
const LIGHT_SLIDERS = [
  { key: 'intensity', label: 'Intensity', low: 0, high: 10, scale: 'square' },
  {
    key: 'temperature', label: 'Temperature', low: 1500, high: 20000, scale: 'log', digits: 0, grain: 50, unit: ' K',
    className: 'warmth',
  },
  { key: 'angle', label: 'Softness', low: 0, high: 90, scale: 'square', digits: 1, unit: '°' },
  { key: 'radius', label: 'Softness', low: 0, high: 2, scale: 'square' },
  { key: 'range', label: 'Reach', low: 0.05, high: 10, scale: 'log' },
  { key: 'cone', label: 'Cone', low: 5, high: 170, digits: 0, unit: '°' },
  { key: 'blend', label: 'Edge', low: 0, high: 1 },
];
/** @type {(SliderLook & {key: SceneKey, hint?: string})[]} */
const SCENE_SLIDERS = [
  { key: 'ambient', label: 'Ambient', low: 0, high: 2 },
  { key: 'delight', label: 'Delight', low: 0, high: 1, hint: 'How much of the old light is taken out first' },
  { key: 'shadow.strength', label: 'Shadow', low: 0, high: 1 },
  { key: 'specular.strength', label: 'Specular', low: 0, high: 1 },
  { key: 'specular.roughness', label: 'Roughness', low: 0.05, high: 1 },
  { key: 'exposure', label: 'Exposure', low: -5, high: 5, unit: ' EV' },
  { key: 'strength', label: 'Strength', low: 0, high: 1, hint: '0 is the photo as it was' },
];

/** @typedef {import('./api.js').Preset} Preset */

export class Panel {
  #store;
  /** @type {(Control & {types?: LightType[]})[]} */
  #controls = [];
  /** @type {{node: HTMLButtonElement, canvas: HTMLCanvasElement}[]} */
  #chips = [];

  /**
   * @param {import('./store.js').Store} store
   */
  constructor(store) {
    this.#store = store;
    this.#list();
    this.#ball();
    this.#light();
    this.#scene();
    for (const type of ['change', 'select']) store.addEventListener(type, () => this.update());
    this.update();
  }

  update() {
    const { rig, light, selected } = this.#store;
    for (const control of this.#controls) {
      if (control.types) control.node.hidden = !control.types.includes(light.type);
      if (!control.node.hidden) control.update();
    }
    while (this.#chips.length < rig.lights.length) this.#addChip();
    while (this.#chips.length > rig.lights.length) this.#chips.pop()?.node.remove();
    rig.lights.forEach((each, index) => {
      const { node, canvas } = this.#chips[index];
      node.setAttribute('aria-pressed', String(index === selected));
      node.setAttribute('aria-label', `${index + 1}: ${TYPES[each.type]}${each.on === false ? ', off' : ''}`);
      const look = JSON.stringify([each, devicePixelRatio]);
      if (canvas.dataset.look !== look) drawBall(canvas, 40, [each], each.on === false ? 0.3 : 0.1);
      canvas.dataset.look = look;
    });
    for (const name of ['#add-light', '#copy-light']) buttonAt(name).disabled = rig.lights.length >= MOST_LIGHTS;
    buttonAt('#remove-light').disabled = rig.lights.length === 1;
    drawBall(canvasAt('#ball'), BALL, [light], 0.1);
    $('#ball').setAttribute('aria-label', `A ball lit by the selected light: ${inWords(light)}`);
    $('#ball-words').textContent = inWords(light);
  }

  remove() {
    const { rig, selected } = this.#store;
    if (rig.lights.length === 1) return;
    this.#store.apply((each) => { each.lights.splice(selected, 1); });
    say(`Removed. ${rig.lights.length} left.`);
  }

  /**
   * Show the server's looks to begin from.
   * @param {Preset[]} presets
   */
  learnPresets(presets) {
    $('#presets').replaceChildren(...presets.map(({ title, ...look }) => {
      const canvas = h('canvas', { ariaHidden: 'true' });
      const rig = cleanRig({ ...look, auto: !('exposure' in look) });
      if (!rig) return '';
      drawBall(canvas, 48, rig.lights, (rig.ambient ?? 0) * 0.5);
      const use = () => {
        // Where the photo is lit at all is no part of a look
        this.#store.apply(({ mask }) => ({ ...structuredClone(rig), ...(mask && { mask }) }));
        const count = rig.lights.length;
        say(`${title}: ${count === 1 ? 'one light' : `${count} lights`}`);
      };
      return h('button', { type: 'button', className: 'preset', onclick: use }, canvas, h('span', {}, title));
    }));
  }

  #list() {
    const store = this.#store;
    /** @param {Light} light */
    const add = (light) => {
      store.change((rig) => { rig.lights.push(light); });
      store.selected = store.rig.lights.length - 1;
      store.commit();
      say(`Added. ${store.rig.lights.length} lights.`);
    };
    $('#add-light').onclick = () => {
      const [x, y, z] = placeOf(store.light);
      add(newLight('point', [-x || 0.5, y, Math.max(z, 0.4)]));
    };
    $('#copy-light').onclick = () => {
      const copy = structuredClone(store.light);
      const [x, y, z] = placeOf(copy);
      setPlace(copy, [x > 0.8 ? x - 0.2 : x + 0.2, y, z]);
      add(copy);
    };
    $('#remove-light').onclick = () => this.remove();
  }

  #addChip() {
    const index = this.#chips.length;
    const canvas = h('canvas', { ariaHidden: 'true' });
    const onclick = () => this.#store.select(index);
    const number = h('span', { ariaHidden: 'true' }, String(index + 1));
    const node = h('button', { type: 'button', className: 'chip', onclick }, canvas, number);
    this.#chips.push({ node, canvas });
    $('#lights').append(node);
  }

  /** The ball is a dial as well: where it is touched, the light comes from there. */
  #ball() {
    const ball = canvasAt('#ball');
    const store = this.#store;
    /** @param {PointerEvent} event */
    const turn = (event) => {
      const box = ball.getBoundingClientRect();
      const radius = box.width / 2;
      const right = (event.clientX - box.left - radius) / radius;
      const d = directionAt(right, (box.top + radius - event.clientY) / radius);
      store.change((rig, light) => {
        const length = Math.hypot(...placeOf(light)) || 1;
        const far = Math.min(1.2, length);
        setPlace(light, [d[0] * far, d[1] * far, d[2] * far]);
      });
    };
    ball.onpointerdown = (event) => {
      ball.setPointerCapture(event.pointerId);
      turn(event);
    };
    ball.onpointermove = (event) => ball.hasPointerCapture(event.pointerId) && turn(event);
    ball.onpointerup = ball.onpointercancel = () => store.commit();
  }

  #light() {
    const store = this.#store;
    /** @type {(control: Control, types?: LightType[]) => HTMLElement} */
    const put = (control, types) => {
      this.#controls.push({ ...control, types });
      return control.node;
    };
    const type = put(radios({
      legend: 'Kind', options: TYPES, get: () => store.light.type,
      set: (value) => store.apply((rig) => { rig.lights[store.selected] = retype(store.light, value); }),
    }));
    /** @type {(key: 'on' | 'shadow', label: string) => HTMLElement} */
    const flag = (key, label) => put(toggle({
      label, get: () => store.light[key] !== false,
      set: (on) => store.apply((rig, light) => {
        if (on) delete light[key];
        else light[key] = false;
      }),
    }));
    /** @type {(light: Light, z: number) => void} */
    const setDepth = (light, z) => {
      const [x, y] = placeOf(light);
      setPlace(light, [x, y, z]);
    };
    const depth = slider({ label: 'Nearness', low: -1.5, high: 3 }, {
      get: () => placeOf(store.light)[2],
      set: (z) => store.change((rig, light) => setDepth(light, z)),
      done: () => store.commit('nearness'),
      reset: () => store.apply((rig, light) => setDepth(light, 0.7)),
    });
    const sliders = LIGHT_SLIDERS.map(({ key, ...spec }) => put(slider(spec, {
      get: () => lightValue(store.light, key),
      set: (value) => store.change((rig, light) => {
        light[key] = value;
        if (key === 'temperature') delete light.color;
      }),
      done: () => store.commit(key),
      reset: () => store.apply((rig, light) => {
        delete light[key];
        if (key === 'temperature') delete light.color;
      }),
    }), FOR[key]));
    const colour = h('input', {
      type: 'color', id: 'colour',
      oninput: () => store.change((rig, light) => {
        delete light.temperature;
        light.color = colour.value;
      }),
      onchange: () => store.commit('colour'),
    });
    /** @param {string} rgb */
    const hex = (rgb) => `#${(rgb.match(/\d+/g) ?? []).map((v) => Number(v).toString(16).padStart(2, '0')).join('')}`;
    const colourRow = {
      node: h('div', { className: 'slider pick' }, h('label', { htmlFor: 'colour' }, 'Colour'), colour),
      update: () => {
        colour.value = store.light.color ?? hex(swatch(store.light));
        sliders[1].classList.toggle('overruled', Boolean(store.light.color));
      },
    };
    $('#kind').append(type, h('div', { className: 'switches' }, flag('on', 'On'), flag('shadow', 'Casts shadow')));
    $('#light').append(put(depth), sliders[0], sliders[1], put(colourRow), ...sliders.slice(2));
  }

  #scene() {
    const store = this.#store;
    for (const { key, hint, ...spec } of SCENE_SLIDERS) {
      const control = slider(spec, {
        get: () => sceneValue(store.rig, key),
        set: (value) => store.change((rig) => setScene(rig, key, value)),
        done: () => store.commit(key),
        reset: () => store.apply((rig) => setScene(rig, key, undefined)),
      });
      if (hint) explain(control, hint);
      this.#controls.push(control);
      $('#scene').append(control.node);
      if (key === 'exposure') this.#auto(control);
    }
  }

  /**
   * The switch of auto exposure: while it is on, the slider rests and keeps its value.
   * @param {ReturnType<typeof slider>} exposure
   */
  #auto(exposure) {
    const store = this.#store;
    const control = toggle({
      label: 'Auto exposure', get: () => store.rig.auto === true,
      set: (on) => store.apply((rig) => { rig.auto = on; }),
    });
    explain(control, 'Keeps the picture as bright as the photo, as a camera does');
    const update = () => {
      control.update();
      exposure.input.disabled = control.input.checked;
      exposure.node.classList.toggle('overruled', control.input.checked);
    };
    this.#controls.push({ node: control.node, update });
    $('#scene').append(control.node);
  }
}

/**
 * Says more about a control, on hovering and to a screen reader.
 * @param {{node: HTMLElement, input: HTMLElement}} control
 * @param {string} hint
 */
function explain({ node, input }, hint) {
  node.title = hint;
  input.setAttribute('aria-description', hint);
}
