// Where light goes: a mask for the selected light and one for the whole picture, and the photo's masks on the server.

import * as api from './api.js';
import { $, buttonAt, h, pen } from './dom.js';
import { radios, slider, toggle } from './controls.js';
import { askKey } from './keys.js';
import { complain, say, toast } from './notices.js';
import { MOST_FEATHER } from './rig.js';

/**
 * @typedef {import('./brush.js').Brush} Brush
 * @typedef {import('./painting.js').Painting} Painting
 * @typedef {import('./photo.js').Photo} Photo
 * @typedef {import('./rig.js').Mask} Mask
 * @typedef {{mask?: Mask}} Target  a light, or the rig
 * @typedef {{name: string, brush: Brush, target?: Target}} Sheet  the mask that is painted, and what for
 */

const SAVE_MS = 300; // after a stroke
const MOST = 8; // masks of one's own, of a photo
/** What the server finds itself; nobody writes over it. @type {Record<string, string>} */
const FOUND = { subject: 'Subject', sky: 'Sky' };

/** @param {string} name */
const isFound = (name) => Object.hasOwn(FOUND, name);

/** @param {string} name */
function inWords(name) {
  const words = isFound(name) ? FOUND[name] : name.replace(/[-_]+/g, ' ').trim();
  return words ? words[0].toUpperCase() + words.slice(1) : name;
}

