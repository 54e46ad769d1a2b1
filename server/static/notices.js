// What the page says: aloud (live regions), in a toast, and over the picture while it works.

import { asProblem } from './api.js';
import { $, find, h, icon } from './dom.js';

/**
 * @typedef {import('./api.js').Stage} Stage
 * @typedef {'sending' | 'checking' | 'reconnecting' | 'relighting' | 'rendering' | 'downloading'} PageStage
 * @typedef {{stage: Stage | PageStage, progress: number | null}} Step  `progress` 0..1, or null while unknown
 * @typedef {{action?: string, onAction?: () => void}} Offer  a button beside a message, and what it does
 */

let toastTimer = 0;
let sayTimer = 0;

/**
 * For screen readers only; late enough not to speak over every step of a drag.
 * @param {string} text
 */
export function say(text, delay = 0) {
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => { $('#said').textContent = text; }, delay);
}

/**
 * @param {string} text
 * @param {Offer & {stay?: boolean}} [options]
 */
export function toast(text, { action, onAction, stay = false } = {}) {
  clearTimeout(toastTimer);
  const node = $('#toast');
  node.replaceChildren(h('span', {}, text));
  if (action) {
    const onclick = () => {
      hideToast();
      onAction?.();
    };
    node.append(h('button', { type: 'button', className: 'quiet', onclick }, action));
  }
  node.dataset.shown = '';
  if (!stay) toastTimer = setTimeout(hideToast, action ? 12000 : 5000);
}

export function hideToast() {
  delete $('#toast').dataset.shown;
  toastTimer = setTimeout(() => $('#toast').replaceChildren(), 300);
}

/**
 * An error, in the server's words.
 * @param {unknown} error
 * @param {Offer} [offer]
 */
export function complain(error, { action, onAction } = {}) {
  const node = $('#problem');
  const { title, detail, message } = asProblem(error);
  const retry = () => {
    settle();
    onAction?.();
  };
  node.replaceChildren(
    icon('warn'),
    h('div', {}, h('strong', {}, title || 'Something went wrong'), h('p', {}, detail || message)),
    ...(action ? [h('button', { type: 'button', onclick: retry }, action)] : []),
    h('button', { type: 'button', className: 'ghost', 'aria-label': 'Dismiss', onclick: settle }, icon('close')),
  );
  node.hidden = false;
}

export function settle() {
  $('#problem').hidden = true;
  $('#problem').replaceChildren();
}

/**
 * The server's stages of an analysis, one to one, in words.
 * @type {Record<Stage, string>}
 */
export const SERVER_STAGES = {
  waiting: 'Waiting in the queue',
  reading: 'Reading the photo',
  estimating: 'Estimating depth and surfaces',
  fitting: 'Fitting the original light',
  storing: 'Storing depth and normals',
  ready: 'Ready',
  failed: 'Failed',
};

/**
 * What the page itself does around an analysis.
 * @type {Record<PageStage, string>}
 */
const PAGE_STAGES = {
  sending: 'Sending the photo',
  checking: 'Checking the photo',
  reconnecting: 'The server is not responding; trying again',
  relighting: 'Relighting at full size',
  rendering: 'Rendering the motion',
  downloading: 'Downloading',
};

const STAGES = { ...SERVER_STAGES, ...PAGE_STAGES };

/**
 * A stage in words; one that a newer server may add is shown by its name.
 * @param {Stage | PageStage} stage
 */
export const stageWords = (stage) => STAGES[stage] ?? String(stage);

/**
 * Shows work in progress over the picture; null ends it.
 * @param {Step | null} step
 */
export function working(step) {
  $('#work').hidden = !step;
  if (!step) return;
  const words = stageWords(step.stage);
  const bar = find('#work progress', HTMLProgressElement);
  if (step.progress === null) bar.removeAttribute('value');
  else bar.value = step.progress;
  const label = $('#work-label');
  if (label.textContent !== words) label.textContent = words;
  $('#work-share').textContent = step.progress ? `${Math.round(step.progress * 100)} %` : '';
}
