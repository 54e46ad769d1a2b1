// A light that moves: recorded from a drag or gone round on an orbit, played here and rendered by the server.

import * as api from './api.js';
import { $, buttonAt, find, h } from './dom.js';
import { radios, slider, toggle } from './controls.js';
import { hideToast, say, toast, working } from './notices.js';
import { placeOf, setPlace, toBody } from './rig.js';

/**
 * @typedef {import('./rig.js').Body} Body
 * @typedef {import('./rig.js').Rig} Rig
 * @typedef {import('./rig.js').Vector} Vector
 * @typedef {import('./photo.js').Photo} Photo
 * @typedef {(button: HTMLButtonElement, make: (photo: Photo) => Promise<Blob>, file: string) => Promise<void>} Keep
 * @typedef {{at: number, rig: Rig}} Sample  seconds, and how the light was then
 */

const KEYS = 16; // key frames that the server takes
const FPS = 24;
const MOST_FRAMES = 120;
const LONGEST = 5; // seconds
const BUSY = 'A motion of this photo is being rendered';
const OFFER = 'Wait for it, or cancel it under Motion, then try again.';
/** @type {Record<string, string>} */
const FORMATS = { webp: 'WebP', gif: 'GIF', mp4: 'MP4' };

export class Motion {
  /** What is shown instead of the rig while it plays. @type {Body | null} */
  body = null;
  #store;
  #ask;
  #photo;
  /** @type {'orbit' | 'recorded'} */
  #way = 'orbit';
  #seconds = 2;
  #loop = true;
  /** @type {Sample[]} */
  #samples = [];
  #recording = false;
  #limit = 0;
  #playing = 0; // the number of the animation frame that is asked for
  #format = find('#motion-format', HTMLSelectElement);
  /** @type {import('./controls.js').Control[]} */
  #controls;