export class Masks {
  #store;
  #viewer;
  #live;
  #act;
  /** @type {Photo | null} */
  #photo = null;
  /** @type {'light' | 'picture'} */
  #of = 'light';
  /** @type {Painting | null} */
  #painting = null;
  /** @type {Sheet | null} */
  #sheet = null;
  #tellsSky = false;
  #fresh = false; // is the sheet used by nothing yet?
  /** While the first stroke of a new mask goes on: what the target had before. @type {Target | null} */
  #earlier = null;
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
   * @param {object} act  what the page does
   * @param {(error: unknown) => void} act.gone  the photo is no longer on the server
   * @param {(tool: import('./gestures.js').Tool | null) => void} act.tool  pointers on the stage are for it
   */
  constructor(store, viewer, live, act) {
    this.#store = store;
    this.#viewer = viewer;
    this.#live = live;
    this.#act = act;
    const of = radios({
      legend: 'Mask of', options: { light: 'This light', picture: 'Whole picture' }, get: () => this.#of,
      set: (value) => {
        this.#painting?.close();
        this.#of = value;
        this.update();
      },
    });
    const invert = toggle({
      label: 'Invert', get: () => this.#mask?.invert === true,
      set: (on) => this.#change(({ invert: _, ...mask }) => (on ? { ...mask, invert: true } : mask)),
    });
    const feather = slider({ label: 'Feather', low: 0, high: MOST_FEATHER * 100, digits: 1, unit: ' %' }, {
      get: () => this.#edge, set: (value) => { this.#edge = value; }, done: () => this.#setFeather(this.#edge),
      reset: () => this.#setFeather(0),
    });
    invert.node.title = 'Everywhere but there';
    feather.node.title = 'How softly it ends, along the edges in the photo';
    this.#controls.push(of, invert, feather);
    $('#mask-of').append(of.node);
    $('#mask-edge').append(invert.node, feather.node);
    buttonAt('#paint').onclick = () => this.paint();
    buttonAt('#discard-mask').onclick = () => this.#discard();
    for (const type of ['change', 'select']) store.addEventListener(type, () => this.#follow());
    addEventListener('beforeunload', (event) => {
      if (!this.#photo || this.#stored === this.#changes) return;
      this.#save();
      event.preventDefault(); // the browser asks whether to leave; meanwhile it is sent
    });
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
    if (!this.#photo) return [];
    const { masks, files } = this.#photo.has;
    return [...(files.includes('subject.png') ? ['subject'] : []), ...(this.#tellsSky ? ['sky'] : []), ...masks];
  }

  /**
   * Whether this server's models tell surfaces from sky.
   * @param {import('./api.js').Model[]} models
   */
  learn(models) {
    this.#tellsSky = models.some((each) => each.roles_filled?.includes('mask'));
    this.update();
  }

  /** @param {Photo} photo  with its masks */
  open(photo) {
    this.close();
    this.#photo = photo;
    if (this.#prune()) this.#tellLost();
    this.update();
  }

  close() {
    this.#painting?.close();
    clearTimeout(this.#timer);
    this.#photo = null;
    this.#sheet = null;
    this.#saving = null;
    this.#changes = this.#stored = 0;
  }

  /**
   * The server does not know a mask of the look: somebody took it away.
   * @param {unknown} error
   */
  async lost(error) {
    const mine = this.#photo;
    if (!mine) return;
    await this.#ask(async () => {
      const { masks = [], files = [] } = await api.job(mine.id);
      mine.has = { masks, files };
      if (this.#photo !== mine) return;
      const isPruned = this.#prune();
      if (!isPruned) this.#tellsSky = false; // other models may have looked at this photo
      if (isPruned || this.#prune()) this.#tellLost();
      else complain(error);
    }, () => this.lost(error));
  }

  #tellLost() {
    toast('This photo does not have the mask of this look: its light goes everywhere.');
  }

  /** Takes masks that this photo does not have out of the look. */
  #prune() {
    const { rig } = this.#store;
    /** @param {Target} of */
    const unknown = ({ mask }) => mask && !this.#names.includes(mask.name) && mask.name !== this.#sheet?.name;
    const without = [rig, ...rig.lights].filter(unknown);
    if (!this.#photo || !without.length) return false;
    this.#store.amend(() => { for (const each of without) delete each.mask; });
    return true;
  }

  update() {
    const mask = this.#mask;
    this.#edge = (mask?.feather ?? 0) * 100;
    for (const control of this.#controls) control.update();
    $('#mask-edge').hidden = !mask;
    this.#offer(mask?.name ?? '');
    buttonAt('#discard-mask').disabled = !mask || isFound(mask.name);
    this.#painting?.update();
  }

  /** @param {string} chosen  name of the target's mask; empty: everywhere */
  #offer(chosen) {
    const list = $('#masks');
    const names = ['', ...this.#names];
    // One may be on its way, or about to be painted: what lies below does not move then
    for (const coming of [chosen, this.#painting?.isOpen ? this.#sheet?.name : '']) {
      if (coming && !names.includes(coming)) names.push(coming);
    }
    const shown = [...list.querySelectorAll('button')].map((node) => node.dataset.mask);
    if (names.join('/') !== shown.join('/') || !shown.length) {
      list.replaceChildren(...names.map((name) => this.#choice(name)));
    }
    for (const node of list.querySelectorAll('button')) {
      node.setAttribute('aria-pressed', String(node.dataset.mask === chosen));
    }
  }

  /** @param {string} name */
  #choice(name) {
    const words = name ? inWords(name) : 'Everywhere';
    const node = h('button', { type: 'button', onclick: () => this.#choose(name) }, words);
    node.dataset.mask = name;
    return node;
  }

  /** @param {string} name  of a mask; empty: everywhere */
  #choose(name) {
    if (this.#fresh && this.#painting?.isOpen && name === this.#sheet?.name) return; // nothing is painted yet
    this.#painting?.close();
    this.#fresh = false;
    this.#store.apply(() => {
      if (name) this.#target.mask = { ...this.#mask, name };
      else delete this.#target.mask;
    });
    const who = this.#of === 'light' ? `Light ${this.#store.selected + 1}` : 'The new light';
    say(`${who} goes ${name ? `where the mask ${inWords(name)} is` : 'everywhere'}.`);
    if (isFound(name)) this.#tellEmpty(name);
  }

  /** @param {string} name  of a mask that the server found, perhaps nowhere */
  async #tellEmpty(name) {
    const mine = this.#photo;
    if (!mine) return;
    const small = await api.mask(mine.id, name, '?max_side=64').catch(() => null); // the light will tell why
    if (!small) return;
    const context = pen(h('canvas', { width: small.width, height: small.height }));
    context.drawImage(small, 0, 0);
    const { data } = context.getImageData(0, 0, small.width, small.height);
    small.close();
    const inside = data.some((value, index) => index % 4 === 0 && value > 127);
    if (!inside && this.#mask?.name === name) toast(`${inWords(name)}: nothing of it was found in this photo.`);
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

  async #discard() {
    const [mine, name] = [this.#photo, this.#mask?.name];
    if (!mine || !name) return;
    this.#painting?.close();
    await this.#ask(async () => {
      await this.saved();
      await api.eraseMask(mine.id, name);
      mine.has.masks = mine.has.masks.filter((each) => each !== name);
      if (this.#photo !== mine) return;
      this.#sheet = null;
      this.#live.setMask(name, null);
      this.#prune();
      this.update();
      say(`The mask ${inWords(name)} is discarded.`);
      buttonAt('#paint').focus({ preventScroll: true });
    }, () => this.#discard());
  }

  // ---- painting ----------------------------------------------------------------------------------------------------

  /** Opens the brush on the target's mask, or on a new one. */
  async paint() {
    const mine = this.#photo;
    if (!mine || this.#painting?.isOpen || !this.#viewer.size) return;
    const from = this.#mask?.name;
    const own = from !== undefined && !isFound(from);
    if (!own && mine.has.masks.length >= MOST) {
      toast(`A photo has at most ${MOST} masks: choose one and paint on it, or discard it.`);
      return;
    }
    const [width, height] = this.#viewer.size;
    await this.#ask(async () => {
      await this.saved();
      const [{ Brush }, { Painting }] = await Promise.all([import('./brush.js'), import('./painting.js')]);
      const brush = new Brush(width, height);
      const side = Math.min(4096, Math.max(brush.canvas.width, brush.canvas.height, 64));
      const picture = from ? await api.mask(mine.id, from, `?max_side=${side}`) : null;
      if (this.#photo !== mine || this.#painting?.isOpen) return;
      this.#painting ??= new Painting($('#stage'), this.#viewer, {
        painted: (resting) => this.#painted(resting),
        inverted: () => this.#mask?.invert === true,
        closed: () => this.#closed(),
      });
      brush.load(picture);
      picture?.close();
      this.#sheet = { name: own ? from : this.#newName(), brush };
      this.#fresh = !own;
      this.#act.tool(this.#painting);
      this.#painting.begin(brush);
      this.update();
      $('#brush').scrollIntoView({ block: 'nearest' });
      buttonAt('#paint').disabled = true;
    }, () => this.paint());
  }

  #newName() {
    for (let count = 1; ; count += 1) if (!this.#names.includes(`painted-${count}`)) return `painted-${count}`;
  }

  #closed() {
    this.#act.tool(null);
    buttonAt('#paint').disabled = !this.#photo;
    this.update();
    this.#save();
  }

  /** The brush belongs to one mask: where the light that is chosen has another, it is put away. */
  #follow() {
    if (this.#prune()) this.#tellLost();
    const open = this.#painting?.isOpen && !this.#fresh;
    if (open && this.#mask?.name !== this.#sheet?.name) this.#painting?.close();
    this.update();
  }

  /** @param {boolean} resting */
  #painted(resting) {
    const sheet = this.#sheet;
    if (!sheet) return;
    clearTimeout(this.#timer);
    if (resting && !sheet.brush.isTouched) this.#disuse(sheet);
    else {
      this.#changes += 1;
      this.#live.setMask(sheet.name, sheet.brush.canvas);
      sheet.target ??= this.#target;
      if (this.#fresh && this.#live.isLive) this.#use(sheet);
      else if (this.#live.isLive) this.#live.ask({ moving: true });
      if (resting) this.#timer = setTimeout(() => this.#save(), SAVE_MS);
    }
    if (resting && this.#earlier) this.#store.commit();
    if (resting) this.#earlier = null;
  }

  /** The new mask is the target's. @param {Sheet} sheet */
  #use({ name, target }) {
    this.#fresh = false;
    this.#store.change((rig) => {
      const of = [rig, ...rig.lights].find((each) => each === target) ?? this.#target;
      this.#earlier = { mask: of.mask };
      of.mask = { ...of.mask, name };
    });
  }

  /** The first stroke was none. @param {Sheet} sheet */
  #disuse(sheet) {
    this.#changes = this.#stored;
    this.#live.setMask(sheet.name, null);
    if (!this.#earlier) {
      this.#live.ask();
      return;
    }
    const { mask } = this.#earlier;
    this.#fresh = true;
    this.#store.change(() => {
      if (mask) this.#target.mask = mask;
      else delete this.#target.mask;
    });
  }

  // ---- the server --------------------------------------------------------------------------------------------------

  /** Waits until the server has what is painted; throws where it does not get it, which has been said. */
  async saved() {
    await this.#save();
    if (this.#stored !== this.#changes) throw new DOMException('The mask is not stored.', 'AbortError');
  }

  async #save() {
    clearTimeout(this.#timer);
    if (this.#stored === this.#changes && !this.#saving) return;
    const saving = (this.#saving ??= this.#ask(() => this.#send(), () => this.#save()));
    await saving;
    if (this.#saving === saving) this.#saving = null;
  }

  /** Sends the mask until the server has its newest state. */
  async #send() {
    const [mine, sheet] = [this.#photo, this.#sheet];
    if (!mine || !sheet) return;
    while (this.#stored !== this.#changes && !sheet.brush.isPainting) {
      const sent = this.#changes;
      await api.putMask(mine.id, sheet.name, await sheet.brush.png());
      if (!mine.has.masks.includes(sheet.name)) mine.has.masks.push(sheet.name);
      if (this.#photo !== mine || this.#sheet !== sheet) return;
      this.#stored = sent;
    }
    if (sheet.brush.isPainting) return; // its end comes back
    this.#live.setMask(sheet.name, null);
    if (this.#fresh) {
      this.#use(sheet);
      this.#earlier = null;
      this.#store.commit();
    } else this.#live.ask();
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
      if (this.#photo !== mine || api.isAbort(error)) return;
      const { code } = api.asProblem(error);
      if (code === 'unauthorized') askKey(error, again);
      else if (code === 'job_not_found') this.#act.gone(error);
      else complain(error, { action: 'Try again', onAction: again });
    }
  }
}
