// The page: puts the parts together and decides what happens when.

import * as api from './api.js';
import { decode } from './address.js';
import { $, around, buttonAt, canvasAt, clamp, findAll } from './dom.js';
import { Gestures } from './gestures.js';
import { Handles } from './handles.js';
import { hero } from './hero.js';
import { frameSide, Live } from './live.js';
import { complain, hideToast, say, settle, stageWords, toast, working } from './notices.js';
import { exampleFile, watchForPhotos } from './open.js';
import { Panel } from './panel.js';
import { Photo, save } from './photo.js';
import { inWords, learnDefaults, toBody } from './rig.js';
import { askKey, onKey } from './keys.js';
import { Sharing } from './sharing.js';
import { Store } from './store.js';
import { Viewer } from './viewer.js';

/**
 * @typedef {import('./live.js').Frame} Frame
 * @typedef {import('./live.js').Trouble} Trouble
 * @typedef {import('./viewer.js').View} View
 */

const store = new Store();
const viewer = new Viewer(canvasAt('#canvas'));
const live = new Live(() => toBody(store.rig), () => viewer.sharpSide);
const handles = new Handles(store, viewer);
const panel = new Panel(store);
const drawHero = hero();
const sharing = new Sharing(store, () => photo?.id || '…');
/** @type {Photo | null} */
let photo = null;

/** @param {'empty' | 'busy' | 'ready'} state */
function show(state) {
  document.body.dataset.state = state;
  for (const node of findAll('[data-needs-photo]', HTMLButtonElement)) node.disabled = state !== 'ready';
  $('#panel').inert = state === 'busy';
  drawHero();
}

// ---- opening -------------------------------------------------------------------------------------------------------

/** @param {Photo} next */
async function openPhoto(next) {
  const previous = photo;
  const earlier = viewer.size;
  settle();
  hideToast();
  live.close();
  photo?.close();
  photo = next;
  setView('relit');
  if (next.file) {
    const local = await createImageBitmap(next.file).catch(() => null); // the browser may not read what the server does
    if (photo !== next) {
      local?.close();
      return;
    }
    viewer.clear();
    if (local) viewer.setFrame('before', local);
  } else viewer.clear();
  show('busy');
  try {
    const { width, height } = await next.open((step) => {
      if (photo !== next) return;
      if (step.state?.width) viewer.setSize(step.state.width, step.state.height);
      working(step);
      say(stageWords(step.stage));
    });
    if (photo !== next) return;
    working(null);
    begun(next, [width, height]);
    document.title = `${next.name} – Relight`;
    handles.sync();
    say('Ready. Move a light with its handle or the arrow keys.', 300);
  } catch (error) {
    if (photo !== next) return;
    working(null);
    if (!api.isAbort(error)) recover(error, next, previous, earlier);
  }
}

/**
 * A photo that the server has read is on the stage, to be lit.
 * @param {Photo} ready
 * @param {[width: number, height: number]} size
 */
function begun(ready, size) {
  viewer.setSize(...size);
  show('ready');
  live.open({ id: ready.id });
  live.ask();
}

/**
 * A photo that could not be opened gives way to the one before it.
 * @param {unknown} error
 * @param {Photo} failed
 * @param {Photo | null} previous
 * @param {[width: number, height: number] | null} earlier  size of the one before
 */
function recover(error, failed, previous, earlier) {
  photo = null;
  viewer.clear();
  explain(api.asProblem(error), failed);
  if (previous?.id && earlier && previous !== failed) {
    photo = new Photo({ id: previous.id, file: previous.file, name: previous.name });
    photo.remember();
    begun(photo, earlier);
  } else show('empty');
}

/**
 * Says why a photo could not be opened, and offers what may help.
 * @param {api.Problem} error
 * @param {Photo} failed
 */
function explain(error, failed) {
  const { id, file, name } = failed;
  const gone = error.code === 'job_not_found';
  if (id && gone) failed.forget();
  if (error.code === 'unauthorized') askKey(error, () => openPhoto(new Photo(id ? { id, name } : { file })));
  else if (!file && gone) toast('The previous photo is no longer on the server.');
  else if (error.status >= 400 && error.status < 500) complain(error); // the same file would fare the same
  else complain(error, { action: 'Try again', onAction: () => openPhoto(new Photo(file ? { file } : { id, name })) });
}

function closePhoto() {
  live.close();
  photo?.close();
  photo = null;
  viewer.clear();
  document.title = 'Relight';
  $('#readout').textContent = '';
  show('empty');
}

watchForPhotos((file) => openPhoto(new Photo({ file })));
buttonAt('#example').onclick = () => exampleFile().then((file) => openPhoto(new Photo({ file })), complain);

// ---- light ---------------------------------------------------------------------------------------------------------

