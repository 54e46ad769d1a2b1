// The rig in the address, readable: #light=directional:-0.6,0.4,0.7;temperature=3200&ambient=0.2&auto=1

import { cleanRig, isLightKey, placeOf, SCENE_KEYS, setScene, statedScene } from './rig.js';

/**
 * @typedef {import('./rig.js').Rig} Rig
 * @typedef {import('./rig.js').Light} Light
 * @typedef {import('./rig.js').LightKey} LightKey
 * @typedef {import('./rig.js').Fields} Fields
 */

/** @type {LightKey[]} */
const NUMBERS = ['intensity', 'angle', 'radius', 'range', 'cone', 'blend', 'temperature'];
/** @param {number} v */
const short = (v) => String(Math.round(v * 1000) / 1000);

/** @param {Rig} rig */
export function encode(rig) {
  const parts = rig.lights.map((light) => `light=${encodeLight(light)}`);
  for (const key of SCENE_KEYS) {
    const value = statedScene(rig, key);
    if (value !== undefined) parts.push(`${key}=${short(value)}`);
  }
  if (rig.auto) parts.push('auto=1');
  if (rig.environment?.name) parts.push(`environment=${encodeEnvironment(rig.environment)}`); // a photo is not shared
  if (rig.mask) parts.push(`mask=${encodeMask(rig.mask)}`);
  return `#${parts.join('&')}`;
}

/**
 * As !subject,0.02: where the subject is not, with an edge of 0.02.
 * @param {import('./rig.js').Mask} mask
 */
const encodeMask = ({ name, invert, feather }) => `${invert ? '!' : ''}${name}${feather ? `,${short(feather)}` : ''}`;

/** @param {string} text */
function decodeMask(text) {
  const [, not, name, feather] = /^(!?)([^,]*),?(.*)$/.exec(text) ?? [];
  return { name, invert: not === '!', feather: Number.parseFloat(feather) };
}

/** @param {import('./rig.js').Environment} environment */
function encodeEnvironment({ name, rotation, intensity }) {
  const words = [name];
  if (rotation !== undefined) words.push(`rotation=${short(rotation)}`);
  if (intensity !== undefined) words.push(`intensity=${short(intensity)}`);
  return words.join(';');
}

/** @param {Light} light */
function encodeLight(light) {
  const words = [`${light.type}:${placeOf(light).map(short)}`];
  if (light.type === 'spot') words.push(`target=${light.target.map(short)}`);
  for (const key of NUMBERS) {
    const value = light[key];
    if (value !== undefined) words.push(`${key}=${short(value)}`);
  }
  if (light.color) words.push(`color=${light.color.slice(1)}`);
  if (light.shadow === false) words.push('shadow=0');
  if (light.on === false) words.push('on=0');
  if (light.mask) words.push(`mask=${encodeMask(light.mask)}`);
  return words.join(';');
}

/**
 * The rig of an address, or null when it holds none. Whatever the address holds, the rig is a valid one.
 * @param {string} hash
 */
export function decode(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ''));
  /** @type {Fields} */
  const raw = { lights: fields.getAll('light').map(decodeLight), auto: fields.get('auto') === '1' };
  raw.mask = decodeMask(fields.get('mask') ?? '');
  const [name, ...words] = (fields.get('environment') ?? '').split(';');
  const turned = words.map((word) => word.split('=')).map(([key, value]) => [key, Number.parseFloat(value)]);
  if (name) raw.environment = { ...Object.fromEntries(turned), name };
  for (const key of SCENE_KEYS) {
    const text = fields.get(key);
    if (text) setScene(raw, key, Number(text));
  }
  return cleanRig(raw);
}

/** @param {string} text */
function decodeLight(text) {
  const [head, ...words] = text.split(';');
  const [type, place = ''] = head.split(':');
  /** @type {Fields} */
  const light = { type, [type === 'directional' ? 'direction' : 'position']: vector(place) };
  for (const word of words) {
    const [key, value = ''] = word.split('=');
    if (isLightKey(key)) light[key] = Number.parseFloat(value);
    else if (key === 'target') light.target = vector(value);
    else if (key === 'mask') light.mask = decodeMask(value);
    else if (key === 'color') light.color = `#${value}`;
    else if (key === 'shadow' || key === 'on') light[key] = value !== '0';
  }
  return light;
}

/** @param {string} text */
const vector = (text) => text.split(',').map(Number.parseFloat);
