// Ways for a photo to come in: chosen, photographed, dropped, pasted, or the built-in example.

import { around, buttonAt, fieldAt } from './dom.js';
import { address } from './api.js';

/** @type {(open: (file: File) => void, match: (file: File) => void) => void} */
export function watchForPhotos(open, match) {
  const field = fieldAt('#file');
  field.onchange = () => {
    const [file] = field.files ?? [];
    field.value = ''; // so that the same file can be chosen again
    field.removeAttribute('capture');
    if (file) open(file);
  };
  buttonAt('#choose').onclick = () => field.click();
  buttonAt('#camera').onclick = () => {
    field.setAttribute('capture', 'environment');
    field.click();
  };
  buttonAt('#camera').hidden = !matchMedia('(pointer: coarse)').matches;

  let depth = 0;
  /** @param {DragEvent} event */
  const isFile = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
  /** @param {boolean} on */
  const hint = (on) => document.body.toggleAttribute('data-dropping', on);
  addEventListener('dragenter', (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    depth += 1;
    hint(true);
  });
  addEventListener('dragover', (event) => isFile(event) && event.preventDefault());
  addEventListener('dragleave', (event) => {
    if (isFile(event)) hint((depth = Math.max(0, depth - 1)) > 0);
  });
  addEventListener('drop', (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    hint((depth = 0) > 0);
    const [file] = event.dataTransfer?.files ?? [];
    if (file) (around(event, '#surroundings') ? match : open)(file);
  });
  addEventListener('paste', (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith('image/'));
    if (!file) return;
    event.preventDefault();
    open(file);
  });
}

export async function exampleFile() {
  const response = await fetch(address('static/example.jpg'));
  if (!response.ok) throw new Error('The example is missing on this server.');
  return new File([await response.blob()], 'example.jpg', { type: 'image/jpeg' });
}
