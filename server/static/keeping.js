// Taking the photo's files home, and taking the photo off the server.

import * as api from './api.js';
import { buttonAt, findAll } from './dom.js';
import { askKey } from './keys.js';
import { complain, say, toast, working } from './notices.js';
import { save } from './photo.js';
import { toBody } from './rig.js';

/** @typedef {import('./photo.js').Photo} Photo */

/**
 * @param {import('./store.js').Store} store
 * @param {() => Photo | null} open  the photo that is open
 * @param {object} act  what the page does
 * @param {(error: unknown) => void} act.gone
 * @param {(photo: Photo, words: string) => void} act.erased
 * @param {() => Promise<void>} act.saved  waits until the server has what is painted
 */
export function keeping(store, open, { gone, erased, saved }) {
  /**
   * Makes a file of the photo and hands it to the browser's downloads.
   * @param {HTMLButtonElement} button
   * @param {(photo: Photo) => Promise<Blob>} make
   * @param {string} file  what it is called after the photo's own name
   */
  async function keep(button, make, file) {
    const mine = open();
    if (!mine) return;
    button.disabled = true;
    const name = `${mine.name}-${file}`;
    try {
      await saved();
      const blob = await make(mine);
      save(blob, name);
      say(`Saved ${name}.`);
      toast(`Saved ${name}, ${(blob.size / 1e6).toFixed(1)} MB.`);
    } catch (error) {
      if (api.isAbort(error) || open() !== mine) return;
      const { code } = api.asProblem(error);
      if (code === 'unauthorized') askKey(error);
      else if (code === 'job_not_found') gone(error);
      else complain(error, { action: 'Try again', onAction: () => button.click() });
    } finally {
      if (open() === mine) working(null);
      button.disabled = document.body.dataset.state !== 'ready';
    }
  }

  const download = buttonAt('#download');
  download.onclick = () => keep(download, (mine) => mine.result(toBody(store.rig), working), 'relit.png');
  for (const button of findAll('[data-pass]', HTMLButtonElement)) {
    const { pass = '' } = button.dataset;
    button.onclick = () => keep(button, (mine) => mine.pass(pass, working), pass);
  }

  buttonAt('#delete').onclick = async () => {
    const mine = open();
    if (!mine) return;
    try {
      await mine.erase();
    } catch (error) {
      if (api.asProblem(error).code === 'unauthorized') askKey(error);
      else complain(error);
      return;
    }
    const words = 'Deleted. The photo and everything made from it are gone from the server.';
    say(words);
    if (open() === mine) erased(mine, words); // else another was opened meanwhile
  };
  return keep;
}