function showHistory() {
  buttonAt('#undo').disabled = !store.canUndo;
  buttonAt('#redo').disabled = !store.canRedo;
}
store.addEventListener('change', () => {
  const { moving } = store;
  live.ask({ moving });
  showHistory();
  if (!moving && photo) say(`${store.selected + 1}: ${inWords(store.light)}`, 500);
  sharing.update();
});
showHistory();
buttonAt('#undo').onclick = () => store.undo();
buttonAt('#redo').onclick = () => store.redo();
addEventListener('keydown', (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  if (around(event, 'input[type=text], input[type=password], textarea')) return; // text has an undo of its own
  const pressed = event.key.toLowerCase();
  if (pressed === 'z') (event.shiftKey ? store.redo() : store.undo());
  else if (pressed === 'y') store.redo();
  else return;
  event.preventDefault();
});

const remove = () => {
  panel.remove();
  handles.focus();
};
const compare = () => buttonAt('#compare').click();
new Gestures($('#stage'), store, viewer, { split: setSplit, compare, remove, focus: () => handles.focus() });

// ---- seeing --------------------------------------------------------------------------------------------------------

live.addEventListener('asked', () => { document.body.dataset.frame = 'waiting'; });
live.addEventListener('frame', (event) => {
  const { bitmap, ms, stages, bytes, newest } = /** @type {CustomEvent<Frame>} */ (event).detail;
  viewer.setFrame('relit', bitmap);
  viewer.draw();
  $('#readout').textContent = `${bitmap.width} × ${bitmap.height} · ${Math.round(ms)} ms`;
  const total = stages.find(([name]) => name === 'total')?.[1];
  $('#readout').title = [
    `${Math.round(bytes / 1024)} kB in ${Math.round(ms)} ms`,
    ...(total ? [`server ${total} ms`] : []),
    ...stages.map(([name, each]) => `${name} ${each} ms`),
  ].join('\n');
  if (newest) document.body.dataset.frame = 'still';
  if ('away' in document.body.dataset) {
    delete document.body.dataset.away;
    toast('The server is back.');
    say('The server is back.');
  }
});

live.addEventListener('trouble', (event) => {
  const { error } = /** @type {CustomEvent<Trouble>} */ (event).detail;
  if (error.code === 'unreachable') {
    if (!('away' in document.body.dataset)) {
      toast('The server is not responding. Trying again …', { stay: true });
      say('The server is not responding. Trying again.');
    }
    document.body.dataset.away = '';
  } else if (error.code === 'unauthorized') askKey(error, () => live.ask());
  else if (error.code === 'job_not_found') {
    const file = photo?.file;
    closePhoto();
    complain(error, file ? { action: 'Upload it again', onAction: () => openPhoto(new Photo({ file })) } : {});
  } else complain(error, { action: 'Try again', onAction: () => live.ask() });
});

viewer.addEventListener('move', () => {
  placeDivider();
  const zoom = `${Math.round(viewer.zoom * 100)} %`;
  $('#fit').textContent = zoom;
  $('#fit').setAttribute('aria-label', `${zoom}, fit to screen`);
  if (isSoft('relit') || (viewer.split !== null && isSoft('before'))) sharpen();
});
/**
 * Could the screen show more of a frame than it has, and the server send more?
 * @param {View | 'before'} name
 */
function isSoft(name) {
  const shown = viewer.frame(name);
  if (!shown || !viewer.size) return false;
  return Math.max(shown.width, shown.height) < Math.min(frameSide(viewer.sharpSide), Math.max(...viewer.size));
}
let sharpening = 0;
function sharpen() {
  clearTimeout(sharpening);
  sharpening = setTimeout(() => {
    if (isSoft('relit')) live.ask();
    if (viewer.split !== null && isSoft('before')) showBefore();
  }, 250);
}
buttonAt('#zoom-in').onclick = () => viewer.zoomBy(1.5);
buttonAt('#zoom-out').onclick = () => viewer.zoomBy(1 / 1.5);
buttonAt('#fit').onclick = () => viewer.fit();

const divider = $('#divider');
/** @param {number} share */
function setSplit(share) {
  viewer.split = clamp(share, 0, 1);
  divider.setAttribute('aria-valuenow', String(Math.round(viewer.split * 100)));
  placeDivider();
  viewer.draw();
}
function placeDivider() {
  if (viewer.split === null) return;
  const { x, y, w, h } = viewer.box;
  divider.style.transform = `translate(${x + w * viewer.split}px, ${y}px)`;
  divider.style.height = `${h}px`;
}
/** @type {Record<string, (share: number) => number>} */
const DIVIDER_KEYS = {
  ArrowLeft: (share) => share - 0.02,
  ArrowRight: (share) => share + 0.02,
  PageUp: (share) => share + 0.1,
  PageDown: (share) => share - 0.1,
  Home: () => 0,
  End: () => 1,
};
divider.onkeydown = (event) => {
  const step = DIVIDER_KEYS[event.key];
  if (!step || viewer.split === null) return;
  event.preventDefault();
  setSplit(step(viewer.split));
};
buttonAt('#compare').onclick = () => {
  if (viewer.split === null) {
    setView('relit');
    showBefore();
    setSplit(0.5);
  } else viewer.split = null;
  syncView();
};

