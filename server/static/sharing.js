// Passing a look on: as a link, or as code for somebody's own program.

import { $ } from './dom.js';
import { say, toast } from './notices.js';
import { asCurl, asJson, asPython } from './snippets.js';

const LANGUAGES = { json: ['JSON', asJson], curl: ['curl', asCurl], python: ['Python', asPython] };

export class Sharing {
  withKeys = false;
  #store;
  #jobId;

  constructor(store, jobId) {
    this.#store = store;
    this.#jobId = jobId;
    $('#copy-link').onclick = () => {
      store.commit();
      copy(location.href, 'Link to this look');
    };
    for (const input of document.querySelectorAll('[name=language]')) input.onchange = () => this.update();
    $('#show-code').onclick = () => {
      $('#code').showModal();
      this.update();
    };
    $('#copy-code').onclick = () => copy($('#snippet').textContent, this.#language[0]);
    for (const button of document.querySelectorAll('[data-close]')) button.onclick = () => button.closest('dialog').close();
  }

  get #language() {
    return LANGUAGES[$('[name=language]:checked').value];
  }

  update() {
    if ($('#code').open) $('#snippet').textContent = this.#language[1](this.#store.rig, this.#jobId(), this.withKeys);
  }
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard without https
    const field = document.createElement('textarea');
    field.value = text;
    ($('#code').open ? $('#code') : document.body).append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
  const words = `${what} copied.`;
  say(words);
  toast(words);
}
