// Sliders, switches and radio rows. Each gives {node, update}: update() shows the rig's present value.

import { h } from './dom.js';

/**
 * @typedef {{node: HTMLElement, update: () => void}} Control
 * @typedef {object} SliderLook  what a slider shows, and how
 * @property {string} label
 * @property {number} low
 * @property {number} high
 * @property {keyof typeof SCALES} [scale]
 * @property {number} [digits]  after the point
 * @property {number} [grain]  what values are rounded to; without it, to the digits shown
 * @property {string} [unit]
 * @property {string} [className]
 * @typedef {object} SliderUse
 * @property {() => number} get  the value
 * @property {(value: number) => void} set  while it moves
 * @property {() => void} done  when it rests
 * @property {() => void} reset  on double click or Delete
 * @typedef {(low: number, high: number) => [(value: number) => number, (share: number) => number]} Scale
 */

let count = 0;
/** @param {string} word */
const nextId = (word) => `${word}-${(count += 1)}`;

/** How a value lies along a slider: [value -> 0..1, 0..1 -> value]. */
export const SCALES = {
  /** @type {Scale} */
  linear: (low, high) => [(v) => (v - low) / (high - low), (t) => low + t * (high - low)],
  /** @type {Scale} */
  square: (low, high) => [(v) => Math.sqrt((v - low) / (high - low)), (t) => low + t * t * (high - low)],
  /** @type {Scale} */
  log: (low, high) => [(v) => Math.log(v / low) / Math.log(high / low), (t) => low * (high / low) ** t],
};

/** @type {Record<string, number>} */
const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };

/**
 * A labelled slider.
 * @param {SliderLook} look
 * @param {SliderUse} use
 * @returns {Control & {input: HTMLInputElement}}
 */
export function slider(look, { get, set, done, reset }) {
  const { label, low, high, scale = 'linear', digits = 2, grain = 10 ** -digits, unit = '', className = '' } = look;
  const id = nextId('slider');
  const [toShare, fromShare] = SCALES[scale](low, high);
  const linear = scale === 'linear';
  /** @param {number} v */
  const tidy = (v) => Number((Math.round(v / grain) * grain).toFixed(digits));
  /** @param {number} v */
  const words = (v) => `${v.toFixed(digits)}${unit}`;
  const output = h('span', { className: 'value', ariaHidden: 'true' }); // the slider says it itself (aria-valuetext)
  const input = h('input', {
    type: 'range',
    id,
    min: String(linear ? low : 0),
    max: String(linear ? high : 1),
    step: String(linear ? grain : 0.002),
    oninput: () => {
      set(tidy(linear ? input.valueAsNumber : fromShare(input.valueAsNumber)));
      show();
    },
    onchange: done,
    ondblclick: reset,
    onkeydown: (event) => {
      const step = linear ? undefined : STEPS[event.key];
      if (step) { // a step of the track may be less than the rounding: on to the next value there is
        event.preventDefault();
        const value = get();
        let share = Number(input.value);
        do share += step * 0.002; while (share > 0 && share < 1 && tidy(fromShare(share)) === value);
        share = Math.min(1, Math.max(0, share));
        set(tidy(fromShare(share)));
        input.value = String(toShare(get()));
        show();
        done();
      }
      if (event.key === 'Delete' || event.key === 'Backspace') reset();
    },
  });
  function show() {
    const value = get();
    input.setAttribute('aria-valuetext', words(value));
    output.textContent = words(value);
    input.style.setProperty('--share', Math.min(1, Math.max(0, toShare(value))).toFixed(4));
  }
  const node = h('div', { className: `slider ${className}` }, h('label', { htmlFor: id }, label), output, input);
  return {
    node,
    input,
    update() {
      const value = get();
      const held = document.activeElement === input && input.matches(':active');
      if (!held) input.value = String(linear ? value : toShare(value));
      show();
    },
  };
}

/**
 * A switch.
 * @param {{label: string, get: () => boolean, set: (on: boolean) => void}} options
 * @returns {Control & {input: HTMLInputElement}}
 */
export function toggle({ label, get, set }) {
  const input = h('input', { type: 'checkbox', role: 'switch', onchange: () => set(input.checked) });
  const node = h('label', { className: 'switch' }, input, h('span', {}, label));
  return { node, input, update: () => { input.checked = get(); } };
}

/**
 * A row of radio buttons.
 * @template {string} V
 * @param {{legend: string, options: Record<V, string>, get: () => V, set: (value: V) => void}} spec
 * @returns {Control}
 */
export function radios({ legend, options, get, set }) {
  const name = nextId('radio');
  const values = /** @type {V[]} */ (Object.keys(options));
  const inputs = values.map((value) => h('input', { type: 'radio', name, value, onchange: () => set(value) }));
  const labels = inputs.map((input, index) => h('label', {}, input, h('span', {}, options[values[index]])));
  return {
    node: h('fieldset', { className: 'segments' }, h('legend', { className: 'unseen' }, legend), labels),
    update: () => inputs.forEach((input) => { input.checked = input.value === get(); }),
  };
}
