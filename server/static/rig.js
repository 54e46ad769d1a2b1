// The light rig as plain data, in the server's own words. A value that was never touched is left out, so that the
// server's default applies. Only `on` and `auto` are the page's own.

import { clamp } from './dom.js';

/**
 * @typedef {[number, number, number]} Vector  x from left to right, y up, z toward the viewer
 * @typedef {'intensity' | 'angle' | 'radius' | 'range' | 'cone' | 'blend' | 'temperature'} LightKey  what has a number
 * @typedef {'ambient' | 'delight' | 'strength' | 'exposure' | 'shadow.strength' | 'specular.strength'
 *   | 'specular.roughness'} SceneKey  what has a number in the scene; after a dot, a field within a field
 * @typedef {{name: string, invert?: boolean, feather?: number}} Mask  where light goes; feather in picture widths
 * @typedef {Partial<Record<LightKey, number>> & {color?: string, shadow?: boolean, on?: boolean, mask?: Mask}} Shine
 * @typedef {Shine & {type: 'directional', direction: Vector}} DirectionalLight
 * @typedef {Shine & {type: 'point', position: Vector}} PointLight
 * @typedef {Shine & {type: 'spot', position: Vector, target: Vector}} SpotLight
 * @typedef {DirectionalLight | PointLight | SpotLight} Light
 * @typedef {Light['type']} LightType
 * @typedef {object} Scene
 * @property {number} [ambient]
 * @property {number} [delight]
 * @property {number} [strength]
 * @property {number} [exposure]
 * @property {{strength?: number}} [shadow]
 * @property {{strength?: number, roughness?: number}} [specular]
 * @property {Mask} [mask]  where the picture is lit anew at all
 * @typedef {object} Environment  light from all around: a built-in one by name, or that of another photo, a job
 * @property {string} [name]
 * @property {string} [photo]
 * @property {string} [title]  of the photo
 * @property {number} [rotation]
 * @property {number} [intensity]
 * @typedef {Scene & {lights: Light[], auto?: boolean, environment?: Environment}} Rig  auto: exposure is not what is
 *   stated but automatic
 * @typedef {Omit<Scene, 'exposure'> & {lights: Light[], exposure?: number | 'auto',
 *   environment?: import('./relight.d.ts').Environment}} Body  of /relight and /preview
 * @typedef {Record<string, unknown>} Fields  data from elsewhere, not looked at yet
 */

export const MOST_LIGHTS = 16;
export const MOST_FEATHER = 0.1;
/** @type {Record<LightType, string>} */
export const TYPES = { directional: 'Sun', point: 'Lamp', spot: 'Spot' };

/**
 * What the API accepts: [lowest, highest] (API reference, body of /relight).
 * @type {Record<LightKey, [number, number]>}
 */
const BOUNDS = {
  intensity: [0, 100], angle: [0, 90], radius: [0, 10], range: [0.01, 100], cone: [1, 179], blend: [0, 1],
  temperature: [1000, 40000],
};
/** @type {Record<SceneKey, [number, number]>} */
const SCENE_BOUNDS = {
  ambient: [0, 10], delight: [0, 1], strength: [0, 1], exposure: [-5, 5],
  'shadow.strength': [0, 1], 'specular.strength': [0, 1], 'specular.roughness': [0.05, 1],
};
/** @type {Record<LightType, LightKey[]>} */
const KEYS = {
  directional: ['angle'], point: ['radius', 'range'], spot: ['radius', 'range', 'cone', 'blend'],
};

/** @type {Record<LightKey, number>} */
const LIGHT_DEFAULTS = {
  intensity: 1, angle: 20, radius: 0.2, range: 1, cone: 45, blend: 0.3, temperature: 6500,
};
/** @type {Record<SceneKey, number>} */
const SCENE_DEFAULTS = {
  ambient: 0.2, delight: 0.85, strength: 1, exposure: 0,
  'shadow.strength': 0.4, 'specular.strength': 0, 'specular.roughness': 0.5,
};

/** @param {unknown} value  @returns {value is number} */
const isNumber = (value) => Number.isFinite(value);
/** @param {unknown} value  @returns {value is Fields} */
const hasFields = (value) => typeof value === 'object' && value !== null;
/** @param {string} key  @returns {key is LightKey} */
export const isLightKey = (key) => Object.hasOwn(LIGHT_DEFAULTS, key);
/** @param {string} key  @returns {key is SceneKey} */
const isSceneKey = (key) => Object.hasOwn(SCENE_DEFAULTS, key);
/** @param {unknown} type  @returns {type is LightType} */
const isLightType = (type) => typeof type === 'string' && Object.hasOwn(TYPES, type);

/**
 * Takes over the tuned defaults from GET /models.
 * @param {Fields} [defaults]
 */
