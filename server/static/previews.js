// Pictures of the server's: one request in flight, the newest look next, never an older frame over a newer one.

import { asProblem, isAbort, preview } from './api.js';

export const SETTLE_MS = 160;
const SLOW_MS = 150;
const FAST_MS = 60;
// Few sizes, since the server prepares (and keeps) its maps for each.
const SIDES = [384, 512, 768, 1024, 1536, 2048, 3072, 4096];
const LARGEST_MOVING = 1536;

/**
 * @typedef {import('./api.js').Preview} Preview
 * @typedef {{id: string, size: [width: number, height: number]}} Job
 * @typedef {{moving: boolean, order: number}} Wanted  a frame to ask for: `moving` while a gesture goes on
 * @typedef {Wanted & {abort: AbortController}} Flight  a frame that was asked for
 * @typedef {object} Frame  detail of the event `frame`
 * @property {ImageBitmap | HTMLCanvasElement} picture
 * @property {number} ms
 * @property {Preview['stages']} stages
 * @property {number} bytes
 * @property {boolean} newest  is it the last look asked for, and sharp?
 * @typedef {{error: import('./api.js').Problem}} Trouble  detail of the event `trouble`
 */

/**
 * The size of frame to ask for where the screen can show `wanted` pixels.
 * @param {number} wanted
 */
export const frameSide = (wanted) => SIDES.find((side) => side >= wanted) ?? SIDES[SIDES.length - 1];

export class Previews extends EventTarget {
  /** @type {Job | null} */
  job = null;
  // A frame that was given up may reach the server after the one that follows it, and must not push that one out: each
  // time one is given up, those after it have a stream of their own.
  #stream = crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  #givenUp = 0;
  #look;
  #fullSide;
  /** @type {Wanted | null} */
  #wanted = null;
  /** @type {Flight | null} */
  #flight = null;
  #asked = 0;
  #painted = 0;
  #movingSide = 768;
  #pulse = 0; // frames in a row that came fast (> 0) or slowly (< 0)
  #settle = 0;
  #pause = 0;

  /**
   * @param {() => import('./rig.js').Body} look  the body at the moment of sending
   * @param {() => number} fullSide  the side that the screen can show
   */
  constructor(look, fullSide) {
    super();
    this.#look = look;
    this.#fullSide = fullSide;
  }

  /** @param {Job} job */
  open(job) {
    this.close();
    this.job = job;
  }

  close() {
    this.drop();
    this.job = null;
  }

  /** No frame that was asked for is wanted any more. */
  drop() {
    this.#giveUp();
    clearTimeout(this.#settle);
    clearTimeout(this.#pause);
    this.#wanted = this.#flight = null;
    this.#pause = 0;
  }

  #giveUp() {
    this.#flight?.abort.abort();
    this.#givenUp += 1;
  }

  /** Asks for a frame of the rig as it is. While it moves the frame is small; once it rests, as sharp as the screen. */
  ask({ moving = false } = {}) {
    if (!this.job) return;
    this.#asked += 1;
    this.#wanted = { moving, order: this.#asked };
    clearTimeout(this.#settle);
    this.#tell('asked');
    if (moving) {
      this.#settle = setTimeout(() => this.ask(), SETTLE_MS);
      if (this.#flight && !this.#flight.moving) this.#giveUp(); // a sharp frame of what is gone
    }
    this.#next();
  }

  async #next() {
    if (this.#flight || this.#pause || !this.#wanted || !this.job) return;
    const { job } = this;
    const flight = { ...this.#wanted, abort: new AbortController() };
    this.#wanted = null;
    this.#flight = flight;
    let rest = 0;
    try {
      await this.#fly(job, flight);
    } catch (error) {
      if (this.job !== job) return;
      if (!isAbort(error)) rest = this.#trouble(asProblem(error), flight);
    } finally {
      if (this.#flight === flight) this.#flight = null;
    }
    if (rest) {
      this.#pause = setTimeout(() => {
        this.#pause = 0;
        this.#next();
      }, rest);
    } else this.#next();
  }

  /**
   * Asks for a frame and passes it on, unless it is no longer wanted once it comes.
   * @param {Job} job
   * @param {Flight} flight
   */
  async #fly(job, { moving, order, abort }) {
    const full = frameSide(this.#fullSide());
    const side = moving ? Math.min(full, this.#movingSide) : full;
    const stream = `${this.#stream}-${this.#givenUp}`;
    const body = { ...this.#look(), max_side: side, quality: moving ? 80 : 92, stream };
    const answer = await preview(job.id, body, { signal: abort.signal });
    const bitmap = await createImageBitmap(answer.blob);
    if (this.job !== job || order < this.#painted || abort.signal.aborted) {
      bitmap.close();
      return;
    }
    this.#painted = order;
    if (moving) this.#pace(answer);
    const { ms, stages, blob } = answer;
    this.#tell('frame', { picture: bitmap, ms, stages, bytes: blob.size, newest: order === this.#asked && !moving });
  }

  /**
   * What to do about a failed frame: how long to wait before the next one, in ms.
   * @param {import('./api.js').Problem} error
   * @param {Flight} flight
   */
  #trouble(error, flight) {
    const again = ['overloaded', 'unreachable', 'superseded'].includes(error.code);
    if (again) this.#wanted ??= { moving: false, order: flight.order };
    if (error.code === 'superseded') return 50;
    if (error.code === 'overloaded') return 1000 * (error.retryAfter || 1);
    this.#tell('trouble', { error });
    return again ? 1500 : 0;
  }

  /**
   * Keeps the light under the finger: a smaller frame when they come slowly, a larger one when there is time.
   * @param {Preview} answer
   */
  #pace({ ms, stages }) {
    const maps = stages.find(([name]) => name === 'maps')?.[1] ?? 0; // made once for a size
    const time = ms - maps;
    if (time > SLOW_MS) this.#pulse = Math.min(0, this.#pulse) - 1;
    else if (time < FAST_MS) this.#pulse = Math.max(0, this.#pulse) + 1;
    const step = this.#pulse <= -3 ? -1 : this.#pulse >= 12 ? 1 : 0;
    if (!step) return;
    this.#pulse = 0;
    this.#movingSide = SIDES[SIDES.indexOf(this.#movingSide) + step] ?? this.#movingSide;
    this.#movingSide = Math.min(LARGEST_MOVING, this.#movingSide);
  }

  /**
   * @param {'asked' | 'frame' | 'trouble'} type
   * @param {Frame | Trouble} [detail]
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
