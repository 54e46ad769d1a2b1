// The light rig as plain data, in the server's own words. A rig is
//   {lights: [{type, direction | position, target?, …, on?}], ambient?, delight?, strength?, exposure?,
//    shadow?: {strength}, specular?: {strength, roughness}}
// A value that was never touched is left out, so the server's default applies. Only `on` is ours.

import { clamp } from './dom.js';

export const MOST_LIGHTS = 16;
export const TYPES = { directional: 'Sun', point: 'Lamp', spot: 'Spot' };

/** What the API accepts: [lowest, highest] (API reference, body of /relight). */
const BOUNDS = {
  intensity: [0, 100], angle: [0, 90], radius: [0, 10], range: [0.01, 100], cone: [1, 179], blend: [0, 1],
  temperature: [1000, 40000],
};
const SCENE_BOUNDS = {
  ambient: [0, 10], delight: [0, 1], strength: [0, 1], exposure: [-5, 5],
  'shadow.strength': [0, 1], 'specular.strength': [0, 1], 'specular.roughness': [0.05, 1],
};
const KEYS = {
  directional: ['angle'], point: ['radius', 'range'], spot: ['radius', 'range', 'cone', 'blend'],
};

const LIGHT_DEFAULTS = { intensity: 1, angle: 5, radius: 0.08, range: 1, cone: 45, blend: 0.3, temperature: 6500, shadow: true };
const SCENE_DEFAULTS = {
  ambient: 0.2, delight: 0.6, strength: 1, exposure: 0,
  'shadow.strength': 0.8, 'specular.strength': 0, 'specular.roughness': 0.5,
};

/** Takes the tuned defaults over from GET /models. */
export function learnDefaults(defaults = {}) {
  for (const [key, value] of Object.entries(defaults)) {
    if (typeof value === 'number' && key in LIGHT_DEFAULTS) LIGHT_DEFAULTS[key] = value;
    else if (typeof value === 'number' && key in SCENE_DEFAULTS) SCENE_DEFAULTS[key] = value;
    else if (typeof value === 'number' && `${key}.strength` in SCENE_DEFAULTS) SCENE_DEFAULTS[`${key}.strength`] = value;
    else if (value && typeof value === 'object') {
      for (const [inner, number] of Object.entries(value)) {
        if (`${key}.${inner}` in SCENE_DEFAULTS && typeof number === 'number') SCENE_DEFAULTS[`${key}.${inner}`] = number;
      }
    }
  }
}

export const SCENE_KEYS = Object.keys(SCENE_BOUNDS);

export function sceneValue(rig, key) {
  const [outer, inner] = key.split('.');
  const value = inner ? rig[outer]?.[inner] : rig[outer];
  return value ?? SCENE_DEFAULTS[key];
}

export function setScene(rig, key, value) {
  const [outer, inner] = key.split('.');
  if (inner) rig[outer] = { ...rig[outer], [inner]: value };
  else rig[outer] = value;
}

export const lightValue = (light, key) => light[key] ?? LIGHT_DEFAULTS[key];

/** Where a light's handle is: for a distant light, a point in the direction it comes from. */
export const placeOf = (light) => (light.type === 'directional' ? light.direction : light.position);

export function setPlace(light, place) {
  const tidy = place.map((v) => Math.round(v * 1000) / 1000);
  if (!tidy.some(Boolean)) tidy[2] = 0.01;
  if (light.type === 'directional') light.direction = tidy;
  else {
    light.position = tidy;
    if (light.type === 'spot' && same(light.target, tidy)) light.position = [tidy[0], tidy[1], tidy[2] + 0.01];
  }
}

const same = (a, b) => a.every((v, i) => v === b[i]);

export function newLight(type = 'directional', place = [-0.6, 0.4, 0.7]) {
  const light = { type };
  if (type === 'spot') light.target = [0, 0, 0];
  setPlace(light, place);
  return light;
}

export const newRig = () => ({ lights: [newLight()] });

/** The same light as another type, with what still applies. */
export function retype(light, type) {
  const next = { ...newLight(type, placeOf(light)) };
  for (const key of ['on', 'intensity', 'color', 'temperature', 'shadow', ...KEYS[type]]) {
    if (light[key] !== undefined) next[key] = light[key];
  }
  return next;
}

const numbers = (value) => (Array.isArray(value) && value.length === 3 && value.every(Number.isFinite)
  ? value.map((v) => clamp(v, -100, 100)) : null);

function cleanLight(raw) {
  if (!raw || !Object.hasOwn(TYPES, raw.type)) return null;
  const place = numbers(raw.type === 'directional' ? raw.direction : raw.position);
  if (!place) return null;
  const light = { type: raw.type };
  if (raw.type === 'spot') light.target = numbers(raw.target) ?? [0, 0, 0];
  setPlace(light, raw.type === 'directional' ? nearby(place) : place);
  for (const key of ['intensity', ...KEYS[raw.type]]) {
    if (Number.isFinite(raw[key])) light[key] = clamp(raw[key], ...BOUNDS[key]);
  }
  if (/^#[0-9a-f]{6}$/i.test(raw.color ?? '')) light.color = raw.color.toLowerCase();
  else if (Number.isFinite(raw.temperature)) light.temperature = clamp(raw.temperature, ...BOUNDS.temperature);
  if (raw.shadow === false) light.shadow = false;
  if (raw.on === false) light.on = false;
  return light;
}

/** A direction has no length: keep its handle within reach. */
function nearby(direction) {
  const reach = Math.max(Math.abs(direction[0]), Math.abs(direction[1]) / 1.5, Math.abs(direction[2]) / 3);
  return reach > 1.2 ? direction.map((v) => (v * 1.2) / reach) : direction;
}

/** A rig from anywhere (an address, a file): known fields, in bounds, at least one light; null when there is none. */
export function cleanRig(raw) {
  const lights = (raw?.lights ?? []).map(cleanLight).filter(Boolean).slice(0, MOST_LIGHTS);
  if (!lights.length) return null;
  const rig = { lights };
  for (const key of SCENE_KEYS) {
    const [outer, inner] = key.split('.');
    const value = inner ? raw[outer]?.[inner] : raw[outer];
    if (Number.isFinite(value)) setScene(rig, key, clamp(value, ...SCENE_BOUNDS[key]));
  }
  return rig;
}

/** The body of /relight and /preview, less the job. With every light off, one light of no intensity stands in. */
export function toBody(rig) {
  const { lights, ...scene } = structuredClone(rig);
  const lit = lights.filter((light) => light.on !== false);
  for (const light of lit) {
    delete light.on;
    if (light.color === '#000000') { // a colour that has no hue: the server wants none of it
      delete light.color;
      light.intensity = 0;
    }
  }
  return { lights: lit.length ? lit : [{ type: 'directional', direction: [0, 0, 1], intensity: 0 }], ...scene };
}

/** Unit vector from the scene's middle toward the light. */
export function towards(light) {
  const v = placeOf(light);
  const length = Math.hypot(...v) || 1;
  return v.map((c) => c / length);
}

/** Where a light stands, in words, for a reader who does not see the handle. */
export function inWords(light) {
  const [x, y, z] = placeOf(light);
  const part = (v, less, more) => (Math.abs(v) < 0.05 ? null : `${v < 0 ? less : more} ${Math.abs(v).toFixed(2)}`);
  return [part(x, 'left', 'right'), part(y, 'down', 'up'), part(z, 'behind', 'in front')].filter(Boolean).join(', ') || 'in the middle';
}
