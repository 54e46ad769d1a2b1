// The page: puts the parts together and decides what happens when.

import * as api from './api.js';
import { decode } from './address.js';
import { $, around, buttonAt, canvasAt, find, findAll } from './dom.js';
import { Gestures } from './gestures.js';
import { Handles } from './handles.js';
import { hero } from './hero.js';
import { keeping } from './keeping.js';
import { Live } from './live.js';
import { Masks } from './masks.js';
import { Motion } from './motion.js';
import { complain, hideToast, say, settle, stageWords, toast, working } from './notices.js';
import { exampleFile, watchForPhotos } from './open.js';
import { Panel } from './panel.js';
import { Photo } from './photo.js';
import { inWords, learnDefaults, toBody } from './rig.js';
import { askKey, onKey } from './keys.js';
import { Seeing } from './seeing.js';
import { Sharing } from './sharing.js';
import { Store } from './store.js';
import { Surroundings } from './surroundings.js';
import { Viewer } from './viewer.js';

/**
 * @typedef {import('./previews.js').Frame} Frame
 * @typedef {import('./previews.js').Trouble} Trouble
 */

const store = new Store();
const viewer = new Viewer(canvasAt('#canvas'));
/** @type {Motion | null} */
let motion = null;
const live = new Live(canvasAt('#live'), () => motion?.body ?? toBody(store.rig), () => viewer.sharpSide);
const handles = new Handles(store, viewer);
const panel = new Panel(store);
const surroundings = new Surroundings(store, (...of) => live.irradiance(...of));
const masks = new Masks(store, viewer, live, {
  gone: (error) => gone(error), tool: (tool) => { gestures.tool = tool; },
});
motion = new Motion(store, (options) => live.ask(options), () => photo);
const drawHero = hero();
const sharing = new Sharing(store, () => photo?.id || '…');
/** @type {Photo | null} */
let photo = null;
const seeing = new Seeing(viewer, live, store, () => photo);

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
  masks.close();
  motion?.stop();
  live.close();
  delete document.body.dataset.live;
  handles.ownLight = null;
  photo?.close();
  photo = next;
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
  masks.open(ready);
  live.open({ id: ready.id, size });
  live.ask();
  seeing.begin();
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
    photo.has = previous.has;
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
  const lost = error.code === 'job_not_found';
  if (id && lost) failed.forget();
  if (error.code === 'unauthorized') askKey(error, () => openPhoto(new Photo(id ? { id, name } : { file })));
  else if (!file && lost) toast('The previous photo is no longer on the server.');
  else if (error.status >= 400 && error.status < 500) complain(error); // the same file would fare the same
  else complain(error, { action: 'Try again', onAction: () => openPhoto(new Photo(file ? { file } : { id, name })) });
}

function closePhoto() {
  masks.close();
  motion?.stop();
  live.close();
  delete document.body.dataset.live;
  photo?.close();
  photo = null;
  viewer.clear();
  document.title = 'Relight';
  $('#readout').textContent = '';
  show('empty');
}

watchForPhotos((file) => openPhoto(new Photo({ file })), (file) => (photo ? surroundings.match(file) : undefined));
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
const compare = () => seeing.compare();
/** @param {number} share */
const split = (share) => seeing.split(share);
const gestures = new Gestures($('#stage'), store, viewer, {
  split, compare, remove, focus: () => handles.focus(), paint: () => masks.paint(),
});
addEventListener('keydown', (event) => {
  if (event.key !== '?' || around(event, 'input[type=text], input[type=password], textarea')) return;
  const keys = find('.keys', HTMLDetailsElement);
  keys.open = true;
  keys.scrollIntoView({ block: 'nearest' });
  find('.keys summary', HTMLElement).focus();
});

// ---- frames --------------------------------------------------------------------------------------------------------

live.addEventListener('asked', () => { document.body.dataset.frame = 'waiting'; });
live.addEventListener('live', () => {
  document.body.dataset.live = '';
  handles.ownLight = live.ownLight;
  handles.sync();
  surroundings.update();
});
live.addEventListener('frame', (event) => {
  const { picture, ms, stages, bytes, newest } = /** @type {CustomEvent<Frame>} */ (event).detail;
  viewer.setFrame('relit', picture);
  viewer.draw();
  $('#readout').textContent = `${picture.width} × ${picture.height} · ${Math.round(ms)} ms`;
  $('#readout').title = bytes ? [
    `${Math.round(bytes / 1024)} kB in ${Math.round(ms)} ms`, ...stages.map(([name, each]) => `${name} ${each} ms`),
  ].join('\n') : 'Lit in this browser';
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
  else if (error.code === 'job_not_found') gone(error);
  else if (error.code === 'mask_not_found') masks.lost(error);
  else complain(error, { action: 'Try again', onAction: () => live.ask() });
});

/** The photo is no longer on the server, or the one whose light it is lit by. @param {unknown} error */
function gone(error) {
  if (store.rig.environment?.photo) {
    store.apply((rig) => { delete rig.environment; });
    complain(error);
    return;
  }
  const file = photo?.file;
  closePhoto();
  complain(error, file ? { action: 'Upload it again', onAction: () => openPhoto(new Photo({ file })) } : {});
}

const keep = keeping(store, () => photo, {
  gone,
  saved: () => masks.saved(),
  erased: ({ file }, words) => {
    closePhoto();
    surroundings.forget();
    toast(words, file ? { action: 'Upload again', onAction: () => openPhoto(new Photo({ file })) } : {});
    $('#choose').focus();
  },
});

motion.keepWith(keep);

// ---- begin ---------------------------------------------------------------------------------------------------------

/** The defaults and presets of this server; it also proves the key. */
async function learn() {
  const { defaults, presets, environments, models, limits } = await api.models();
  learnDefaults(defaults);
  panel.learnPresets(presets);
  surroundings.learn(environments);
  masks.learn(models);
  motion?.learn(limits.motions ?? []);
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
  else if (server.code === 'model_missing') complain(new api.Problem(server), { action: 'Try again', onAction: begin });
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
