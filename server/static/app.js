// The page: puts the parts together and decides what happens when.

import * as api from './api.js';
import { decode } from './address.js';
import { $ } from './dom.js';
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

const store = new Store();
const viewer = new Viewer($('#canvas'));
const live = new Live(() => toBody(store.rig), () => viewer.sharpSide);
const handles = new Handles(store, viewer);
const panel = new Panel(store, () => (viewer.size ? viewer.size[1] / viewer.size[0] : 1));
const drawHero = hero();
const sharing = new Sharing(store, () => photo?.id ?? '…');
let photo = null;

function show(state) {
  document.body.dataset.state = state;
  for (const node of document.querySelectorAll('[data-needs-photo]')) node.disabled = state !== 'ready';
  $('#panel').inert = state === 'busy';
  drawHero();
}

// ---- opening -------------------------------------------------------------------------------------------------------

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
    if (photo !== next) return local?.close();
    viewer.clear();
    if (local) viewer.setFrame('before', local);
  } else viewer.clear();
  show('busy');
  try {
    const state = await next.open((step) => {
      if (photo !== next) return;
      if (step.state?.width) viewer.setSize(step.state.width, step.state.height);
      working(step);
      say(stageWords(step.stage));
    });
    if (photo !== next) return undefined;
    working(null);
    viewer.setSize(state.width, state.height);
    document.title = `${next.name} – Relight`;
    show('ready');
    live.open({ id: next.id });
    live.ask();
    handles.sync();
    say('Ready. Move a light with its handle or the arrow keys.', 300);
  } catch (error) {
    if (photo !== next) return undefined;
    working(null);
    if (error.name === 'AbortError') return undefined;
    await recover(error, next, previous, earlier);
  }
  return undefined;
}

