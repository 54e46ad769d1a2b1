// Where light goes: a mask for the selected light and one for the whole picture, and the photo's masks on the server.

import * as api from './api.js';
import { $, buttonAt, h } from './dom.js';
import { radios, slider, toggle } from './controls.js';
import { askKey } from './keys.js';
import { complain, say, toast } from './notices.js';
import { MOST_FEATHER } from './rig.js';

/**
 * @typedef {import('./brush.js').Brush} Brush
 * @typedef {import('./painting.js').Painting} Painting
 * @typedef {import('./photo.js').Photo} Photo
 * @typedef {import('./rig.js').Mask} Mask
 * @typedef {{name: string, brush: Brush}} Sheet  the mask that is painted
 */

const SAVE_MS = 300; // after a stroke
const MOST = 8; // masks of one's own, of a photo
/** What the server finds itself; nobody writes over it. @type {Record<string, string>} */
const FOUND = { subject: 'Subject', sky: 'Sky' };

/** @param {string} name */
function inWords(name) {
  const words = FOUND[name] ?? name.replace(/[-_]+/g, ' ').trim();
  return words ? words[0].toUpperCase() + words.slice(1) : name;
}

export class Masks {
  #store;
  #viewer;
  #live;
  #gestures;
  #gone;
  /** @type {Photo | null} */
  #photo = null;
  /** @type {'light' | 'picture'} */
  #of = 'light';
  /** @type {Painting | null} */
  #painting = null;
  /** @type {Sheet | null} */
  #sheet = null;
  #fresh = false; // is the sheet used by nothing yet?
  #edge = 0; // of the slider, while it moves
  #changes = 0;
  #stored = 0;
  #timer = 0;
  /** @type {Promise<void> | null} */
  #saving = null;
  /** @type {import('./controls.js').Control[]} */
  #controls = [];

