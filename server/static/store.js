// The rig and its past. Each finished change is an entry of the browser's own history, so the back button,
// undo and a shared link are one mechanism.

import { decode, encode } from './address.js';
import { newRig } from './rig.js';

const MERGE_MS = 900;

/**
 * @typedef {import('./rig.js').Rig} Rig
 * @typedef {import('./rig.js').Light} Light
 * @typedef {(rig: Rig, light: Light) => Rig | null | void} Edit  changes the rig in place, or gives another one
 * @typedef {{at: number, top: number}} Entry  what an entry of the browser's history keeps: its place, and the last one
 */

/** Tells of `change` and `select`. While it tells of a change, `moving` says whether a gesture goes on. */
export class Store extends EventTarget {
  /** @type {Rig} */
  rig;
  moving = false;
  selected = 0;
  #at = 0;
  #top = 0;
  /** @type {{kind: string | null, when: number}} */
  #last = { kind: null, when: 0 };

  constructor() {
    super();
    this.rig = decode(location.hash) ?? newRig();
    this.#at = history.state?.at ?? 0;
    this.#top = Math.max(this.#at, history.state?.top ?? 0);
    this.#keep('replaceState', location.hash);
    addEventListener('popstate', (event) => this.#travel(event.state));
  }

  get light() {
    return this.rig.lights[this.selected];
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#top;
  }

  /** @param {number} index */
  select(index) {
    this.selected = Math.min(Math.max(0, index), this.rig.lights.length - 1);
    this.#tell('select');
  }

  /**
   * Changes the rig while a gesture goes on: nothing is kept yet.
   * @param {Edit} edit
   */
  change(edit) {
    const result = edit(this.rig, this.light);
    if (result) this.rig = result;
    this.selected = Math.min(this.selected, this.rig.lights.length - 1);
    this.#tell('change', true);
  }

  /**
   * Keeps the rig as it is now. Changes of one `kind` in quick succession (arrow keys) are one entry.
   * @param {string | null} kind
   */
  commit(kind = null) {
    const hash = encode(this.rig);
    if (hash !== location.hash) {
      const now = performance.now();
      const merge = kind && kind === this.#last.kind && now - this.#last.when < MERGE_MS;
      if (!merge) {
        this.#at += 1;
        this.#top = this.#at;
      }
      this.#last = { kind, when: now };
      this.#keep(merge ? 'replaceState' : 'pushState', hash);
    }
    this.#tell('change', false);
  }

  /**
   * @param {Edit} edit
   * @param {string | null} kind
   */
  apply(edit, kind = null) {
    this.change(edit);
    this.commit(kind);
  }

  /**
   * Changes the rig that stands, with no way back.
   * @param {Edit} edit
   */
  amend(edit) {
    this.change(edit);
    this.#keep('replaceState', encode(this.rig));
    this.#tell('change', false);
  }

  undo() {
    if (this.canUndo) history.back();
  }

  redo() {
    if (this.canRedo) history.forward();
  }

  /** @type {(method: 'pushState' | 'replaceState', hash: string) => void} */
  #keep(method, hash) {
    /** @type {Entry} */
    const entry = { at: this.#at, top: this.#top };
    history[method](entry, '', hash || location.pathname + location.search);
  }

  /** @param {Entry | null} state */
  #travel(state) {
    this.#last = { kind: null, when: 0 };
    if (state && Number.isInteger(state.at)) this.#at = state.at;
    else { // an address typed or pasted into this tab
      this.#at += 1;
      this.#top = this.#at;
      this.#keep('replaceState', location.hash);
    }
    this.rig = decode(location.hash) ?? newRig();
    this.selected = Math.min(this.selected, this.rig.lights.length - 1);
    this.#tell('change', false);
  }

  /** @param {'change' | 'select'} type */
  #tell(type, moving = false) {
    this.moving = moving;
    this.dispatchEvent(new Event(type));
  }
}
