// Passing a look on: as a link, or as code for somebody's own program.

import { $, buttonAt, dialogAt, find, findAll } from './dom.js';
import { say, toast } from './notices.js';
import { asCurl, asJavaScript, asJson, asPython } from './snippets.js';

/** @typedef {import('./rig.js').Rig} Rig */

/** @type {Record<string, [name: string, write: (rig: Rig, jobId: string, withKey: boolean) => string]>} */
const LANGUAGES = {
  json: ['JSON', asJson],
  curl: ['curl', asCurl],
  python: ['Python', asPython],
  javascript: ['JavaScript', asJavaScript],
};

export class Sharing {
  withKeys = false;
  #store;
  #jobId;

  /**
   * @param {import('./store.js').Store} store
   * @param {() => string} jobId
   */
  constructor(store, jobId) {
    this.#store = store;
    this.#jobId = jobId;
    buttonAt('#copy-link').onclick = () => {
      store.commit();
      copy(location.href, 'Link to this look');
    };
    for (const input of findAll('[name=language]', HTMLInputElement)) input.onchange = () => this.update();
    buttonAt('#show-code').onclick = () => {
      dialogAt('#code').showModal();
      this.update();
    };
    buttonAt('#copy-code').onclick = () => copy($('#snippet').textContent ?? '', this.#language[0]);
    for (const button of findAll('[data-close]', HTMLButtonElement)) {
      button.onclick = () => button.closest('dialog')?.close();
    }
  }

  get #language() {
    return LANGUAGES[find('[name=language]:checked', HTMLInputElement).value];
  }

  update() {
    if (!dialogAt('#code').open) return;
    $('#snippet').textContent = this.#language[1](this.#store.rig, this.#jobId(), this.withKeys);
  }
}

/** @type {(text: string, what: string) => Promise<void>} */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard without https
    const field = document.createElement('textarea');
    field.value = text;
    (dialogAt('#code').open ? dialogAt('#code') : document.body).append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
  const words = `${what} copied.`;
  say(words);
  toast(words);
}