export function learnDefaults(defaults = {}) {
  for (const [key, value] of Object.entries(defaults)) {
    if (hasFields(value)) for (const [inner, number] of Object.entries(value)) learn(`${key}.${inner}`, number);
    else learn(key, value);
  }
}

/** @type {(key: string, value: unknown) => void} */
function learn(key, value) {
  if (!isNumber(value)) return;
  if (isLightKey(key)) LIGHT_DEFAULTS[key] = value;
  else if (isSceneKey(key)) SCENE_DEFAULTS[key] = value;
  else if (isSceneKey(`${key}.strength`)) learn(`${key}.strength`, value);
}

export const SCENE_KEYS = Object.keys(SCENE_BOUNDS).filter(isSceneKey);

/**
 * What a rig from anywhere says about the scene, if it is a number.
 * @param {Scene | Fields} rig
 * @param {SceneKey} key
 */
export function statedScene(rig, key) {
  const [outer, inner] = key.split('.');
  const value = /** @type {Fields} */ (rig)[outer];
  const stated = inner ? hasFields(value) && value[inner] : value;
  return isNumber(stated) ? stated : undefined;
}

/** @type {(rig: Rig, key: SceneKey) => number} */
export const sceneValue = (rig, key) => (
  statedScene(rig, key) ?? (key === 'ambient' && rig.environment ? 0 : SCENE_DEFAULTS[key]));

/** @type {(rig: Scene | Fields, key: SceneKey, value: number | undefined) => void} */
export function setScene(rig, key, value) {
  const [outer, inner] = key.split('.');
  const there = /** @type {Fields} */ (rig)[outer];
  Object.assign(rig, { [outer]: inner ? { ...(hasFields(there) ? there : {}), [inner]: value } : value });
}

/** @type {(light: Light, key: LightKey) => number} */
export const lightValue = (light, key) => light[key] ?? LIGHT_DEFAULTS[key];

/** @type {(vector: Vector, change: (value: number) => number) => Vector} */
const mapped = ([x, y, z], change) => [change(x), change(y), change(z)];

/** @param {Vector} place */
export const rounded = (place) => mapped(place, (v) => Math.round(v * 1000) / 1000);

/**
 * Where a light's handle is: for a distant light, a point in the direction it comes from.
 * @param {Light} light
 */
export const placeOf = (light) => (light.type === 'directional' ? light.direction : light.position);

/** @type {(light: Light, place: Vector) => void} */
export function setPlace(light, place) {
  const tidy = rounded(place);
  if (!tidy.some(Boolean)) tidy[2] = 0.01;
  if (light.type === 'directional') light.direction = tidy;
  else {
    light.position = tidy;
    if (light.type === 'spot' && same(light.target, tidy)) light.position = [tidy[0], tidy[1], tidy[2] + 0.01];
  }
}

/** @type {(a: Vector, b: Vector) => boolean} */
const same = (a, b) => a.every((v, i) => v === b[i]);

/**
 * @param {LightType} type
 * @param {Vector} place
 * @param {Vector} target  of a spot
 * @returns {Light}
 */
export function newLight(type = 'directional', place = [-0.6, 0.4, 0.7], target = [0, 0, 0]) {
  const light = blank(type, place, target);
  setPlace(light, place);
  return light;
}

/** @type {(type: LightType, place: Vector, target: Vector) => Light} */
function blank(type, place, target) {
  if (type === 'directional') return { type, direction: place };
  return type === 'spot' ? { type, target, position: place } : { type, position: place };
}

/** @type {() => Rig} */
export const newRig = () => ({ lights: [newLight()], auto: true });

/**
 * The same light as another type, with what still applies.
 * @param {Light} light
 * @param {LightType} type
 * @returns {Light}
 */
export function retype(light, type) {
  const kept = ['on', 'intensity', 'color', 'temperature', 'shadow', 'mask', ...KEYS[type]];
  const shine = Object.entries(light).filter(([key, value]) => kept.includes(key) && value !== undefined);
  return Object.assign(newLight(type, placeOf(light)), Object.fromEntries(shine));
}

/** @type {(value: unknown) => Vector | null} */
function vectorOf(value) {
  if (!Array.isArray(value) || value.length !== 3 || !value.every(isNumber)) return null;
  return mapped([value[0], value[1], value[2]], (v) => clamp(v, -100, 100));
}

/** @type {(raw: unknown) => Light | null} */
function cleanLight(raw) {
  if (!hasFields(raw) || !isLightType(raw.type)) return null;
  const distant = raw.type === 'directional';
  const place = vectorOf(distant ? raw.direction : raw.position);
  if (!place) return null;
  const light = newLight(raw.type, distant ? nearby(place) : place, vectorOf(raw.target) ?? [0, 0, 0]);
  /** @type {LightKey[]} */
  const keys = ['intensity', ...KEYS[raw.type]];
  for (const key of keys) {
    const value = raw[key];
    if (isNumber(value)) light[key] = clamp(value, ...BOUNDS[key]);
  }
  tint(light, raw);
  const mask = cleanMask(raw.mask);
  if (mask) light.mask = mask;
  if (raw.shadow === false) light.shadow = false;
  if (raw.on === false) light.on = false;
  return light;
}

