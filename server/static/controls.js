// Sliders, switches and radio rows. Each gives {node, update}: update() shows the rig's present value.

import { h } from './dom.js';

let count = 0;
const nextId = (word) => `${word}-${(count += 1)}`;

/** How a value lies along a slider: [value -> 0..1, 0..1 -> value]. */
export const SCALES = {
  linear: (low, high) => [(v) => (v - low) / (high - low), (t) => low + t * (high - low)],
  square: (low, high) => [(v) => Math.sqrt((v - low) / (high - low)), (t) => low + t * t * (high - low)],
  log: (low, high) => [(v) => Math.log(v / low) / Math.log(high / low), (t) => low * (high / low) ** t],
};

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };

/**
 * A labelled slider. `get()` the value, `set(value)` while it moves, `done()` when it rests, `reset()` on double click.
 * Values are rounded to `grain`, or to as many digits as are shown.
 */
export function slider({ label, low, high, scale = 'linear', digits = 2, grain = 10 ** -digits, unit = '', get, set, done, reset, className = '' }) {
  const id = nextId('slider');
  const [toShare, fromShare] = SCALES[scale](low, high);
  const linear = scale === 'linear';
  const tidy = (v) => Number((Math.round(v / grain) * grain).toFixed(digits));
  const words = (v) => `${v.toFixed(digits)}${unit}`;
  const output = h('span', { className: 'value', ariaHidden: 'true' }); // the slider says it itself (aria-valuetext)
  const input = h('input', {
    type: 'range', id, min: linear ? low : 0, max: linear ? high : 1, step: linear ? grain : 0.002,
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
        input.value = toShare(get());
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
      if (document.activeElement !== input || !input.matches(':active')) input.value = linear ? value : toShare(value);
      show();
    },
  };
}

export function toggle({ label, get, set }) {
  const input = h('input', { type: 'checkbox', role: 'switch', onchange: () => set(input.checked) });
  return { node: h('label', { className: 'switch' }, input, h('span', {}, label)), update: () => { input.checked = get(); } };
}

/** A row of radio buttons. `options`: {value: label}. */
export function radios({ legend, options, get, set, className = '' }) {
  const name = nextId('radio');
  const inputs = Object.entries(options).map(([value, label]) => {
    const input = h('input', { type: 'radio', name, value, onchange: () => set(value) });
    return [input, h('label', {}, input, h('span', {}, label))];
  });
  return {
    node: h('fieldset', { className: `segments ${className}` }, h('legend', { className: 'unseen' }, legend), inputs.map(([, label]) => label)),
    update: () => inputs.forEach(([input]) => { input.checked = input.value === get(); }),
  };
}