  /**
   * @param {import('./store.js').Store} store
   * @param {(options?: {moving?: boolean}) => void} ask  for a frame of the look as it is
   * @param {() => Photo | null} photo  the one that is open
   */
  constructor(store, ask, photo) {
    this.#store = store;
    this.#ask = ask;
    this.#photo = photo;
    const way = radios({
      legend: 'How the light moves', options: { orbit: 'Orbit', recorded: 'Recorded' }, get: () => this.#way,
      set: (value) => this.#choose(value),
    });
    const seconds = slider({ label: 'Length', low: 0.5, high: LONGEST, digits: 1, unit: ' s' }, {
      get: () => this.#seconds, set: (value) => { this.#seconds = value; }, done: () => {},
      reset: () => this.#set(() => { this.#seconds = 2; }),
    });
    const loop = toggle({ label: 'Loop', get: () => this.#loop, set: (on) => { this.#loop = on; } });
    loop.node.title = 'Goes on for ever: an orbit goes round, a recording there and back';
    this.#controls = [way, seconds, loop];
    $('#motion-way').append(way.node);
    $('#motion-sliders').append(seconds.node, loop.node);
    buttonAt('#record').onclick = () => (this.#recording ? this.#recorded() : this.#record());
    buttonAt('#play').onclick = () => (this.#playing ? this.stop() : this.#play());
    buttonAt('#cancel-motion').onclick = () => this.#cancel();
    store.addEventListener('change', () => this.#changed());
    addEventListener('pointerup', () => this.#recording && this.#samples.length && this.#recorded());
    this.learn(['webp', 'gif']);
    this.update();
  }

  /**
   * The formats of this server.
   * @param {string[]} formats
   */
  learn(formats) {
    const known = formats.filter((format) => format in FORMATS);
    this.#format.replaceChildren(...known.map((value) => h('option', { value }, FORMATS[value])));
  }

  /** @param {Keep} keep */
  keepWith(keep) {
    const button = buttonAt('#save-motion');
    button.onclick = async () => {
      this.stop();
      $('#cancel-motion').hidden = false;
      const format = this.#format.value;
      let isBusy = false; // with one that was asked for before a reload, or in another tab
      await keep(button, async (mine) => {
        try {
          return await mine.motion({ ...this.#order(), format }, working);
        } catch (error) {
          isBusy = api.asProblem(error).code === 'motion_busy';
          throw isBusy ? new api.Problem({ ...api.asProblem(error), title: BUSY, detail: OFFER }) : error;
        }
      }, `motion.${format}`);
      $('#cancel-motion').hidden = !isBusy;
    };
  }

  update() {
    for (const control of this.#controls) control.update();
    find('#motion-way [value=recorded]', HTMLInputElement).disabled = !this.#hasRecording;
    for (const [name, on, words] of /** @type {const} */ ([
      ['#record', this.#recording, ['Record a drag', 'Stop recording']],
      ['#play', Boolean(this.#playing), ['Play', 'Stop']]])) {
      buttonAt(name).setAttribute('aria-pressed', String(on));
      buttonAt(name).textContent = words[Number(on)];
    }
  }

  get #hasRecording() {
    return this.#samples.length > 1 && !this.#recording;
  }

  /** @param {() => void} edit */
  #set(edit) {
    edit();
    this.update();
  }

  /** @param {'orbit' | 'recorded'} way */
  #choose(way) {
    this.#set(() => { this.#way = way; });
  }

  // ---- recording

  #record() {
    this.stop();
    this.#samples = [];
    this.#set(() => { this.#recording = true; });
    say('Recording. Drag a light, or move it with the arrow keys.');
    toast('Drag a light. What it does until you let go is recorded.');
  }

  #changed() {
    this.stop(); // whoever takes hold of a light wants to see that
    if (!this.#recording) return;
    const now = performance.now() / 1000;
    const rig = structuredClone(this.#store.rig);
    const [first] = this.#samples;
    if (!first) this.#limit = setTimeout(() => this.#recorded(), LONGEST * 1000);
    else if (kinds(rig) !== kinds(first.rig)) {
      this.#recorded(); // key frames have the same lights
      return;
    }
    this.#samples.push({ at: first ? now - this.#samples[0].at : now, rig });
  }

  #recorded() {
    clearTimeout(this.#limit);
    hideToast();
    this.#recording = false;
    const [first, ...others] = this.#samples;
    if (others.length) {
      first.at = 0;
      const { at } = others[others.length - 1];
      this.#seconds = Math.round(Math.min(LONGEST, Math.max(0.5, at)) * 10) / 10;
      this.#way = 'recorded';
      say(`Recorded ${this.#seconds} seconds.`);
    } else {
      this.#samples = [];
      this.#way = 'orbit';
    }
    this.update();
  }

  /**
   * The recording at a share of its time, 0..1.
   * @param {number} share
   */
  #recordedAt(share) {
    const samples = this.#samples;
    const at = share * samples[samples.length - 1].at;
    const next = samples.findIndex((sample) => sample.at >= at);
    if (next <= 0) return toBody(samples[Math.max(0, next)].rig);
    const [a, b] = [samples[next - 1], samples[next]];
    return between(toBody(a.rig), toBody(b.rig), (at - a.at) / (b.at - a.at || 1));
  }

  // ---- the way

  /** Key frames, evenly apart; in a loop, the last leads to the first again. @returns {Body[]} */
  #keys() {
    const shares = Array.from({ length: KEYS }, (_, k) => k / (this.#loop ? KEYS : KEYS - 1));
    if (this.#way === 'recorded' && this.#hasRecording) {
      return shares.map((share) => this.#recordedAt(this.#loop ? 1 - Math.abs(1 - 2 * share) : share));
    }
    return shares.map((share) => toBody(turned(this.#store.rig, 2 * Math.PI * share)));
  }

  /** Seconds of the whole motion: a recording in a loop goes there and back. */
  get #length() {
    return this.#seconds * (this.#loop && this.#way === 'recorded' ? 2 : 1);
  }

  /** A long one has fewer frames a second, so that it is no faster than it was recorded. */
  #order() {
    const fps = Math.min(FPS, Math.floor(MOST_FRAMES / this.#length));
    return { keyframes: this.#keys(), frames: Math.round(this.#length * fps), fps, loop: this.#loop };
  }

  // ---- playing

  #play() {
    const keys = this.#keys();
    const [spans, length] = [this.#loop ? KEYS : KEYS - 1, this.#length];
    const loop = this.#loop;
    /** @type {number | null} */
    let began = null;
    /** @param {number} now */
    const draw = (now) => {
      began ??= now;
      const share = (now - began) / 1000 / length;
      if (!loop && share >= 1) {
        this.stop();
        return;
      }
      const at = (share % 1) * spans;
      const key = Math.floor(at);
      this.body = between(keys[key], keys[(key + 1) % KEYS], at - key);
      this.#ask({ moving: true });
      this.#playing = requestAnimationFrame(draw);
    };
    this.#playing = requestAnimationFrame(draw);
    $('#stage').toggleAttribute('data-playing', true);
    this.update();
  }

  /** Back to the look as it is. */
  stop() {
    if (!this.#playing) return;
    cancelAnimationFrame(this.#playing);
    this.#playing = 0;
    this.body = null;
    $('#stage').toggleAttribute('data-playing', false);
    this.update();
    this.#ask();
  }

  async #cancel() {
    const mine = this.#photo();
    if (!mine) return;
    await api.stopMotion(mine.id).catch(() => {}); // it may have ended
    $('#cancel-motion').hidden = true;
    say('Stopped.');
    toast('Stopped.');
  }
}

/** @param {Rig} rig */
const kinds = ({ lights }) => lights.map(({ type, on }) => (on === false ? '' : type)).join();

/**
 * A rig whose lights have gone round the viewer's axis, clockwise.
 * @type {(rig: Rig, angle: number) => Rig}
 */
function turned(rig, angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const out = structuredClone(rig);
  for (const light of out.lights) {
    const [x, y, z] = placeOf(light);
    setPlace(light, [x * c + y * s, y * c - x * s, z]);
  }
  return out;
}

/**
 * What lies between two looks with the same lights: numbers in a line, directions on the sphere, the rest as in the
 * first.
 * @type {<T>(a: T, b: T, t: number, name?: string) => T}
 */
function between(a, b, t, name = '') {
  if (name === 'direction') return /** @type {typeof a} */ (slerp(/** @type {any} */ (a), /** @type {any} */ (b), t));
  if (typeof a === 'number' && typeof b === 'number') return /** @type {typeof a} */ (a + (b - a) * t);
  if (Array.isArray(a) && Array.isArray(b)) return /** @type {any} */ (a.map((each, k) => between(each, b[k], t)));
  if (typeof a !== 'object' || a === null || typeof b !== 'object' || b === null) return a;
  const fields = Object.entries(a).map(([key, value]) => [key, between(value, Reflect.get(b, key), t, key)]);
  return Object.fromEntries(fields);
}

/** @type {(a: Vector, b: Vector, t: number) => Vector} */
function slerp(a, b, t) {
  const [p, q] = [unit(a), unit(b)];
  const angle = Math.acos(Math.min(1, Math.max(-1, p[0] * q[0] + p[1] * q[1] + p[2] * q[2])));
  if (angle < 1e-4) return a;
  const [u, v] = [Math.sin((1 - t) * angle), Math.sin(t * angle)];
  const way = /** @type {Vector} */ (p.map((each, k) => each * u + q[k] * v));
  return way.some((each) => Math.abs(each) > 1e-6) ? unit(way) : [0, 0, 1];
}

/** @type {(vector: Vector) => Vector} */
function unit([x, y, z]) {
  const length = Math.hypot(x, y, z) || 1;
  return [x / length, y / length, z / length];
}