/** The photo as it was, from the server: at strength 0 every pixel is the input's. */
async function showBefore() {
  const mine = photo;
  if (!mine) return;
  try {
    const look = { ...toBody(store.rig), strength: 0, max_side: frameSide(viewer.sharpSide), quality: 92 };
    const { blob } = await api.preview(mine.id, look);
    const bitmap = await createImageBitmap(blob);
    if (photo === mine) viewer.setFrame('before', bitmap);
    else bitmap.close();
  } catch (error) {
    if (photo === mine) complain(error);
  }
}

/** @param {View} view */
async function setView(view) {
  viewer.view = view;
  if (view !== 'relit') viewer.split = null;
  syncView();
  if (view === 'relit' || viewer.frame(view)) return;
  const mine = photo;
  if (!mine || !viewer.size) return;
  const [width, height] = viewer.size;
  try {
    const blob = await mine.pass(`${view}.png`);
    const share = Math.min(1, 4096 / Math.max(width, height));
    const bitmap = await createImageBitmap(blob, {
      resizeWidth: Math.round(width * share), resizeHeight: Math.round(height * share),
    });
    if (photo === mine) viewer.setFrame(view, bitmap);
    else bitmap.close();
  } catch (error) {
    if (photo === mine && !api.isAbort(error)) complain(error);
  }
}
function syncView() {
  $('#stage').dataset.view = viewer.view;
  divider.hidden = viewer.split === null;
  buttonAt('#compare').setAttribute('aria-pressed', String(viewer.split !== null));
  for (const input of findAll('[name=view]', HTMLInputElement)) input.checked = input.value === viewer.view;
  viewer.draw();
}
for (const input of findAll('[name=view]', HTMLInputElement)) {
  input.onchange = () => setView(/** @type {View} */ (input.value));
}

// ---- keeping -------------------------------------------------------------------------------------------------------

/**
 * Makes a file of the photo and hands it to the browser's downloads.
 * @param {HTMLButtonElement} button
 * @param {(photo: Photo) => Promise<Blob>} make
 * @param {string} suffix  of the file's name
 */
async function keep(button, make, suffix) {
  const mine = photo;
  if (!mine) return;
  button.disabled = true;
  const name = `${mine.name}-${suffix}.png`;
  try {
    const blob = await make(mine);
    save(blob, name);
    say(`Saved ${name}.`);
    toast(`Saved ${name}, ${(blob.size / 1e6).toFixed(1)} MB.`);
  } catch (error) {
    if (api.isAbort(error) || photo !== mine) return;
    if (api.asProblem(error).code === 'unauthorized') askKey(error);
    else complain(error, { action: 'Try again', onAction: () => button.click() });
  } finally {
    if (photo === mine) working(null);
    button.disabled = document.body.dataset.state !== 'ready';
  }
}
const download = buttonAt('#download');
download.onclick = () => keep(download, (mine) => mine.result(toBody(store.rig), working), 'relit');
for (const button of findAll('[data-pass]', HTMLButtonElement)) {
  const { pass = '' } = button.dataset;
  button.onclick = () => keep(button, (mine) => mine.pass(`${pass}.png`, working), pass);
}

buttonAt('#delete').onclick = async () => {
  const mine = photo;
  if (!mine) return;
  const { file } = mine;
  try {
    await mine.erase();
  } catch (error) {
    if (api.asProblem(error).code === 'unauthorized') askKey(error);
    else complain(error);
    return;
  }
  const words = 'Deleted. The photo and everything made from it are gone from the server.';
  say(words);
  if (photo !== mine) return; // another was opened meanwhile
  closePhoto();
  toast(words, file ? { action: 'Upload again', onAction: () => openPhoto(new Photo({ file })) } : {});
  $('#choose').focus();
};

// ---- begin ---------------------------------------------------------------------------------------------------------

/** The defaults and presets of this server; it also proves the key. */
async function learn() {
  const { defaults, presets } = await api.models();
  learnDefaults(defaults);
  panel.learnPresets(presets);
  panel.update();
}
onKey(learn);

async function begin() {
  const last = Photo.last();
  show('empty');
  $('#look-waits').hidden = decode(location.hash) === null || last !== null;
  const server = await api.ready();
  const withKeys = Boolean(server.keys);
  sharing.withKeys = withKeys;
  $('#open-key').hidden = !withKeys;
  const open = () => {
    if (last && !photo) openPhoto(last);
  };
  if (!server.up) complain(api.unreachable(), { action: 'Try again', onAction: begin });
  else if (withKeys && !api.key.get()) askKey(null, open);
  else {
    try {
      await learn();
    } catch (error) {
      if (api.asProblem(error).code === 'unauthorized') askKey(error, open);
      else complain(error);
    }
    open();
  }
}
begin();
