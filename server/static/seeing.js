// What of the photo is looked at: the relit picture or another, beside the photo as it was or a look that is held.

import * as api from './api.js';
import { $, buttonAt, clamp, findAll } from './dom.js';
import { complain, say } from './notices.js';
import { frameSide } from './previews.js';
import { toBody } from './rig.js';

/**
 * @typedef {import('./photo.js').Photo} Photo
 * @typedef {import('./viewer.js').View} View
 */

const LARGEST = 4096; // pixels of a pass on the screen
const SHARPEN_MS = 250;
const KEPT = 'relight.view';

/** @type {Record<string, (share: number) => number>} */
const DIVIDER_KEYS = {
  ArrowLeft: (share) => share - 0.02,
  ArrowRight: (share) => share + 0.02,
  PageUp: (share) => share + 0.1,
  PageDown: (share) => share - 0.1,
  Home: () => 0,
  End: () => 1,
};

export class Seeing {
  #viewer;
  #live;
  #store;
  #photo;
  #divider = $('#divider');
  #held = false;
  #sharpening = 0;

  /**
   * @param {import('./viewer.js').Viewer} viewer
   * @param {import('./live.js').Live} live
   * @param {import('./store.js').Store} store
   * @param {() => Photo | null} photo  the one that is open
   */
  constructor(viewer, live, store, photo) {
    this.#viewer = viewer;
    this.#live = live;
    this.#store = store;
    this.#photo = photo;
    viewer.addEventListener('move', () => this.#moved());
    buttonAt('#zoom-in').onclick = () => viewer.zoomBy(1.5);
    buttonAt('#zoom-out').onclick = () => viewer.zoomBy(1 / 1.5);
    buttonAt('#fit').onclick = () => viewer.fit();
    buttonAt('#compare').onclick = () => this.compare();
    buttonAt('#hold').onclick = () => this.#hold();
    this.#divider.onkeydown = (event) => {
      const step = DIVIDER_KEYS[event.key];
      if (!step || viewer.split === null) return;
      event.preventDefault();
      this.split(step(viewer.split));
    };
    for (const input of findAll('[name=view]', HTMLInputElement)) {
      input.onchange = () => this.show(/** @type {View} */ (input.value));
    }
    live.addEventListener('live', () => this.#offer());
  }

  /** Begins with another photo, which is shown as the last one was before a reload. */
  begin() {
    this.#held = false;
    this.#offer();
    let kept = null;
    try {
      kept = sessionStorage.getItem(KEPT);
    } catch { /* nothing was kept */ }
    const input = findAll('[name=view]', HTMLInputElement).find(({ value, disabled }) => value === kept && !disabled);
    this.show(input ? /** @type {View} */ (kept) : 'relit');
  }

  /** The light alone is drawn by the GPU only. */
  #offer() {
    for (const input of findAll('[name=view][value=light]', HTMLInputElement)) input.disabled = !this.#live.isLive;
  }

  /** @param {number} share */
  split(share) {
    this.#viewer.split = clamp(share, 0, 1);
    this.#divider.setAttribute('aria-valuenow', String(Math.round(this.#viewer.split * 100)));
    this.#placeDivider();
    this.#viewer.draw();
  }

  #placeDivider() {
    if (this.#viewer.split === null) return;
    const { x, y, w, h } = this.#viewer.box;
    this.#divider.style.transform = `translate(${x + w * this.#viewer.split}px, ${y}px)`;
    this.#divider.style.height = `${h}px`;
  }

  #moved() {
    this.#placeDivider();
    const zoom = `${Math.round(this.#viewer.zoom * 100)} %`;
    $('#fit').textContent = zoom;
    $('#fit').setAttribute('aria-label', `${zoom}, fit to screen`);
    if (this.#isSoft('relit') || this.#isSoft('before')) this.#sharpen();
  }

