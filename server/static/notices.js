// What the page says: aloud (live regions), in a toast, and over the picture while it works.

import { $, h, icon } from './dom.js';

let toastTimer = 0;
let sayTimer = 0;

/** For screen readers only; late enough not to speak over every step of a drag. */
export function say(text, delay = 0) {
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => { $('#said').textContent = text; }, delay);
}

export function toast(text, { action, onAction, stay = false } = {}) {
  clearTimeout(toastTimer);
  const node = $('#toast');
  node.replaceChildren(h('span', {}, text));
  if (action) {
    node.append(h('button', { type: 'button', className: 'quiet', onclick: () => { hideToast(); onAction(); } }, action));
  }
  node.dataset.shown = '';
  if (!stay) toastTimer = setTimeout(hideToast, action ? 12000 : 5000);
}

export function hideToast() {
  delete $('#toast').dataset.shown;
  toastTimer = setTimeout(() => $('#toast').replaceChildren(), 300);
}

/** An error, in the server's words. */
export function complain(error, { action, onAction } = {}) {
  const node = $('#problem');
  const close = h('button', { type: 'button', className: 'ghost', 'aria-label': 'Dismiss', onclick: settle }, icon('close'));
  const retry = action ? [h('button', { type: 'button', onclick: () => { settle(); onAction(); } }, action)] : [];
  node.replaceChildren(
    icon('warn'),
    h('div', {}, h('strong', {}, error.title || 'Something went wrong'), h('p', {}, error.detail || error.message || String(error))),
    ...retry, close,
  );
  node.hidden = false;
}

export function settle() {
  $('#problem').hidden = true;
  $('#problem').replaceChildren();
}

const STAGES = {
  upload: 'Sending the photo', checking: 'Checking the photo', queued: 'Waiting for its turn', analysing: 'Reading the scene',
  reconnecting: 'The server is away; trying again', relighting: 'Relighting at full size', downloading: 'Downloading',
};

/** A server's stage name in words: unknown ones as they are. */
export const stageWords = (stage) => STAGES[stage] ?? (stage[0].toUpperCase() + stage.slice(1)).replaceAll('_', ' ');

/** Shows work in progress over the picture; null ends it. `progress` 0..1, or null while unknown. */
export function working(step) {
  const node = $('#work');
  node.hidden = !step;
  if (!step) return;
  const words = stageWords(step.stage);
  const bar = $('progress', node);
  if (step.progress === null || step.progress === undefined) bar.removeAttribute('value');
  else bar.value = step.progress;
  const label = $('#work-label');
  if (label.textContent !== words) label.textContent = words;
  $('#work-share').textContent = step.progress ? `${Math.round(step.progress * 100)} %` : '';
}
