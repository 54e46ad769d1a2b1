// A photo on the server: from the upload to the day it is deleted.

import * as api from './api.js';

/**
 * @typedef {import('./api.js').JobState} JobState
 * @typedef {import('./notices.js').Step} Step
 * @typedef {(step: Step & {state?: JobState}) => void} OnStep  `state`: the server's, once it has one
 */

const LAST = 'relight.job';
/** @param {number} ms */
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Does it make sense to ask the server again after this?
 * @param {unknown} error
 */
function passes(error) {
  return error instanceof api.Problem ? ['unreachable', 'overloaded'].includes(error.code) : !api.isAbort(error);
}

export class Photo {
  #abort = new AbortController();

  /** @param {{file?: File | null, id?: string, name?: string}} options  a file to upload, or a job that is there */
  constructor({ file = null, id = '', name = '' } = {}) {
    this.file = file;
    this.id = id; // empty until it is uploaded
    /** What it has besides what every photo has. @type {{masks: string[], files: string[]}} */
    this.has = { masks: [], files: [] };
    this.name = (file?.name || name || 'photo').replace(/\.[^.]*$/, '');
  }

  /**
   * Uploads and waits for the analysis.
   * @param {OnStep} onStep
   * @returns {Promise<JobState>}
   */
  async open(onStep) {
    if (!this.id && this.file) this.id = await this.#upload(this.file, onStep);
    this.remember();
    for await (const state of this.#states(onStep)) {
      onStep({ stage: state.stage, progress: state.progress ?? null, state });
      if (state.state === 'failed') {
        const unknown = { title: 'Analysis failed', detail: 'The photo could not be analysed.', code: 'model_error' };
        throw new api.Problem(state.error ?? unknown);
      }
      if (state.state === 'ready') {
        this.has = { masks: state.masks ?? [], files: state.files ?? [] };
        return state;
      }
    }
    throw new DOMException('closed', 'AbortError');
  }

  /** @type {(file: File, onStep: OnStep) => Promise<string>} */
  async #upload(file, onStep) {
    onStep({ stage: 'sending', progress: 0 });
    const answer = await api.upload(file, {
      signal: this.#abort.signal,
      onProgress: (progress) => onStep({ stage: progress < 1 ? 'sending' : 'checking', progress }),
    });
    return answer.job_id;
  }

  /**
   * States from the event stream, begun anew when it breaks off.
   * @param {OnStep} onStep
   * @returns {AsyncGenerator<JobState, void, void>}
   */
  async* #states(onStep) {
    for (let pause = 300; !this.#abort.signal.aborted; pause = Math.min(5000, pause * 2)) {
      try {
        for await (const state of api.events(this.id, { signal: this.#abort.signal })) {
          pause = 300;
          yield state;
        }
        yield await api.job(this.id, { signal: this.#abort.signal });
      } catch (error) {
        if (!passes(error)) throw error;
        onStep({ stage: 'reconnecting', progress: null });
      }
      await wait(pause);
    }
  }

  /**
   * The result at full size.
   * @param {import('./rig.js').Body} body
   * @param {OnStep} onStep
   */
  async result(body, onStep) {
    onStep({ stage: 'relighting', progress: null });
    await api.relight(this.id, body, { signal: this.#abort.signal });
    return this.pass('relit.png', onStep);
  }

  /**
   * One of the photo's files on the server.
   * @param {string} name
   * @param {OnStep} [onStep]
   */
  async pass(name, onStep = () => {}) {
    /** @param {number} progress */
    const onProgress = (progress) => onStep({ stage: 'downloading', progress });
    onProgress(0);
    return api.download(this.id, name, { signal: this.#abort.signal, onProgress });
  }

  /**
   * A light that moves, as the server renders it, as a file.
   * @param {import('./api.js').Order} order
   * @param {OnStep} onStep
   */
  async motion(order, onStep) {
    onStep({ stage: 'rendering', progress: 0 });
    const { motion_path: path } = await api.animate(this.id, order, { signal: this.#abort.signal });
    for await (const { motion } of this.#states(onStep)) {
      if (!motion) throw new DOMException('stopped', 'AbortError');
      if (motion.state === 'failed') throw new api.Problem(motion.error ?? { title: 'The motion failed' });
      if (motion.state === 'ready') break;
      onStep({ stage: 'rendering', progress: motion.progress });
    }
    return this.pass(path.split('/').pop() ?? '', onStep);
  }

  async erase() {
    try {
      await api.erase(this.id);
    } catch (error) {
      if (api.asProblem(error).code !== 'job_not_found') throw error; // gone is gone
    }
    this.forget();
  }

  close() {
    this.#abort.abort();
  }

  remember() {
    try {
      sessionStorage.setItem(LAST, JSON.stringify({ id: this.id, name: this.name }));
    } catch { /* then a reload begins anew */ }
  }

  forget() {
    try {
      const last = JSON.parse(sessionStorage.getItem(LAST) ?? 'null');
      if (last?.id === this.id) sessionStorage.removeItem(LAST); // it may be another by now
    } catch { /* nothing was kept */ }
  }

  /** The photo that this tab showed before it was reloaded. */
  static last() {
    try {
      const { id, name } = JSON.parse(sessionStorage.getItem(LAST) ?? 'null');
      return id ? new Photo({ id, name }) : null;
    } catch {
      return null;
    }
  }
}

/**
 * Hands a blob to the browser's downloads.
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 30000);
}
