// The rig in the address, readable: #light=directional:-0.6,0.4,0.7;temperature=3200&ambient=0.2

import { cleanRig, placeOf, SCENE_KEYS, setScene } from './rig.js';

const NUMBERS = ['intensity', 'angle', 'radius', 'range', 'cone', 'blend', 'temperature'];
const short = (v) => String(Math.round(v * 1000) / 1000);

export function encode(rig) {
  const parts = rig.lights.map((light) => {
    const words = [`${light.type}:${placeOf(light).map(short)}`];
    if (light.target) words.push(`target=${light.target.map(short)}`);
    for (const key of NUMBERS) if (light[key] !== undefined) words.push(`${key}=${short(light[key])}`);
    if (light.color) words.push(`color=${light.color.slice(1)}`);
    if (light.shadow === false) words.push('shadow=0');
    if (light.on === false) words.push('on=0');
    return `light=${words.join(';')}`;
  });
  for (const key of SCENE_KEYS) {
    const [outer, inner] = key.split('.');
    const value = inner ? rig[outer]?.[inner] : rig[outer];
    if (value !== undefined) parts.push(`${key}=${short(value)}`);
  }
  return `#${parts.join('&')}`;
}

/** The rig of an address, or null when it holds none. Whatever the address holds, the rig is a valid one. */
export function decode(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ''));
  const raw = { lights: fields.getAll('light').map(decodeLight) };
  for (const key of SCENE_KEYS) if (fields.has(key) && fields.get(key) !== '') setScene(raw, key, Number(fields.get(key)));
  return cleanRig(raw);
}

function decodeLight(text) {
  const [head, ...words] = text.split(';');
  const [type, place = ''] = head.split(':');
  const light = { type, [type === 'directional' ? 'direction' : 'position']: vector(place) };
  for (const word of words) {
    const [key, value = ''] = word.split('=');
    if (NUMBERS.includes(key)) light[key] = Number.parseFloat(value);
    else if (key === 'target') light.target = vector(value);
    else if (key === 'color') light.color = `#${value}`;
    else if (key === 'shadow' || key === 'on') light[key] = value !== '0';
  }
  return light;
}

const vector = (text) => text.split(',').map(Number.parseFloat);