/** A photo that could not be opened gives way to the one before it. */
async function recover(error, failed, previous, earlier) {
  photo = null;
  viewer.clear();
  if (failed.id && error.code === 'job_not_found') failed.forget();
  if (error.code === 'unauthorized') {
    askKey(error, () => openPhoto(failed.id ? new Photo({ id: failed.id, name: failed.name }) : new Photo({ file: failed.file })));
  } else if (!failed.file && error.code === 'job_not_found') toast('The photo from before is no longer on the server.');
  else if (error.status >= 400 && error.status < 500) complain(error); // the same file would fare the same
  else complain(error, { action: 'Try again', onAction: () => openPhoto(new Photo(failed.file ? { file: failed.file } : { id: failed.id, name: failed.name })) });
  if (previous?.id && earlier && previous !== failed) {
    photo = new Photo({ id: previous.id, file: previous.file, name: previous.name });
    photo.state = previous.state;
    photo.remember();
    viewer.setSize(...earlier);
    show('ready');
    live.open({ id: photo.id });
    live.ask();
  } else show('empty');
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
$('#example').onclick = () => exampleFile().then((file) => openPhoto(new Photo({ file })), complain);

// ---- light ---------------------------------------------------------------------------------------------------------

store.addEventListener('change', (event) => {
  live.ask({ moving: event.moving });
  $('#undo').disabled = !store.canUndo;
  $('#redo').disabled = !store.canRedo;
  if (!event.moving && photo) say(`${store.selected + 1}: ${inWords(store.light)}`, 500);
  sharing.update();
});
$('#undo').disabled = !store.canUndo;
$('#redo').disabled = !store.canRedo;
$('#undo').onclick = () => store.undo();
$('#redo').onclick = () => store.redo();
addEventListener('keydown', (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey || event.target.closest?.('input[type=text], input[type=password], textarea')) return;
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
new Gestures($('#stage'), store, viewer, { split: setSplit, compare: () => $('#compare').click(), remove, focus: () => handles.focus() });

// ---- seeing --------------------------------------------------------------------------------------------------------

live.addEventListener('asked', () => { document.body.dataset.frame = 'waiting'; });
live.addEventListener('frame', ({ detail }) => {
  const { bitmap, ms, stages, bytes, newest } = detail;
  viewer.setFrame('relit', bitmap);
  viewer.draw();
  const server = stages.find(([name]) => name === 'total')?.[1];
  $('#readout').textContent = `${bitmap.width} × ${bitmap.height} · ${Math.round(ms)} ms`;
  $('#readout').title = [`${Math.round(bytes / 1024)} kB in ${Math.round(ms)} ms`, server && `server ${server} ms`, ...stages.map(([name, each]) => `${name} ${each} ms`)].filter(Boolean).join('\n');
  if (newest) document.body.dataset.frame = 'still';
  if ('away' in document.body.dataset) {
    delete document.body.dataset.away;
    toast('The server is back.');
    say('The server is back.');
  }
});

live.addEventListener('trouble', ({ detail: { error } }) => {
  if (error.code === 'unreachable') {
    if (!('away' in document.body.dataset)) {
      toast('The server does not answer. Trying again …', { stay: true });
      say('The server does not answer. Trying again.');
    }
    document.body.dataset.away = '';
  } else if (error.code === 'unauthorized') askKey(error, () => live.ask());
  else if (error.code === 'job_not_found') {
    const { file } = photo;
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
/** Could the screen show more of a frame than it has, and the server send more? */
function isSoft(name) {
  const shown = viewer.frame(name);
  return shown && Math.max(shown.width, shown.height) < Math.min(frameSide(viewer.sharpSide), Math.max(...viewer.size));
}
let sharpening = 0;
function sharpen() {
  clearTimeout(sharpening);
  sharpening = setTimeout(() => {
    if (isSoft('relit')) live.ask();
    if (viewer.split !== null && isSoft('before')) showBefore();
  }, 250);
}
$('#zoom-in').onclick = () => viewer.zoomBy(1.5);
$('#zoom-out').onclick = () => viewer.zoomBy(1 / 1.5);
$('#fit').onclick = () => viewer.fit();

const divider = $('#divider');
function setSplit(share) {
  viewer.split = Math.min(1, Math.max(0, share));
  divider.setAttribute('aria-valuenow', Math.round(viewer.split * 100));
  placeDivider();
  viewer.draw();
}
function placeDivider() {
  if (viewer.split === null) return;
  const { x, y, w, h } = viewer.box;
  divider.style.transform = `translate(${x + w * viewer.split}px, ${y}px)`;
  divider.style.height = `${h}px`;
}
divider.onkeydown = (event) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02, PageUp: 0.1, PageDown: -0.1 }[event.key];
  const end = { Home: 0, End: 1 }[event.key];
  if (step === undefined && end === undefined) return;
  event.preventDefault();
  setSplit(end ?? viewer.split + step);
};
$('#compare').onclick = () => {
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
  try {
    const { blob } = await api.preview(mine.id, { ...toBody(store.rig), strength: 0, max_side: frameSide(viewer.sharpSide), quality: 92 }, {});
    const bitmap = await createImageBitmap(blob);
    if (photo === mine) viewer.setFrame('before', bitmap);
    else bitmap.close();
  } catch (error) {
    if (photo === mine) complain(error);
  }
}

async function setView(view) {
  viewer.view = view;
  if (view !== 'relit') viewer.split = null;
  syncView();
  if (view === 'relit' || viewer.frame(view)) return;
  const mine = photo;
  try {
    const blob = await mine.pass(`${view}.png`, () => {});
    const [width, height] = viewer.size;
    const share = Math.min(1, 4096 / Math.max(width, height));
    const bitmap = await createImageBitmap(blob, { resizeWidth: Math.round(width * share), resizeHeight: Math.round(height * share) });
    if (photo === mine) viewer.setFrame(view, bitmap);
    else bitmap.close();
  } catch (error) {
    if (photo === mine && error.name !== 'AbortError') complain(error);
  }
}
function syncView() {
  $('#stage').dataset.view = viewer.view;
  divider.hidden = viewer.split === null;
  $('#compare').setAttribute('aria-pressed', String(viewer.split !== null));
  for (const input of document.querySelectorAll('[name=view]')) input.checked = input.value === viewer.view;
  viewer.draw();
}
for (const input of document.querySelectorAll('[name=view]')) input.onchange = () => setView(input.value);

// ---- keeping -------------------------------------------------------------------------------------------------------

async function keep(button, make, name) {
  button.disabled = true;
  const mine = photo;
  try {
    const blob = await make();
    save(blob, name);
    say(`Saved ${name}.`);
    toast(`Saved ${name}, ${(blob.size / 1e6).toFixed(1)} MB.`);
  } catch (error) {
    if (error.name === 'AbortError' || photo !== mine) return;
    if (error.code === 'unauthorized') askKey(error);
    else complain(error, { action: 'Try again', onAction: () => button.click() });
  } finally {
    if (photo === mine) working(null);
    button.disabled = document.body.dataset.state !== 'ready';
  }
}
$('#download').onclick = (event) => keep(event.currentTarget, () => photo.result(toBody(store.rig), working), `${photo.name}-relit.png`);
for (const button of document.querySelectorAll('[data-pass]')) {
  const pass = button.dataset.pass;
  button.onclick = () => keep(button, () => photo.pass(`${pass}.png`, working), `${photo.name}-${pass}.png`);
}

$('#delete').onclick = async () => {
  const mine = photo;
  const { file } = mine;
  try {
    await mine.erase();
  } catch (error) {
    if (error.code === 'unauthorized') askKey(error);
    else complain(error);
    return;
  }
  const words = 'Deleted. The photo and all that was made from it are gone from the server.';
  say(words);
  if (photo !== mine) return; // another was opened meanwhile
  closePhoto();
  toast(words, file ? { action: 'Upload again', onAction: () => openPhoto(new Photo({ file })) } : {});
  $('#choose').focus();
};

// ---- begin ---------------------------------------------------------------------------------------------------------

/** The defaults of this server; it also proves the key. */
async function learn() {
  const { defaults } = await api.models();
  learnDefaults(defaults);
  panel.update();
}
onKey(learn);

async function begin() {
  const last = Photo.last();
  show('empty');
  $('#look-waits').hidden = decode(location.hash) === null || last !== null;
  const server = await api.ready();
  const withKeys = Boolean(server.auth ?? server.keys);
  sharing.withKeys = withKeys;
  $('#open-key').hidden = !withKeys;
  if (!server.up) complain({ title: 'No answer', detail: 'The server does not answer.' }, { action: 'Try again', onAction: begin });
  else if (withKeys && !api.key.get()) askKey(null, () => last && !photo && openPhoto(last));
  else {
    await learn().catch((error) => (error.code === 'unauthorized' ? askKey(error, () => last && openPhoto(last)) : complain(error)));
    if (last && !photo) openPhoto(last);
  }
}
begin();