  /**
   * Could the screen show more of a frame than it has, and the server send more?
   * @param {View | 'before'} name
   */
  #isSoft(name) {
    if (name === 'before' && (this.#held || this.#viewer.split === null)) return false;
    const shown = this.#viewer.frame(name);
    if (!shown || !this.#viewer.size) return false;
    const most = Math.min(frameSide(this.#viewer.sharpSide), Math.max(...this.#viewer.size));
    return Math.max(shown.width, shown.height) < most;
  }

  #sharpen() {
    clearTimeout(this.#sharpening);
    this.#sharpening = setTimeout(() => {
      if (this.#isSoft('relit')) this.#live.ask();
      if (this.#isSoft('before')) this.#showBefore();
    }, SHARPEN_MS);
  }

  /** The photo as it was beside the picture, or no more. */
  compare() {
    if (this.#viewer.split === null) {
      this.#held = false;
      this.#beside('Before', 'After');
      this.#showBefore();
    } else this.#viewer.split = null;
    this.#sync();
  }

  /** The look as it is now beside those that follow, or no more. */
  async #hold() {
    if (this.#held && this.#viewer.split !== null) {
      this.compare();
      return;
    }
    const mine = this.#photo();
    const shown = this.#viewer.frame('relit');
    if (!mine || !shown) return;
    const bitmap = await createImageBitmap(shown);
    if (this.#photo() !== mine) {
      bitmap.close();
      return;
    }
    this.#held = true;
    this.#viewer.setFrame('before', bitmap);
    this.#beside('Held', 'Now');
    this.#sync();
    say('This look is held on the left. Change the light and compare.');
  }

  /** @type {(left: string, right: string) => void} */
  #beside(left, right) {
    $('#divider .before').textContent = left;
    $('#divider .after').textContent = right;
    this.#divider.setAttribute('aria-label', `${left} and ${right.toLowerCase()}`);
    this.show('relit');
    this.split(0.5);
  }

  /** The photo as it was, from the server: at strength 0 every pixel is the input's. */
  async #showBefore() {
    const mine = this.#photo();
    if (!mine) return;
    try {
      const side = frameSide(this.#viewer.sharpSide);
      const look = { ...toBody(this.#store.rig), strength: 0, max_side: side, quality: 92 };
      const { blob } = await api.preview(mine.id, look);
      const bitmap = await createImageBitmap(blob);
      if (this.#photo() === mine && !this.#held) this.#viewer.setFrame('before', bitmap);
      else bitmap.close();
    } catch (error) {
      if (this.#photo() === mine) complain(error);
    }
  }

  /** @param {View} view */
  async show(view) {
    const viewer = this.#viewer;
    const wasAlone = this.#live.show === 'light';
    viewer.view = view;
    if (view !== 'relit') viewer.split = null;
    this.#live.show = view === 'light' ? 'light' : 'picture';
    if (wasAlone !== (view === 'light')) this.#live.ask();
    this.#sync();
    try {
      sessionStorage.setItem(KEPT, view);
    } catch { /* then a reload begins anew */ }
    if (view !== 'relit' && view !== 'light' && !viewer.frame(view)) await this.#fetch(view);
  }

  /** @param {View} view  one of the photo's files */
  async #fetch(view) {
    const viewer = this.#viewer;
    const mine = this.#photo();
    if (!mine || !viewer.size) return;
    const [width, height] = viewer.size;
    try {
      const blob = await mine.pass(`${view}.png`);
      const share = Math.min(1, LARGEST / Math.max(width, height));
      const bitmap = await createImageBitmap(blob, {
        resizeWidth: Math.round(width * share), resizeHeight: Math.round(height * share),
      });
      if (this.#photo() === mine) viewer.setFrame(view, bitmap);
      else bitmap.close();
    } catch (error) {
      if (this.#photo() === mine && !api.isAbort(error)) complain(error);
    }
  }

  #sync() {
    const { view, split } = this.#viewer;
    $('#stage').dataset.view = view;
    this.#divider.hidden = split === null;
    buttonAt('#compare').setAttribute('aria-pressed', String(split !== null && !this.#held));
    buttonAt('#hold').setAttribute('aria-pressed', String(split !== null && this.#held));
    for (const input of findAll('[name=view]', HTMLInputElement)) input.checked = input.value === view;
    this.#viewer.draw();
  }
}
