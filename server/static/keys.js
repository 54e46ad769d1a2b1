// Asking for the server's key.

import { key } from './api.js';
import { $ } from './dom.js';

let prove = async () => {};
let then = null;

/** `proof`: a request that fails with a wrong key. */
export function onKey(proof) {
  prove = proof;
}

/** Opens the dialog with what the server said; `next` runs once a key was accepted. */
export function askKey(problem, next) {
  then = next;
  $('#key-problem').textContent = problem?.detail ?? '';
  $('#key').value = key.get();
  if (!$('#key-dialog').open) $('#key-dialog').showModal();
}

$('#open-key').onclick = () => askKey();
$('#key-form').onsubmit = async (event) => {
  event.preventDefault();
  key.set($('#key').value.trim());
  try {
    await prove();
  } catch (error) {
    $('#key-problem').textContent = error.detail || error.message;
    return;
  }
  $('#key-dialog').close();
  then?.();
  then = null;
};