  /**
   * @param {import('./store.js').Store} store
   * @param {import('./viewer.js').Viewer} viewer
   * @param {import('./live.js').Live} live
   * @param {import('./gestures.js').Gestures} gestures
   * @param {(error: unknown) => void} gone  the photo is no longer on the server
   */
  constructor(store, viewer, live, gestures, gone) {
    this.#store = store;
    this.#viewer = viewer;
    this.#live = live;
    this.#gestures = gestures;
    this.#gone = gone;
    const of = radios({
      legend: 'Mask of', options: { light: 'This light', picture: 'Whole picture' }, get: () => this.#of,
      set: (value) => {
        this.#painting?.close();
        this.#of = value;
        this.update();
      },
    });
    const invert = toggle({
      label: 'Everywhere else', get: () => this.#mask?.invert === true,
      set: (on) => this.#change(({ invert: _, ...mask }) => (on ? { ...mask, invert: true } : mask)),
    });
    const feather = slider({ label: 'Feather', low: 0, high: MOST_FEATHER * 100, digits: 1, unit: ' %' }, {
      get: () => this.#edge, set: (value) => { this.#edge = value; }, done: () => this.#setFeather(this.#edge),
      reset: () => this.#setFeather(0),
    });
    feather.node.title = 'How softly it ends, along the edges in the photo';
    this.#controls.push(of, invert, feather);
    $('#mask-of').append(of.node);
    $('#mask-edge').append(invert.node, feather.node);
    buttonAt('#paint').onclick = () => this.paint();
    buttonAt('#remove-mask').onclick = () => this.#remove();
    for (const type of ['change', 'select']) store.addEventListener(type, () => this.#follow());
    addEventListener('pagehide', () => { if (this.#stored !== this.#changes) this.#save(); });
    this.update();
  }

  /** What the mask is of. */
  get #target() {
    return this.#of === 'light' ? this.#store.light : this.#store.rig;
  }

  get #mask() {
    return this.#target.mask;
  }

  get #names() {
    return this.#photo?.masks ?? [];
  }

  /** @param {Photo} photo  with its masks */
  open(photo) {
    this.close();
    this.#photo = photo;
    this.#prune();
    this.update();
  }

  close() {
    this.#painting?.close();
    clearTimeout(this.#timer);
    this.#photo = null;
    this.#sheet = null;
    this.#changes = this.#stored = 0;
  }

  /** Takes masks out of the look that this photo has not, and says so. */
  lost() {
    if (this.#prune()) toast('This look has a mask that this photo does not have: its light goes everywhere.');
  }

  #prune() {
    const { rig } = this.#store;
    /** @param {{mask?: Mask}} of */
    const unknown = ({ mask }) => mask && !this.#names.includes(mask.name) && mask.name !== this.#sheet?.name;
    const without = [rig, ...rig.lights].filter(unknown);
    if (without.length) this.#store.apply(() => { for (const each of without) delete each.mask; });
    return without.length > 0;
  }

  update() {
    const mask = this.#mask;
    if (!$('#mask-edge').matches(':active, :focus-within')) this.#edge = (mask?.feather ?? 0) * 100;
    for (const control of this.#controls) control.update();
    $('#mask-edge').hidden = !mask;
    $('#masks').replaceChildren(...[null, ...this.#names].map((name) => this.#choice(name)));
    buttonAt('#remove-mask').hidden = !mask || mask.name in FOUND;
    this.#painting?.update();
  }

  /** @param {string | null} name */
  #choice(name) {
    const chosen = (this.#mask?.name ?? null) === name;
    const onclick = () => this.#choose(name);
    const words = name === null ? 'Everywhere' : inWords(name);
    return h('button', { type: 'button', 'aria-pressed': String(chosen), onclick }, words);
  }

  /** @param {string | null} name  null: everywhere */
  #choose(name) {
    this.#painting?.close();
    this.#store.apply(() => {
      if (name) this.#target.mask = { ...this.#mask, name };
      else delete this.#target.mask;
    });
    const who = this.#of === 'light' ? `Light ${this.#store.selected + 1}` : 'The new light';
    say(`${who} goes ${name ? `where the mask ${inWords(name)} is` : 'everywhere'}.`);
  }

  /** @param {(mask: Mask) => Mask} edit */
  #change(edit) {
    const mask = this.#mask;
    if (mask) this.#store.apply(() => { this.#target.mask = edit(mask); });
  }

  /** @param {number} percent */
  #setFeather(percent) {
    this.#edge = percent;
    this.#change(({ feather: _, ...mask }) => (percent ? { ...mask, feather: percent / 100 } : mask));
  }

  async #remove() {
    const [mine, name] = [this.#photo, this.#mask?.name];
    if (!mine || !name) return;
    this.#painting?.close();
    await this.saved();
    await this.#ask(async () => {
      await api.eraseMask(mine.id, name);
      mine.masks = mine.masks.filter((each) => each !== name);
      if (this.#photo !== mine) return;
      if (this.#sheet?.name === name) this.#sheet = null;
      this.#prune();
      this.update();
      say(`The mask ${inWords(name)} is removed.`);
      buttonAt('#paint').focus({ preventScroll: true });
    }, () => this.#remove());
  }

  // ---- painting ----------------------------------------------------------------------------------------------------

  /** Opens the brush on the target's mask, or on a new one. */
  async paint() {
    const mine = this.#photo;
    if (!mine || this.#painting?.isOpen || !this.#viewer.size) return;
    const from = this.#mask?.name;
    const own = from !== undefined && !(from in FOUND);
    if (!own && this.#names.filter((name) => !(name in FOUND)).length >= MOST) {
      toast(`A photo has at most ${MOST} masks: choose one and paint on it, or remove it.`);
      return;
    }
    const { width = 1, height = 1 } = { width: this.#viewer.size[0], height: this.#viewer.size[1] };
    await this.saved();
    await this.#ask(async () => {
      const [{ Brush }, { Painting }, picture] = await Promise.all([
        import('./brush.js'), import('./painting.js'), // not before somebody paints
        from ? api.mask(mine.id, from).then((png) => createImageBitmap(png, { colorSpaceConversion: 'none' })) : null,
      ]);
      if (this.#photo !== mine || this.#painting?.isOpen) return;
      this.#painting ??= new Painting($('#stage'), this.#viewer, {
        painted: (resting) => this.#painted(resting),
        inverted: () => this.#mask?.invert === true,
        closed: () => this.#closed(),
      });
      const brush = new Brush(width, height);
      brush.load(picture);
      picture?.close();
      this.#sheet = { name: own ? from : this.#newName(), brush };
      this.#fresh = !own;
      this.#gestures.tool = this.#painting;
      this.#painting.begin(brush);
      buttonAt('#paint').disabled = true;
    }, () => this.paint());
  }

