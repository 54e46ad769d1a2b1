// A photo on the server: from the upload to the day it is deleted.

import * as api from './api.js';

const LAST = 'relight.job';
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

export class Photo {
  id = null;
  state = {};
  file = null;
  #abort = new AbortController();

  constructor({ file = null, id = null, name = '' } = {}) {
    this.file = file;
    this.id = id;
    this.name = (file?.name || name || 'photo').replace(/\.[^.]*$/, '');
  }

  /** Uploads and waits for the analysis. `onStep({stage, progress, state})`; progress null while unknown. */
  async open(onStep) {
    if (!this.id) {
      onStep({ stage: 'upload', progress: 0 });
      const answer = await api.upload(this.file, {
        signal: this.#abort.signal, onProgress: (progress) => onStep({ stage: progress < 1 ? 'upload' : 'checking', progress }),
      });
      this.id = answer.job_id;
      this.state = answer;
    }
    this.remember();
    for await (const state of this.#states(onStep)) {
      this.state = state;
      onStep({ stage: state.stage || state.state, progress: state.progress ?? null, state });
      if (state.state === 'failed') {
        throw new api.Problem(state.error ?? { title: 'Analysis failed', detail: 'The photo could not be analysed.', code: 'model_error' });
      }
      if (state.state === 'ready') return state;
    }
    throw new DOMException('closed', 'AbortError');
  }

  /** States from the event stream, begun anew when it breaks off. */
  async* #states(onStep) {
    for (let pause = 300; !this.#abort.signal.aborted; pause = Math.min(5000, pause * 2)) {
      try {
        for await (const state of api.events(this.id, { signal: this.#abort.signal })) {
          pause = 300;
          yield state;
        }
        yield await api.job(this.id, { signal: this.#abort.signal });
      } catch (error) {
        if (!(error instanceof api.Problem ? ['unreachable', 'overloaded'].includes(error.code) : error.name !== 'AbortError')) throw error;
        onStep({ stage: 'reconnecting', progress: null });
      }
      await wait(pause);
    }
  }

  /** The full-size result as a blob. `onStep({stage, progress})`. */
  async result(body, onStep) {
    onStep({ stage: 'relighting', progress: null });
    await api.relight(this.id, body, { signal: this.#abort.signal });
    return this.pass('relit.png', onStep);
  }

  async pass(name, onStep) {
    onStep({ stage: 'downloading', progress: 0 });
    return api.download(this.id, name, { signal: this.#abort.signal, onProgress: (progress) => onStep({ stage: 'downloading', progress }) });
  }

  async erase() {
    try {
      await api.erase(this.id);
    } catch (error) {
      if (error.code !== 'job_not_found') throw error; // gone is gone
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
      if (JSON.parse(sessionStorage.getItem(LAST))?.id === this.id) sessionStorage.removeItem(LAST); // it may be another by now
    } catch { /* nothing was kept */ }
  }

  /** The photo that this tab showed before it was reloaded. */
  static last() {
    try {
      const { id, name } = JSON.parse(sessionStorage.getItem(LAST));
      return id ? new Photo({ id, name }) : null;
    } catch {
      return null;
    }
  }
}

/** Hands a blob to the browser's downloads. */
export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 30000);
}
