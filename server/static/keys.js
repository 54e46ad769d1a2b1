// Asking for the server's key.

import { asProblem, key } from './api.js';
import { $, buttonAt, dialogAt, fieldAt, find } from './dom.js';

/** @type {() => Promise<unknown>} */
let prove = async () => {};
/** @type {(() => unknown) | null} */
let then = null;

/** @param {() => Promise<unknown>} proof  a request that fails with a wrong key */
export function onKey(proof) {
  prove = proof;
}

/**
 * Opens the dialog with what the server said.
 * @param {unknown} [problem]
 * @param {() => unknown} [next]  runs once a key was accepted
 */
export function askKey(problem, next) {
  then = next ?? null;
  $('#key-problem').textContent = problem ? asProblem(problem).detail : '';
  fieldAt('#key').value = key.get();
  if (!dialogAt('#key-dialog').open) dialogAt('#key-dialog').showModal();
}

buttonAt('#open-key').onclick = () => askKey();
find('#key-form', HTMLFormElement).onsubmit = async (event) => {
  event.preventDefault();
  key.set(fieldAt('#key').value.trim());
  try {
    await prove();
  } catch (error) {
    $('#key-problem').textContent = asProblem(error).message;
    return;
  }
  dialogAt('#key-dialog').close();
  then?.();
  then = null;
};