/**
 * Gives a light its colour, or else its temperature.
 * @param {Light} light
 * @param {Fields} raw
 */
function tint(light, { color, temperature }) {
  if (typeof color === 'string' && /^#[0-9a-f]{6}$/i.test(color)) light.color = color.toLowerCase();
  else if (isNumber(temperature)) light.temperature = clamp(temperature, ...BOUNDS.temperature);
}

/**
 * A direction has no length: its handle is kept within reach.
 * @param {Vector} direction
 */
function nearby(direction) {
  const reach = Math.max(Math.abs(direction[0]), Math.abs(direction[1]) / 1.5, Math.abs(direction[2]) / 3);
  return reach > 1.2 ? mapped(direction, (v) => (v * 1.2) / reach) : direction;
}

/** @type {(raw: unknown) => Environment | null} */
function cleanEnvironment(raw) {
  if (!hasFields(raw) || typeof raw.name !== 'string' || !/^[a-z-]{1,40}$/.test(raw.name)) return null;
  /** @type {Environment} */
  const environment = { name: raw.name };
  if (isNumber(raw.rotation)) environment.rotation = clamp(raw.rotation, -360, 360);
  if (isNumber(raw.intensity)) environment.intensity = clamp(raw.intensity, 0, 100);
  return environment;
}

/** @type {(raw: unknown) => Mask | null} */
function cleanMask(raw) {
  if (!hasFields(raw) || typeof raw.name !== 'string' || !/^[a-z0-9_-]{1,32}$/.test(raw.name)) return null;
  /** @type {Mask} */
  const mask = { name: raw.name };
  if (raw.invert === true) mask.invert = true;
  if (isNumber(raw.feather) && raw.feather > 0) mask.feather = Math.min(raw.feather, MOST_FEATHER);
  return mask;
}

/**
 * A rig from anywhere (an address, a preset): known fields, in bounds, at least one light; null when there is none.
 * @param {Rig | Fields | null} raw
 * @returns {Rig | null}
 */
export function cleanRig(raw) {
  const given = Array.isArray(raw?.lights) ? raw.lights : [];
  const lights = given.map(cleanLight).filter((light) => light !== null).slice(0, MOST_LIGHTS);
  if (!raw || !lights.length) return null;
  /** @type {Rig} */
  const rig = { lights };
  if (raw.auto === true) rig.auto = true;
  const environment = cleanEnvironment(raw.environment);
  if (environment) rig.environment = environment;
  const mask = cleanMask(raw.mask);
  if (mask) rig.mask = mask;
  for (const key of SCENE_KEYS) {
    const value = statedScene(raw, key);
    if (value !== undefined) setScene(rig, key, clamp(value, ...SCENE_BOUNDS[key]));
  }
  return rig;
}

/**
 * The body of /relight and /preview, less the job. With every light off, one light of no intensity stands in.
 * @param {Rig} rig
 * @returns {Body}
 */
export function toBody(rig) {
  const { lights, auto, environment, ...scene } = structuredClone(rig);
  const lit = lights.filter((light) => light.on !== false);
  for (const light of lit) {
    delete light.on;
    if (light.color === '#000000') { // black has no hue, and the server does not accept it
      delete light.color;
      light.intensity = 0;
    }
  }
  if (!lit.length && !environment) lit.push({ type: 'directional', direction: [0, 0, 1], intensity: 0 });
  /** @type {Body} */
  const body = { lights: lit, ...scene };
  if (environment) body.environment = asSent(environment);
  return auto ? { ...body, exposure: 'auto' } : body;
}

/** @type {(environment: Environment) => import('./relight.d.ts').Environment} */
function asSent({ name = '', photo, title: _, ...turned }) {
  return photo ? { type: 'photo', job_id: photo, ...turned } : { type: 'preset', name, ...turned };
}

/**
 * Unit vector from the middle of the scene toward the light.
 * @param {Light} light
 */
export function towards(light) {
  const v = placeOf(light);
  const length = Math.hypot(...v) || 1;
  return mapped(v, (c) => c / length);
}

/**
 * Where a light stands, in words, for a reader who does not see the handle.
 * @param {Light} light
 */
export function inWords(light) {
  const [x, y, z] = placeOf(light);
  /** @type {(v: number, less: string, more: string) => string} */
  const part = (v, less, more) => (Math.abs(v) < 0.05 ? '' : `${v < 0 ? less : more} ${Math.abs(v).toFixed(2)}`);
  const parts = [part(x, 'left', 'right'), part(y, 'down', 'up'), part(z, 'behind', 'in front')];
  return parts.filter(Boolean).join(', ') || 'in the middle';
}
