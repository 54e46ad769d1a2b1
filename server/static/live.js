// Who lights the photo: relight.js on this machine's GPU, once it has the maps; the server until then, for what is
// larger than the maps, and where the GPU cannot.

import { address, asProblem, key, Problem } from './api.js';
import { frameSide, Previews, SETTLE_MS } from './previews.js';

const SLOW_MS = 40; // between two frames of a light that moves
const FAST_MS = 20;
const LARGEST_MAPS = 2048;

/**
 * @typedef {import('./previews.js').Frame} Frame
 * @typedef {import('./previews.js').Job} Job
 * @typedef {import('./relight.d.ts').RelightError} RelightError
 * @typedef {import('./relight.d.ts').RelightView} RelightView
 * @typedef {NonNullable<import('./relight.d.ts').RenderOptions['step']>} Step
 */

/** Tells of `asked`, `frame` and `trouble` as Previews does, and of `live` once the GPU takes over. */
export class Live extends EventTarget {
  /** What is shown: the picture, or its light alone. @type {'picture' | 'light'} */
  show = 'picture';
  #look;
  #fullSide;
  #previews;
  #canvas;
  /** @type {RelightView | null} */
  #view = null;
  #abort = new AbortController();
  #asked = false;
  #moving = false;
  #settle = 0;
  /** @type {Step} */
  #step = 1;
  #drawn = 0;
  #pulse = 0; // frames in a row that came fast (> 0) or slowly (< 0)
  /** Masks as they are painted here, before the server has them. @type {Map<string, HTMLCanvasElement>} */
  #masks = new Map();

  /**
   * @param {HTMLCanvasElement} canvas  one for all photos: browsers allow few contexts
   * @param {() => import('./rig.js').Body} look  the body at the moment of drawing
   * @param {() => number} fullSide  the side that the screen can show
   */
  constructor(canvas, look, fullSide) {
    super();
    this.#canvas = canvas;
    this.#look = look;
    this.#fullSide = fullSide;
    this.#previews = new Previews(look, fullSide);
    for (const type of ['asked', 'frame', 'trouble']) {
      this.#previews.addEventListener(type, (event) => this.#tell(type, /** @type {CustomEvent} */ (event).detail));
    }
  }

  /** Does the GPU light the photo? */
  get isLive() {
    return this.#view !== null;
  }

  /** Where the photo's own light came from, where that is known. */
  get ownLight() {
    return this.#view?.ownLight ?? null;
  }

  /** @type {import('./surroundings.js').Irradiance} */
  irradiance(name, normal, rotation) {
    return this.#view?.irradiance(name, normal, rotation) ?? null;
  }

  /** @type {(name: string, canvas: HTMLCanvasElement | null) => void} the server's anew, where there is no canvas */
  setMask(name, canvas) {
    if (canvas) this.#masks.set(name, canvas);
    else this.#masks.delete(name);
    this.#view?.setMask(name, canvas);
  }

  /** @param {Job} job */
  open(job) {
    this.close();
    this.#previews.open(job);
    this.#takeOver(job, this.#abort.signal);
  }

  close() {
    this.#previews.close();
    clearTimeout(this.#settle);
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#view?.destroy();
    this.#view = null;
    this.#masks.clear();
    this.show = 'picture';
  }

  /** @type {(job: Job, signal: AbortSignal) => Promise<void>} */
  async #takeOver({ id }, signal) {
    try {
      const { relight } = await import('./relight.js'); // not before there is a photo
      const view = await relight(this.#canvas, {
        base: address('.').href, jobId: id, key: key.get() || undefined, mode: 'webgl', signal,
      });
      if (signal.aborted) {
        view.destroy();
        return;
      }
      view.addEventListener('restored', () => this.#shown(performance.now()));
      view.addEventListener('error', () => this.#giveUp());
      for (const mask of this.#masks) view.setMask(...mask);
      this.#view = view;
    } catch (error) {
      const { name } = /** @type {Error} */ (error);
      if (name === 'RelightError' || signal.aborted) return; // the server goes on lighting the photo
      throw error;
    }
    this.#tell('live');
    this.ask();
  }

  #giveUp() {
    this.#view?.destroy();
    this.#view = null;
    this.#previews.ask();
  }

  /** Asks for a frame of the rig as it is; while it moves at a size that keeps the rate, once it rests sharp. */
  ask({ moving = false } = {}) {
    if (!this.#view) {
      this.#previews.ask({ moving });
      return;
    }
    this.#previews.drop(); // what is on its way is older
    clearTimeout(this.#settle);
    this.#tell('asked');
    this.#moving = moving;
    if (moving) this.#settle = setTimeout(() => this.ask(), SETTLE_MS);
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame((now) => {
      this.#asked = false;
      this.#draw(now);
    });
  }

  /** @param {number} now */
  async #draw(now) {
    const view = this.#view;
    if (!view) return;
    if (this.#moving) this.#pace(now - this.#drawn);
    this.#drawn = now;
    try {
      const began = performance.now();
      if (!(await view.render(this.#look(), { step: this.#moving ? this.#step : 1, show: this.show }))) return;
      this.#shown(began);
    } catch (error) {
      const { message, code = 'internal', status = 0 } = /** @type {Partial<RelightError>} */ (error);
      const title = code === 'job_not_found' ? 'Photo not found' : 'The light is refused';
      this.#tell('trouble', { error: new Problem({ title, detail: message, code, status }) });
      return;
    }
    if (!this.#moving) await this.#sharpen(view);
  }

  /** @param {number} began */
  #shown(began) {
    this.#tell('frame', {
      picture: this.#canvas, ms: performance.now() - began, stages: [], bytes: 0, newest: !this.#moving,
    });
  }

  /**
   * Gets what the screen can show more: larger maps, or beyond those the server's picture.
   * @param {RelightView} view
   */
  async #sharpen(view) {
    const side = Math.max(view.width, view.height);
    const wanted = frameSide(this.#fullSide());
    const most = Math.max(...(this.#previews.job?.size ?? [0]));
    if (wanted <= side || side >= most || this.show === 'light' || this.#masks.size) return;
    if (side >= LARGEST_MAPS) {
      this.#previews.ask();
      return;
    }
    try {
      await view.resize(LARGEST_MAPS);
      if (this.#view === view) this.ask();
    } catch (error) {
      if (this.#view === view && !(error instanceof DOMException)) this.#tell('trouble', { error: asProblem(error) });
    }
  }

  /**
   * Keeps the rate: fewer pixels while frames come slowly, more when there is time.
   * @param {number} since  the frame before, in ms
   */
  #pace(since) {
    if (since > 250) return; // it had been resting
    if (since > SLOW_MS) this.#pulse = Math.min(0, this.#pulse) - 1;
    else if (since < FAST_MS) this.#pulse = Math.max(0, this.#pulse) + 1;
    const change = this.#pulse <= -3 ? 1 : this.#pulse >= 60 ? -1 : 0;
    if (!change) return;
    this.#pulse = 0;
    this.#step = /** @type {Step} */ (Math.min(Math.max(this.#step + change, 1), 4));
  }

  /** @type {(type: string, detail?: object) => void} */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