  #newName() {
    for (let count = 1; ; count += 1) if (!this.#names.includes(`painted-${count}`)) return `painted-${count}`;
  }

  #closed() {
    this.#gestures.tool = null;
    buttonAt('#paint').disabled = !this.#photo;
    this.#save();
  }

  /** The brush belongs to one mask: where the light that is chosen has another, it is put away. */
  #follow() {
    const open = this.#painting?.isOpen && !this.#fresh;
    if (open && this.#mask?.name !== this.#sheet?.name) this.#painting?.close();
    this.update();
  }

  /** @param {boolean} resting */
  #painted(resting) {
    const sheet = this.#sheet;
    if (!sheet) return;
    this.#changes += 1;
    this.#live.setMask(sheet.name, sheet.brush.canvas);
    if (this.#fresh && this.#live.isLive) this.#use(sheet.name, resting);
    else this.#live.ask({ moving: true });
    clearTimeout(this.#timer);
    if (!resting) return;
    if (!this.#fresh) this.#store.commit();
    this.#timer = setTimeout(() => this.#save(), SAVE_MS);
  }

  /** @type {(name: string, resting: boolean) => void} the new mask is the target's */
  #use(name, resting) {
    this.#fresh = false;
    const put = () => { this.#target.mask = { ...this.#mask, name }; };
    if (resting) this.#store.apply(put);
    else this.#store.change(put);
  }

  // ---- the server --------------------------------------------------------------------------------------------------

  /** Waits until the server has what is painted. */
  async saved() {
    await (this.#stored === this.#changes ? this.#saving : this.#save());
  }

  #save() {
    clearTimeout(this.#timer);
    this.#saving ??= this.#ask(() => this.#store_(), () => this.#save()).finally(() => { this.#saving = null; });
    return this.#saving;
  }

  /** Sends the mask until the server has its newest state. */
  async #store_() {
    const [mine, sheet] = [this.#photo, this.#sheet];
    if (!mine || !sheet) return;
    while (this.#stored !== this.#changes) {
      const sent = this.#changes;
      await api.putMask(mine.id, sheet.name, await sheet.brush.png());
      if (!mine.masks.includes(sheet.name)) mine.masks = [...mine.masks, sheet.name];
      if (this.#photo !== mine || this.#sheet !== sheet) return;
      this.#stored = sent;
    }
    if (sheet.brush.isPainting) return;
    this.#live.setMask(sheet.name, null);
    if (this.#fresh) this.#use(sheet.name, true);
    this.#live.ask();
    this.update();
  }

  /**
   * Says what went wrong, and offers to try again.
   * @param {() => Promise<void>} act
   * @param {() => unknown} again
   */
  async #ask(act, again) {
    const mine = this.#photo;
    try {
      await act();
    } catch (error) {
      if (this.#photo !== mine) return;
      const { code } = api.asProblem(error);
      if (code === 'unauthorized') askKey(error, again);
      else if (code === 'job_not_found') this.#gone(error);
      else complain(error, { action: 'Try again', onAction: again });
    }
  }
}
