// Relight Server's light in the browser: one module without dependencies, for any page.
//
//     import { relight } from 'https://relight.example/static/relight.js';
//     const view = await relight(canvas, { base: 'https://relight.example', jobId });
//     view.render({ x: -0.6, y: 0.4, z: 0.7 });  // the body of POST /relight, less the job; again as often as you like
//
// The server analyses a photo once and sends its maps (GET /job/{id}/maps). From then on every picture is made here, by
// the formula of the server's server/light, and no request is sent. Types and documentation: relight.d.ts.
//
// What decides and every number of the formula comes with the maps; server/light/live.py packs them. Rows of all
// textures but the canvas begin at the top of the photo.

/**
 * @typedef {import('./relight.d.ts').RelightOptions} Options
 * @typedef {import('./relight.d.ts').Body} Body
 * @typedef {import('./relight.d.ts').Drawn} Drawn
 * @typedef {import('./relight.d.ts').MaxSide} MaxSide
 * @typedef {import('./relight.d.ts').MaskSource} MaskSource
 * @typedef {import('./relight.d.ts').RenderOptions} RenderOptions
 * @typedef {[number, number, number]} Vector
 * @typedef {Record<string, any>} Json  from the server, or not looked at yet
 * @typedef {{shape: [number, number, number], data: Float32Array | Uint8Array}} Plane  n planes of h rows of w values
 * @typedef {{width: number, height: number, alpha: boolean, contract: Json, constants: Json, scene: Json,
 *   planes: Map<string, Plane>, webp: Blob, bytes: number}} Maps
 * @typedef {{kind: 'directional' | 'point' | 'spot', direction: Vector, position: Vector, target: Vector,
 *   color: number[], intensity: number, angle: number, radius: number, range: number, cone: number, blend: number,
 *   shadow: boolean, mask: Mask | null}} Light
 * @typedef {{lights: Light[], ambient: number, strength: number, delight: number, shadow: number, specular: number,
 *   roughness: number, exposure: number | 'auto', around: Around | null, mask: Mask | null}} Rig
 * @typedef {{field: string, name: string, invert: boolean, feather: number, codes?: Uint8Array}} Mask  field: where it
 *   stands in the body; codes: a byte a pixel of the picture, before it is inverted
 * @typedef {{name: string, intensity: number, rotation: number}} Around  a built-in environment
 * @typedef {{width: number, height: number}} Size
 * @typedef {{width: number, height: number, photo: WebGLTexture, pixels: WebGLTexture, packed: WebGLTexture,
 *   ranges: Vector, bytes: number}} Picture  what does not depend on the lights, on the GPU
 */

const MARK = /^relight-maps [0-9a-f]{18}\n$/;
const MARK_LENGTH = 32;
const MAX_SIDE = 1024;
const ENVIRONMENTS_KEPT = 48; // parts of them
const SHADOWS_KEPT = 20; // the 16 lights that a picture may have, and a few that were moved
const MASKS_KEPT = 20; // those of 16 lights and of the picture, and a few that were feathered otherwise
const FEATHERED = 256; // the longer side, at most, of the grid on which what is painted is feathered
const LOGARITHMS = 10; // of the old light lie between minus and plus this

/** What the server, or this module in its words, refuses. `code` and `status` are those of the API. */
export class RelightError extends Error {
  /**
   * @param {string} message
   * @param {string} code
   * @param {number} status  0: it never reached the server
   */
  constructor(message, code, status = 0) {
    super(message);
    this.name = 'RelightError';
    this.code = code;
    this.status = status;
  }
}

// ---- the server

/** Headers hold bytes: the browser would send other characters as Latin-1, or not at all. @param {string} text */
const asUtf8 = (text) => String.fromCharCode(...new TextEncoder().encode(text));

class Server {
  /** @param {Options} options */
  constructor({ base = '', jobId, key, signal }) {
    this.base = base.replace(/\/+$/, '');
    this.jobId = jobId;
    this.signal = signal;
    /** @type {Record<string, string>} */
    this.headers = key ? { Authorization: `Bearer ${asUtf8(key)}` } : {};
  }

  /**
   * @param {string} path
   * @param {RequestInit} [init]
   */
  async #answer(path, init = {}) {
    let response;
    try {
      const headers = { ...this.headers, ...(init.body ? { 'Content-Type': 'application/json' } : {}) };
      response = await fetch(`${this.base}${path}`, { signal: this.signal, ...init, headers });
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') throw error;
      throw new RelightError('The server cannot be reached.', 'unreachable');
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new RelightError(problem.detail ?? `The server answered ${response.status}.`, problem.code ?? 'unknown',
      response.status);
  }

  /** @param {MaxSide} maxSide  @returns {Promise<ArrayBuffer>} */
  async maps(maxSide) {
    const response = await this.#answer(`/job/${encodeURIComponent(this.jobId)}/maps?max_side=${maxSide}`);
    return response.arrayBuffer();
  }

  /**
   * A mask of the job as the server uses it, at the size of the maps, before it is inverted.
   * @type {(mask: Mask, maxSide: MaxSide) => Promise<ImageBitmap>}
   */
  async mask({ name, feather }, maxSide) {
    const query = `feather=${feather}&max_side=${maxSide}`;
    const response = await this.#answer(`/job/${encodeURIComponent(this.jobId)}/mask/${name}?${query}`);
    return createImageBitmap(await response.blob(), { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  }

  /**
   * @param {Json} body
   * @returns {Promise<ImageBitmap>}
   */
  async preview(body) {
    const response = await this.#answer('/preview', {
      method: 'POST', body: JSON.stringify({ ...body, job_id: this.jobId }),
    });
    return createImageBitmap(await response.blob());
  }
}

// ---- the maps

/**
 * The answer of GET /job/{id}/maps: a length and deflated JSON, of the server; a line that names the format; a length
 * and JSON, of the photo; its planes, deflated; the photo. `planes` is empty where the photo can only be lit by the
 * server.
 * @param {ArrayBuffer} buffer
 * @returns {Promise<Maps>}
 */
async function readMaps(buffer) {
  const view = new DataView(buffer);
  let at = 0;
  /** @param {number} length */
  const text = (length) => new TextDecoder().decode(new Uint8Array(buffer, (at += length) - length, length));
  const json = () => JSON.parse(text(view.getUint32((at += 4) - 4, true)));
  const head = new Uint8Array(buffer, at + 4, view.getUint32(at, true));
  at += 4 + head.length;
  const contract = JSON.parse(new TextDecoder().decode(await inflated(head)));
  if (!MARK.test(text(MARK_LENGTH))) throw new RelightError('The server sends another kind of maps.', 'unknown');
  const { planes = [], planes_bytes: length = 0, photo_bytes: photo = 0, constants = {}, scene = {}, ...size } = json();
  const raw = length ? await inflated(new Uint8Array(buffer, at, length)) : new Uint8Array();
  const webp = new Blob([new Uint8Array(buffer, at + length, photo)], { type: 'image/webp' });
  return {
    width: size.width,
    height: size.height,
    alpha: size.alpha,
    contract,
    constants,
    scene,
    planes: readPlanes(planes, raw),
    webp,
    bytes: buffer.byteLength,
  };
}

/** @param {Uint8Array<ArrayBuffer>} data */
async function inflated(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * @param {Json[]} described
 * @param {Uint8Array} raw
 * @returns {Map<string, Plane>}
 */
function readPlanes(described, raw) {
  const planes = new Map();
  let at = 0;
  for (const { name, shape, bytes, low, high, steps } of described) {
    const count = shape[0] * shape[1] * shape[2];
    const codes = summedUp(raw.subarray(at, at + count * bytes), shape, bytes);
    at += count * bytes;
    // What is 0 or 1, or 255 steps from 0 to 1, is wanted as it is
    const asItIs = bytes === 1 && steps !== 254;
    const data = asItIs ? new Uint8Array(codes) : new Float32Array(count);
    const scale = (high - low) / steps;
    for (let i = 0; !asItIs && i < count; i += 1) data[i] = low + codes[i] * scale;
    planes.set(name, { shape, data });
  }
  return planes;
}

/**
 * Whole numbers from their differences to the one on the left, or above; see `differences` in server/light/live.py.
 * @param {Uint8Array} raw
 * @param {[number, number, number]} shape
 * @param {number} bytes
 */
function summedUp(raw, [planes, height, width], bytes) {
  const count = planes * height * width;
  const codes = new Uint16Array(count);
  const mask = bytes === 2 ? 0xffff : 0xff;
  let above = 0;
  for (let i = 0; i < count;) {
    let before = i % (height * width) === 0 ? 0 : above;
    for (let x = 0; x < width; x += 1, i += 1) {
      const folded = bytes === 2 ? raw[i] | (raw[count + i] << 8) : raw[i];
      before = (before + ((folded >>> 1) ^ -(folded & 1))) & mask;
      codes[i] = before;
      if (x === 0) above = before;
    }
  }
  return codes;
}

// ---- bodies: the server's JSON Schema, and its sentences

const NOT_A = { number: 'number', string: 'string', boolean: 'boolean', array: 'list', object: 'dictionary' };

class Checker {
  /** @param {Json} contract */
  constructor(contract) {
    this.schema = contract.body;
    /** @type {[string, string][]} */
    this.found = [];
  }

  /** @param {string[]} path  @param {string} message */
  #refuse(path, message) {
    this.found.push([path.join('.') || 'body', message]);
  }

  /**
   * @param {Json} schema
   * @param {any} value
   * @param {string[]} path
   */
  check(schema, value, path) {
    if (schema.$ref) this.check(this.schema.$defs[schema.$ref.split('/').at(-1)], value, path);
    else if (schema.anyOf) this.#checkAny(schema.anyOf, value, path);
    else if (schema.oneOf) this.#checkTagged(schema, value, path);
    else if (isOf(schema.type, value)) this.#checkKind(schema, value, path);
    else if (schema.type === 'array' && schema.prefixItems) this.#refuse(path, 'Input should be a valid tuple');
    else if (schema.type === 'object') {
      this.#refuse(path, 'Input should be a valid dictionary or object to extract fields from');
    } else this.#refuse(path, `Input should be a valid ${NOT_A[/** @type {keyof typeof NOT_A} */ (schema.type)]}`);
  }

  /** @type {(options: Json[], value: any, path: string[]) => void} */
  #checkAny(options, value, path) {
    const real = options.filter(({ type }) => type !== 'null');
    if (value === null && real.length < options.length) return;
    const whole = real.find(({ $ref }) => $ref);
    if (real.length === 1) this.check(real[0], value, path);
    else if (whole) this.check(whole, isOf('string', value) ? { name: value } : value, path); // a name alone will do
    else if (!real.some((option) => this.#accepts(option, value))) {
      const { minimum, maximum } = real.find(({ type }) => type === 'number') ?? {};
      this.#refuse(path, `send stops from ${minimum} to ${maximum}, or "auto"`);
    }
  }

  /** @type {(schema: Json, value: any) => boolean} */
  #accepts(schema, value) {
    if ('const' in schema) return value === schema.const;
    return isOf(schema.type, value) && !numberTrouble(schema, value);
  }

  /** @type {(schema: Json, value: any, path: string[]) => void} */
  #checkTagged({ oneOf, discriminator: { mapping, propertyName } }, value, path) {
    if (!isOf('object', value)) {
      this.#refuse(path, 'Input should be a valid dictionary or object to extract fields from');
    } else if (!(propertyName in value)) {
      this.#refuse(path, `Unable to extract tag using discriminator '${propertyName}'`);
    } else if (!Object.hasOwn(mapping, value[propertyName])) {
      const named = Object.entries(mapping); // in another order than the server's
      const tagOf = (/** @type {Json} */ one) => `'${named.find(([, to]) => to === one.$ref)?.[0]}'`;
      const tags = oneOf.map(tagOf).join(', ');
      this.#refuse(path, `Input tag '${value[propertyName]}' found using '${propertyName}' does not match any of the `
        + `expected tags: ${tags}`);
    } else this.check({ $ref: mapping[value[propertyName]] }, value, path);
  }

  /** @type {(schema: Json, value: any, path: string[]) => void} */
  #checkKind(schema, value, path) {
    if (schema.type === 'object') this.#checkObject(schema, value, path);
    else if (schema.type === 'array') this.#checkArray(schema, value, path);
    else if (schema.type === 'number') {
      const trouble = numberTrouble(schema, value);
      if (trouble) this.#refuse(path, trouble);
    } else if (schema.pattern && !new RegExp(schema.pattern).test(value)) {
      this.#refuse(path, `String should match pattern '${schema.pattern}'`);
    }
  }

  /** @type {(schema: Json, value: any, path: string[]) => void} */
  #checkObject({ properties, required = [] }, value, path) {
    for (const [name, schema] of Object.entries(properties)) {
      if (value[name] !== undefined) this.check(schema, value[name], [...path, name]);
      else if (required.includes(name)) this.#refuse([...path, name], 'Field required');
    }
    for (const [name, found] of Object.entries(value)) {
      if (!Object.hasOwn(properties, name) && found !== undefined) {
        this.#refuse([...path, name], 'Extra inputs are not permitted');
      }
    }
  }

  /** @type {(schema: Json, value: any[], path: string[]) => void} */
  #checkArray({ prefixItems, items, minItems, maxItems }, value, path) {
    const kind = prefixItems ? 'Tuple' : 'List';
    /** @param {number} n */
    const count = (n) => `${n} item${n === 1 ? '' : 's'} after validation, not ${value.length}`;
    if (value.length > maxItems) this.#refuse(path, `${kind} should have at most ${count(maxItems)}`);
    else if (items && value.length < minItems) this.#refuse(path, `${kind} should have at least ${count(minItems)}`);
    else {
      (prefixItems ?? value.map(() => items)).forEach((/** @type {Json} */ schema, /** @type {number} */ i) => {
        if (i < value.length) this.check(schema, value[i], [...path, String(i)]);
        else this.#refuse([...path, String(i)], 'Field required');
      });
    }
  }
}

/** @type {(type: string, value: any) => boolean} */
function isOf(type, value) {
  if (type === 'array') return Array.isArray(value);
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value);
  return type === undefined || typeof value === type;
}

/** @type {(schema: Json, value: number) => string} */
function numberTrouble({ minimum, maximum, exclusiveMinimum }, value) {
  if (!Number.isFinite(value)) return 'Input should be a finite number';
  if (value < minimum) return `Input should be greater than or equal to ${minimum}`;
  if (value <= exclusiveMinimum) return `Input should be greater than ${exclusiveMinimum}`;
  return value > maximum ? `Input should be less than or equal to ${maximum}` : '';
}

/** @type {(value: any) => boolean} */
const given = (value) => value !== undefined && value !== null;

/**
 * What the fields of a body forbid each other; "" if nothing.
 * @param {Json} body
 * @param {Json} contract
 */
function contradiction(body, contract) {
  const axes = ['x', 'y', 'z'].filter((axis) => given(body[axis]));
  const ways = Number(given(body.lights)) + Number(given(body.preset)) + Number(axes.length > 0);
  if (ways > 1) {
    return `${given(body.lights) ? 'lights' : 'preset'}: send x, y, z, or lights, or a preset, not two of them`;
  }
  const names = Object.keys(contract.presets);
  if (given(body.preset) && !names.includes(body.preset)) {
    return `preset: there is none of that name; there are ${names.join(', ')}`;
  }
  return darkness(body, axes, ways);
}

/**
 * What a body lacks to give any light; "" if nothing.
 * @type {(body: Json, axes: string[], ways: number) => string}
 */
function darkness(body, axes, ways) {
  const dark = !given(body.environment);
  if (dark && body.lights?.length === 0) return 'lights: there must be at least one, unless there is an environment';
  if (((dark && !ways) || axes.length) && axes.length < 3) {
    const missing = ['x', 'y', 'z'].filter((axis) => !axes.includes(axis)).join(', ');
    return `${missing}: missing; send x, y and z, or lights, or a preset, or an environment`;
  }
  return axes.length && !axes.some((axis) => body[axis]) ? 'x, y, z: must not all be 0' : '';
}

/**
 * The same of one light: where, and what; null if nothing.
 * @param {Json} light
 * @returns {[string, string] | null}
 */
function lightContradiction(light) {
  if (light.type === 'directional' && !light.direction.some(Boolean)) {
    return ['.direction', 'the three numbers must not all be 0'];
  }
  if (given(light.color) && given(light.temperature)) {
    return ['', 'color and temperature exclude each other: send one of them'];
  }
  if (light.color === '#000000') return ['', 'color #000000 gives no light: use intensity 0 or leave the light out'];
  if (light.type === 'spot' && light.position.every((/** @type {number} */ v, /** @type {number} */ i) => (
    v === light.target[i]))) return ['', 'position and target must differ'];
  return null;
}

/**
 * Throws what the server would refuse a body with.
 * @param {Json} body
 * @param {Json} contract
 */
function checkBody(body, contract) {
  if (!isOf('object', body)) throw new RelightError('body: send a JSON object.', 'invalid_request', 422);
  const checker = new Checker(contract);
  checker.check(contract.body, { ...body, job_id: '' }, []);
  const found = [...checker.found, ...contradictions(body.lights, checker.found),
    ...unknown(body.environment, checker.found, contract)];
  if (found.length) {
    const light = found.some(([where], i) => /^(lights|x|y|z)(\.|$)/.test(where) || i >= checker.found.length);
    const sentence = found.slice(0, 5).map(([where, what]) => `${where}: ${what}`).join('; ');
    throw new RelightError(sentence, light ? 'invalid_light' : 'invalid_request', 422);
  }
  const sentence = contradiction(body, contract);
  if (sentence) throw new RelightError(`body: ${sentence}`, 'invalid_light', 422);
}

/**
 * What is wrong with the name of an environment of which nothing else was found.
 * @type {(environment: any, found: [string, string][], contract: Json) => [string, string][]}
 */
function unknown(environment, found, { environments: { texels } }) {
  if (environment?.type !== 'preset' || found.some(([where]) => where.startsWith('environment'))) return [];
  if (Object.hasOwn(texels, environment.name)) return [];
  return [['environment.name', `there is none of that name; there are ${Object.keys(texels).join(', ')}`]];
}

/** Is a body lit here? The light of an upload or of another photo is known to the server alone. @param {Json} body */
const isLitHere = ({ environment }) => !given(environment) || environment.type === 'preset';

/**
 * What those lights contradict themselves in, of which nothing else was found.
 * @param {any} lights
 * @param {[string, string][]} found
 * @returns {[string, string][]}
 */
function contradictions(lights, found) {
  if (!Array.isArray(lights) || found.some(([where]) => where === 'lights')) return [];
  return lights.flatMap((light, i) => {
    const name = `lights.${i}`;
    const trouble = !found.some(([where]) => `${where}.`.startsWith(`${name}.`)) && lightContradiction(light);
    return trouble ? [[`${name}${trouble[0]}`, trouble[1]]] : [];
  });
}

// ---- rigs: bodies with everything said

/** @param {number[]} v  @returns {Vector} */
function unit(v) {
  const largest = Math.max(...v.map(Math.abs));
  const scaled = v.map((c) => c / largest);
  const length = Math.hypot(...scaled);
  return [scaled[0] / length, scaled[1] / length, scaled[2] / length];
}

/** @param {number} v  sRGB 0..1 to linear light: IEC 61966-2-1 */
const toLinear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);

/**
 * The linear colour, of luminance 1, of a light.
 * @param {Json} light
 * @param {Maps} maps
 * @returns {number[]}
 */
function colorOf({ color, temperature }, { contract, constants }) {
  if (given(color)) {
    const rgb = [1, 3, 5].map((i) => toLinear(parseInt(color.slice(i, i + 2), 16) / 255));
    const luminance = rgb.reduce((sum, v, i) => sum + v * constants.luminance[i], 0);
    return rgb.map((v) => v / luminance);
  }
  if (!given(temperature)) return [1, 1, 1];
  const { from, to, colors } = contract.temperatures;
  const place = ((1e6 / temperature - from) / (to - from)) * (colors.length - 1);
  const before = Math.min(Math.max(Math.floor(place), 0), colors.length - 2);
  return [0, 1, 2].map((k) => colors[before][k] + (place - before) * (colors[before + 1][k] - colors[before][k]));
}

/**
 * @param {Json} body  that was checked
 * @param {Maps} maps
 * @returns {Rig}
 */
function rigOf(body, maps) {
  const { defaults, presets } = maps.contract;
  const { preset, ...said } = Object.fromEntries(Object.entries(body).filter(([, value]) => given(value)));
  const around = said.environment;
  if (preset) {
    const usual = around ? { exposure: defaults.exposure, ...presets[preset], ambient: 0 }
      : { exposure: defaults.exposure_shorthand, ...presets[preset] };
    return rigOf({ ...usual, ...said }, maps);
  }
  const shorthand = given(said.x) ? [{ type: 'directional', direction: [said.x, said.y, said.z] }] : [];
  const lights = said.lights ?? shorthand;
  const { ambient, strength, delight, exposure } = {
    ...defaults, ...(around ? { ambient: 0 } : {}),
    exposure: said.lights?.length || around ? defaults.exposure : defaults.exposure_shorthand,
    ...said,
  };
  const specular = { ...defaults.specular, ...said.specular };
  return {
    lights: lights.map((/** @type {Json} */ light, /** @type {number} */ k) => lightOf(light, maps, `lights.${k}`)),
    ambient,
    strength,
    delight,
    shadow: { ...defaults.shadow, ...said.shadow }.strength,
    specular: specular.strength,
    roughness: specular.roughness,
    exposure,
    around: around ? { intensity: 1, rotation: 0, ...around } : null,
    mask: maskOf(said.mask, 'mask'),
  };
}

/** @type {(said: import('./relight.d.ts').Mask | null | undefined, field: string) => Mask | null} */
function maskOf(said, field) {
  return said ? { field, invert: false, feather: 0, ...(typeof said === 'string' ? { name: said } : said) } : null;
}

/** Those of the picture and of its lights. @type {(rig: Rig) => Mask[]} */
const masksOf = ({ mask, lights }) => [mask, ...lights.map((light) => light.mask)].filter((each) => each !== null);

/** @type {(light: Json, maps: Maps, field: string) => Light} */
function lightOf(light, maps, field) {
  const { angle, radius, range, cone, blend, intensity } = maps.contract.defaults;
  return {
    kind: light.type,
    direction: light.type === 'directional' ? unit(light.direction) : [0, 0, 1],
    position: light.position ?? [0, 0, 1],
    target: light.target ?? [0, 0, 0],
    color: colorOf(light, maps),
    intensity: light.intensity ?? intensity,
    angle: light.angle ?? angle,
    radius: light.radius ?? radius,
    range: light.range ?? range,
    cone: light.cone ?? cone,
    blend: light.blend ?? blend,
    shadow: light.shadow ?? true,
    mask: maskOf(light.mask, `${field}.mask`),
  };
}

// ---- masks

/** The masks of a job at the size of a picture: those that were fetched, and those that somebody paints. */
class Masks {
  /** @type {Map<string, Uint8Array>} by name, feather and maxSide */ #kept = new Map();
  /** @type {Map<string, Promise<void>>} the same */ #coming = new Map();
  /** @type {Map<string, OffscreenCanvas>} by name */ #painted = new Map();

  /** @param {Server} server */
  constructor(server) {
    this.server = server;
  }

  /** @type {(name: string, source: MaskSource | null) => void} */
  set(name, source) {
    this.#painted.delete(name);
    for (const masks of [this.#kept, this.#coming]) {
      for (const key of masks.keys()) if (key.startsWith(`${name} `)) masks.delete(key);
    }
    if (source) this.#painted.set(name, copyOf(source));
  }

  /**
   * A byte a pixel; the same array as long as the mask is the same. undefined: it has to be fetched.
   * @type {(mask: Mask, maxSide: MaxSide, size: Size) => Uint8Array | undefined}
   */
  of({ name, feather }, maxSide, size) {
    const key = `${name} ${feather} ${maxSide}`;
    const painted = this.#painted.get(name);
    const codes = this.#kept.get(key) ?? (painted && redOf(feathered(painted, feather), size));
    if (codes) this.#keep(key, codes);
    return codes;
  }

  /** What was forgotten or painted meanwhile is not kept. @type {(mask: Mask, maxSide: MaxSide) => Promise<void>} */
  async fetch(mask, maxSide) {
    const key = `${mask.name} ${mask.feather} ${maxSide}`;
    const coming = this.#coming.get(key) ?? this.server.mask(mask, maxSide).then((picture) => {
      if (this.#coming.get(key) === coming) this.#keep(key, redOf(picture, picture));
      picture.close();
    }).finally(() => {
      if (this.#coming.get(key) === coming) this.#coming.delete(key);
    });
    this.#coming.set(key, coming);
    await coming.catch((error) => {
      const { message, code, status } = error;
      throw code === 'mask_not_found' ? new RelightError(`${mask.field}: ${message}`, code, status) : error;
    });
  }

  /** @type {(key: string, codes: Uint8Array) => void} */
  #keep(key, codes) {
    this.#kept.delete(key);
    this.#kept.set(key, codes);
    if (this.#kept.size > MASKS_KEPT) this.#kept.delete(/** @type {string} */ (this.#kept.keys().next().value));
  }
}

/** @type {(size: Size) => [OffscreenCanvas, OffscreenCanvasRenderingContext2D]} */
function blackboard({ width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
  return [canvas, /** @type {OffscreenCanvasRenderingContext2D} */ (context)];
}

/** A copy, on black. @param {MaskSource} source */
function copyOf(source) {
  const [canvas, context] = blackboard(source);
  if (source instanceof ImageData) context.putImageData(source, 0, 0);
  else context.drawImage(source, 0, 0);
  return canvas;
}

/** Red, at another size. @type {(source: CanvasImageSource, size: Size) => Uint8Array} */
function redOf(source, size) {
  const [, context] = blackboard(size);
  context.drawImage(source, 0, 0, size.width, size.height);
  const { data } = context.getImageData(0, 0, size.width, size.height);
  const red = new Uint8Array(size.width * size.height);
  for (let i = 0; i < red.length; i += 1) red[i] = data[4 * i];
  return red;
}

/**
 * A mask that fades to each side of its edges as the server's do on an even ground: see server/light/masks.py.
 * @type {(canvas: OffscreenCanvas, feather: number) => OffscreenCanvas}
 */
function feathered(canvas, feather) {
  if (!feather) return canvas;
  const scale = Math.min(FEATHERED / Math.max(canvas.width, canvas.height), 1);
  const [width, height] = [canvas.width, canvas.height].map((side) => Math.max(Math.round(side * scale), 1));
  const soft = Float32Array.from(redOf(canvas, { width, height }));
  for (const part of [4, 2, 1]) {
    const share = Math.exp(-Math.SQRT2 / (((feather / 2) * width * part * Math.sqrt(3)) / Math.sqrt(63)));
    for (let y = 0; y < height; y += 1) sweep(soft, y * width, 1, width, share);
    for (let x = 0; x < width; x += 1) sweep(soft, x, width, height, share);
  }
  const image = new ImageData(width, height);
  soft.forEach((code, i) => image.data.set([code, 0, 0, 255], 4 * i));
  return copyOf(image);
}

/**
 * Brings each of a line of values nearer, by a share, to the one before, and then to the one after.
 * @type {(values: Float32Array, first: number, step: number, count: number, share: number) => void}
 */
function sweep(values, first, step, count, share) {
  const last = first + (count - 1) * step;
  for (let i = first + step; i <= last; i += step) values[i] += share * (values[i - step] - values[i]);
  for (let i = last - step; i >= first; i -= step) values[i] += share * (values[i + step] - values[i]);
}

/**
 * A mask at a smaller size, in bytes too: each pixel is the mean of what it covers.
 * @type {(codes: Uint8Array, from: Size, to: Size) => Uint8Array}
 */
function shrunk(codes, from, to) {
  const [columns, rows] = [shared(from.width, to.width), shared(from.height, to.height)];
  const line = new Float64Array(to.width + 1);
  const sums = new Float64Array(line.length * (to.height + 1));
  for (let y = 0, i = 0; y < from.height; y += 1) {
    line.fill(0);
    for (let x = 0; x < from.width; x += 1, i += 1) {
      line[columns.first[x]] += codes[i] * columns.share[x];
      line[columns.first[x] + 1] += codes[i] * columns.rest[x];
    }
    for (let k = 0, at = rows.first[y] * line.length; k < line.length; k += 1, at += 1) {
      sums[at] += line[k] * rows.share[y];
      sums[at + line.length] += line[k] * rows.rest[y];
    }
  }
  return Uint8Array.from({ length: to.width * to.height }, (_, k) => (
    Math.round(sums[Math.floor(k / to.width) * line.length + (k % to.width)])));
}

/** Of n pixels in a line, into which of fewer each falls first, how much of that it is, and how much of the next. */
function shared(/** @type {number} */ n, /** @type {number} */ fewer) {
  const whole = fewer / n;
  const first = Int32Array.from({ length: n }, (_, i) => Math.floor((i * fewer) / n));
  const share = Float64Array.from(first, (pixel, i) => Math.min(whole, pixel + 1 - (i * fewer) / n));
  return { first, share, rest: share.map((part) => whole - part) };
}

// ---- shadows: what the surfaces see, looked up for a light; server/light/field.py

class Shadows {
  /** @param {Maps} maps */
  constructor({ planes, scene, constants }) {
    const [count, height, width] = need(planes, 'grid.seen').shape;
    this.count = count;
    this.width = width;
    this.height = height;
    this.texels = width * height;
    this.seen = need(planes, 'grid.seen').data;
    this.trust = planes.get('grid.trust')?.data;
    this.q = need(planes, 'grid.q').data;
    this.focal = scene.focal;
    this.directions = Float32Array.from(scene.directions.flat());
    this.variance = scene.variance;
    this.around = scene.around;
    this.dim = constants.dim;
    this.normals = unitPlanes(need(planes, 'grid.normals').data, this.texels);
    this.above = this.#horizons(this.normals, constants.horizon);
    /** @type {Map<string, Float32Array>} */
    this.kept = new Map();
  }

  /**
   * How far each direction counts at each texel, 0..255: not, below the surface's own horizon.
   * @param {Float32Array} normals
   * @param {number} horizon
   */
  #horizons(normals, horizon) {
    const { count, texels: n, directions: d } = this;
    const above = new Uint8Array(count * n);
    for (let k = 0; k < count; k += 1) {
      const [x, y, z] = [d[3 * k], d[3 * k + 1], d[3 * k + 2]];
      for (let i = 0; i < n; i += 1) {
        const cosine = x * normals[i] + y * normals[n + i] + z * normals[2 * n + i];
        above[k * n + i] = Math.min(Math.max(Math.round(cosine * 255 * horizon), 0), 255);
      }
    }
    return above;
  }

  /**
   * The share of a light that each texel sees, 0..1; kept for the last lights.
   * @param {Light} light
   */
  visibility(light) {
    const far = light.kind === 'directional';
    const key = JSON.stringify(far ? [light.direction, light.angle] : [light.position, light.radius, light.kind]);
    let seen = this.kept.get(key);
    if (seen) this.kept.delete(key);
    else {
      seen = far ? this.#distant(light) : this.#near(light);
      if (this.trust) for (let i = 0; i < this.texels; i += 1) seen[i] = 1 - this.trust[i] * (1 - seen[i]);
    }
    this.kept.set(key, seen);
    if (this.kept.size > SHADOWS_KEPT) this.kept.delete(/** @type {string} */ (this.kept.keys().next().value));
    return seen;
  }

  /**
   * The share that arrives at each texel, by colour, of what light from all around gives in the open.
   * @param {(direction: number[]) => number[]} light  its radiance
   * @param {Float32Array | Uint8Array} occlusion
   * @returns {Float32Array[]}
   */
  shareOf(light, occlusion) {
    const { texels: n, normals, seen, count, around: { directions, cells }, dim, trust } = this;
    const radiance = directions.map((/** @type {number[]} */ d, /** @type {number} */ k) => (
      light(d).map((v) => v * cells[k])));
    const least = dim * radiance.flat().reduce((/** @type {number} */ most, /** @type {number} */ v) => (
      Math.max(most, v)), 0);
    const out = [0, 1, 2].map(() => new Float32Array(n));
    for (let i = 0; i < n; i += 1) {
      const [x, y, z] = [normals[i], normals[n + i], normals[2 * n + i]];
      const total = [0, 0, 0];
      const arrives = [0, 0, 0];
      for (let k = 0; k < directions.length; k += 1) {
        const d = directions[k];
        const cosine = x * d[0] + y * d[1] + z * d[2];
        if (cosine > 0) {
          const share = k < count ? seen[k * n + i] / 255 : occlusion[i];
          for (let c = 0; c < 3; c += 1) {
            total[c] += radiance[k][c] * cosine;
            arrives[c] += radiance[k][c] * cosine * share;
          }
        }
      }
      for (let c = 0; c < 3; c += 1) {
        const share = total[c] < least ? occlusion[i] : arrives[c] / Math.max(total[c], 1e-12);
        out[c][i] = trust ? 1 - trust[i] * (1 - share) : share;
      }
    }
    return out;
  }

  /** @param {Light} light */
  #distant(light) {
    const { texels: n, above, seen } = this;
    const weights = new Float64Array(this.count);
    this.#weigh(...light.direction, (light.angle * Math.PI) / 360, weights);
    const total = new Float32Array(n);
    const sum = new Float32Array(n);
    weights.forEach((weight, k) => {
      if (weight <= 1e-6) return;
      for (let i = 0, at = k * n; i < n; i += 1, at += 1) {
        const counts = weight * above[at];
        total[i] += counts;
        sum[i] += counts * seen[at];
      }
    });
    for (let i = 0; i < n; i += 1) sum[i] = total[i] < 1e-3 ? 1 : sum[i] / (255 * total[i]);
    return sum;
  }

  /** @param {Light} light */
  #near(light) {
    const { texels: n, width, height, q, focal, above, seen, count } = this;
    const weights = new Float64Array(count);
    const out = new Float32Array(n);
    const [px, py, pz] = light.position;
    for (let i = 0; i < n; i += 1) {
      const depth = 1 / q[i];
      const x = px - 2 * (((i % width) + 0.5) / width - 0.5) * depth;
      const y = py - 2 * ((height / 2 - Math.floor(i / width) - 0.5) / width) * depth;
      const z = pz + 2 * focal * (depth - 1);
      const distance = Math.max(Math.hypot(x, y, z), 1e-6);
      this.#weigh(x / distance, y / distance, z / distance, Math.atan(light.radius / distance), weights);
      let total = 0;
      let sum = 0;
      for (let k = 0, at = i; k < count; k += 1, at += n) {
        const counts = weights[k] * above[at];
        total += counts;
        sum += counts * seen[at];
      }
      out[i] = total < 1e-3 ? 1 : sum / (255 * total);
    }
    return out;
  }

  /**
   * What each direction counts for a source of that angular radius.
   * @type {(x: number, y: number, z: number, radius: number, weights: Float64Array) => void}
   */
  #weigh(x, y, z, radius, weights) {
    const { directions: d, count } = this;
    const concentration = 1 / (this.variance + (radius * radius) / 4);
    let most = -2;
    for (let k = 0, j = 0; k < count; k += 1, j += 3) {
      const cosine = d[j] * x + d[j + 1] * y + d[j + 2] * z;
      weights[k] = cosine;
      if (cosine > most) most = cosine;
    }
    let total = 0;
    for (let k = 0; k < count; k += 1) {
      const exponent = (weights[k] - most) * concentration;
      weights[k] = exponent < -30 ? 0 : Math.exp(exponent);
      total += weights[k];
    }
    for (let k = 0; k < count; k += 1) weights[k] /= total;
  }
}

/** @type {(normals: ArrayLike<number>, n: number) => Float32Array} */
function unitPlanes(normals, n) {
  const out = Float32Array.from(normals);
  for (let i = 0; i < n; i += 1) {
    const length = Math.max(Math.hypot(out[i], out[n + i], out[2 * n + i]), 1e-6);
    for (let k = 0; k < 3; k += 1) out[k * n + i] /= length;
  }
  return out;
}

/** @type {(planes: Map<string, Plane>, name: string) => Plane} */
function need(planes, name) {
  const found = planes.get(name);
  if (!found) throw new RelightError(`The maps lack ${name}.`, 'unknown');
  return found;
}

// ---- light from all around: server/light/environment.py, and share_of in server/light/field.py

/**
 * @typedef {{rows: number, columns: number, texels: Float32Array}} Sphere  equirectangular, three numbers a texel
 * @typedef {{matt: Sphere, shiny: Sphere | null, reflected: number[], left: Float32Array[] | null, rotation: number,
 *   roughness: number}} Surroundings  matt: irradiance by normal; shiny: what is mirrored, by where it comes from, and
 *   `reflected` how much, by n.v; left: what of each colour arrives at the texels of the shadows
 */

/** @param {string} text  half floats, least byte first, in Base64 @param {number} rows @returns {Sphere} */
function sphereOf(text, rows) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const texels = Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
    const half = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const [exponent, fraction] = [half >> 10, half & 1023];
    return exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24;
  });
  return { rows, columns: texels.length / 3 / rows, texels };
}

/**
 * The mean around every direction, by a kernel of the cosine of an angle.
 * @type {(sphere: Sphere, kernel: (cosine: number) => number) => Sphere}
 */
function convolved({ rows, columns, texels }, kernel) {
  const elevations = Array.from({ length: rows }, (_, i) => (0.5 - (i + 0.5) / rows) * Math.PI);
  const turns = Array.from({ length: columns }, (_, c) => Math.cos((2 * Math.PI * c) / columns));
  const out = new Float32Array(texels.length);
  elevations.forEach((here, i) => {
    const sums = new Float64Array(3 * columns);
    let total = 0;
    elevations.forEach((there, j) => {
      const [up, level] = [Math.sin(here) * Math.sin(there), Math.cos(here) * Math.cos(there)];
      for (let d = 0; d < columns; d += 1) {
        const weight = kernel(up + level * turns[d]) * Math.cos(there);
        total += weight;
        for (let c = 0, from = 3 * (j * columns + d); weight > 0 && c < 3 * columns; c += 1, from += 1) {
          if (from === 3 * (j + 1) * columns) from -= 3 * columns;
          sums[c] += weight * texels[from];
        }
      }
    });
    for (let c = 0; c < 3 * columns; c += 1) out[3 * i * columns + c] = sums[c] / total;
  });
  return { rows, columns, texels: out };
}

/**
 * A sphere, turned, in a direction: bilinear.
 * @type {(sphere: Sphere, direction: number[], rotation: number) => number[]}
 */
function lookUp({ rows, columns, texels }, [x, y, z], rotation) {
  const column = (Math.atan2(x, -z) / (2 * Math.PI) + 0.5 + rotation / 360) * columns - 0.5;
  const row = Math.min(Math.max((0.5 - Math.asin(Math.min(Math.max(y, -1), 1)) / Math.PI) * rows - 0.5, 0), rows - 1);
  const [left, top] = [Math.floor(column), Math.min(Math.floor(row), rows - 2)];
  const [right, down] = [column - left, row - top];
  const wrapped = (/** @type {number} */ c) => ((c % columns) + columns) % columns;
  return [0, 1, 2].map((k) => {
    const at = (/** @type {number} */ r, /** @type {number} */ c) => texels[3 * (r * columns + wrapped(c)) + k];
    return (1 - down) * ((1 - right) * at(top, left) + right * at(top, left + 1))
      + down * ((1 - right) * at(top + 1, left) + right * at(top + 1, left + 1));
  });
}

/** What a matt surface gets. @param {number} cosine */
const lambert = (cosine) => Math.max(cosine, 0);

/** What a surface of a roughness mirrors around the reflected direction: GGX times the cosine. */
const gloss = (/** @type {number} */ roughness) => (/** @type {number} */ cosine) => (
  Math.max(cosine, 1e-6) / (1 - ((1 + cosine) / 2) * (1 - roughness ** 4)) ** 2);

/** Where most of what a surface mirrors comes from. @type {(n: number[], roughness: number) => Vector} */
function mirrored(n, roughness) {
  const smooth = 1 - roughness;
  const near = smooth * (Math.sqrt(smooth) + roughness);
  return unit(n.map((v, k) => v + (2 * n[2] * v - (k === 2 ? 1 : 0) - v) * near));
}

const SAMPLES = 32; // of n.v, of heights of half vectors, and of their azimuths

/** The share of even light that a surface mirrors, at n.v of 1/32, 2/32, ... 1. @param {number} roughness */
function reflectance(roughness) {
  const alpha2 = roughness ** 4;
  const steps = Array.from({ length: SAMPLES }, (_, i) => i);
  return steps.map((i) => {
    const v = (i + 1) / SAMPLES;
    let sum = 0;
    for (const j of steps) {
      const share = (j + 0.5) / SAMPLES;
      const h = Math.sqrt((1 - share) / (1 + (alpha2 - 1) * share));
      for (const k of steps) {
        const VoH = h * v + Math.sqrt((1 - h * h) * (1 - v * v)) * Math.cos((Math.PI * (k + 0.5)) / SAMPLES);
        const NoL = Math.max(2 * VoH * h - v, 0);
        const V = 0.5 / (NoL * Math.sqrt(v * v * (1 - alpha2) + alpha2)
          + v * Math.sqrt(NoL * NoL * (1 - alpha2) + alpha2));
        const F = 0.04 + 0.96 * (1 - Math.min(Math.max(VoH, 0), 1)) ** 5;
        sum += (4 * V * F * NoL * Math.max(VoH, 0)) / h;
      }
    }
    return sum / SAMPLES ** 2;
  });
}

/** What is known of the built-in environments, made once. */
class Environments {
  /** @param {Maps} maps @param {Shadows} shadows */
  constructor(maps, shadows) {
    this.maps = maps;
    this.shadows = shadows;
    /** @type {Map<string, any>} */
    this.kept = new Map();
  }

  /**
   * @template T
   * @param {string} key
   * @param {() => T} make
   * @returns {T}
   */
  #once(key, make) {
    if (this.kept.size > ENVIRONMENTS_KEPT) this.kept.clear(); // a roughness that was dragged along
    if (!this.kept.has(key)) this.kept.set(key, make());
    return this.kept.get(key);
  }

  /** @param {Rig} rig @returns {Surroundings | null} */
  of({ around, specular, roughness, shadow }) {
    if (!around) return null;
    const { name, intensity, rotation } = around;
    const { rows, texels } = this.maps.contract.environments;
    const sphere = this.#once(name, () => sphereOf(texels[name], rows));
    const part = (/** @type {string} */ key, /** @type {(cosine: number) => number} */ kernel) => {
      const made = this.#once(`${name} ${key}`, () => convolved(sphere, kernel));
      return intensity === 1 ? made : { ...made, texels: Float32Array.from(made.texels, (v) => v * intensity) };
    };
    const { variance } = this.maps.scene;
    const spread = (/** @type {number} */ cosine) => Math.exp((cosine - 1) / variance);
    const cells = shadow > 0 && this.#once(`${name} cells`, () => convolved(sphere, spread));
    return {
      matt: part('matt', lambert),
      shiny: specular > 0 ? part(`shiny ${roughness}`, gloss(roughness)) : null,
      reflected: specular > 0 ? this.#once(`reflected ${roughness}`, () => reflectance(roughness)) : [],
      left: cells ? this.#left(name, cells, rotation, shadow) : null,
      rotation,
      roughness,
    };
  }

  /** What a matt surface in the open gets; null of another name. @type {(...of: any[]) => number[] | null} */
  irradiance(name, normal, rotation) {
    const { rows, texels } = this.maps.contract.environments;
    if (!Object.hasOwn(texels, name)) return null;
    const sphere = this.#once(name, () => sphereOf(texels[name], rows));
    return lookUp(this.#once(`${name} matt`, () => convolved(sphere, lambert)), normal, rotation);
  }

  /** @type {(name: string, cells: Sphere, rotation: number, strength: number) => Float32Array[]} */
  #left(name, cells, rotation, strength) {
    const { shadows, maps: { planes } } = this;
    const occlusion = need(planes, 'grid.occlusion').data;
    const key = `${name} ${rotation}`;
    let share = this.kept.get('share');
    if (share?.key !== key) {
      share = { key, planes: shadows.shareOf((direction) => lookUp(cells, direction, rotation), occlusion) };
      this.kept.set('share', share);
    }
    return share.planes.map((/** @type {Float32Array} */ plane) => (
      plane.map((seen, i) => (1 - strength) * occlusion[i] + strength * seen)));
  }
}

// ---- exposure: on a few samples of the photo, which the GPU need not be waited for; server/light/exposure.py

class Samples {
  /** @param {Maps} maps */
  constructor({ planes, constants, scene, width: columns, height: rows }) {
    const part = (/** @type {string} */ name) => need(planes, `samples.${name}`).data;
    const { shape: [, height, width] } = need(planes, 'samples.photo');
    this.height = height;
    this.width = width;
    this.count = width * height;
    this.linear = Float32Array.from(need(planes, 'samples.photo').data, (code) => toLinear(code / 255));
    this.normals = part('normals');
    this.light = part('light');
    this.occlusion = part('occlusion');
    this.q = part('q');
    this.corners = part('corners');
    this.weights = part('weights');
    const share = planes.get('samples.share')?.data;
    this.share = share;
    this.surface = Array.from({ length: this.count }, (_, i) => i).filter((i) => !share || share[i] > 0.5);
    this.picture = { width: columns, height: rows };
    /** @type {WeakMap<Uint8Array, Uint8Array>} of the picture's, those at the size of the samples */
    this.masks = new WeakMap();
    this.constants = constants;
    this.focal = scene.focal;
  }

  /**
   * The exposure in stops at which the photo, lit anew, is as bright as it was; 0 where it is black all over.
   * @param {Rig} rig
   * @param {Shadows} shadows
   * @param {number} even  what makes the mean of the light that is divided out 1
   * @param {Surroundings | null} around
   */
  exposure(rig, shadows, even, around) {
    const { most, black: share, close } = this.constants;
    const surface = this.#relitAtAll(rig);
    const before = surface.map((i) => this.#luminance(i, [1, 1, 1]));
    const black = share * mean(before);
    if (!(black > 0)) return 0;
    const wanted = mean(before.map((v) => Math.log2(Math.max(v / black, 1))));
    const seen = rig.lights.map((light) => (light.shadow && rig.shadow > 0 ? shadows.visibility(light) : null));
    const stops = surface.map((i) => (
      Math.log2(Math.max(this.#relit(i, rig, seen, shadows, even, around) / black, 2 ** -most))));
    let low = -most;
    let high = most;
    while (high - low > close) {
      const middle = (low + high) / 2;
      if (mean(stops.map((v) => Math.max(v + middle, 0))) < wanted) low = middle;
      else high = middle;
    }
    return (low + high) / 2;
  }

  /** The samples that count: surfaces in the picture's mask, or where that leaves none, all. @param {Rig} rig */
  #relitAtAll({ mask }) {
    const { surface, share } = this;
    if (!mask) return surface;
    const within = surface.filter((i) => (share?.[i] ?? 1) * this.#masked(mask, i) > 0.5);
    return within.length ? within : surface;
  }

  /** How much a sample is in a mask. @type {(mask: Mask | null, i: number) => number} */
  #masked(mask, i) {
    if (!mask?.codes) return 1;
    let codes = this.masks.get(mask.codes);
    if (!codes) {
      codes = shrunk(mask.codes, this.picture, this);
      this.masks.set(mask.codes, codes);
    }
    return (mask.invert ? 255 - codes[i] : codes[i]) / 255;
  }

  /** @type {(i: number, factors: number[], shine?: number[]) => number} */
  #luminance(i, factors, shine = [0, 0, 0]) {
    const { linear, count, constants: { luminance } } = this;
    return [0, 1, 2].reduce((sum, k) => sum + luminance[k] * (linear[k * count + i] * factors[k] + shine[k]), 0);
  }

  /**
   * The luminance of a sample under a rig, before the tone curve.
   * @type {(i: number, rig: Rig, seen: (Float32Array | null)[], shadows: Shadows, even: number,
   *   around: Surroundings | null) => number}
   */
  #relit(i, rig, seen, { width, height }, even, around) {
    const { count, normals } = this;
    const n = [normals[i], normals[count + i], normals[2 * count + i]];
    const place = this.#place(i);
    const lit = Array(3).fill(rig.ambient * this.occlusion[i]);
    const shine = [0, 0, 0];
    if (around) {
      const { matt, shiny, reflected, left, rotation, roughness } = around;
      const arrives = [0, 1, 2].map((c) => (left ? this.#upsampled(i, left[c], width, height) : this.occlusion[i]));
      lookUp(matt, n, rotation).forEach((v, c) => { lit[c] += v * arrives[c]; });
      if (shiny) {
        const share = rig.specular * interpolated(reflected, n[2] * SAMPLES - 1);
        lookUp(shiny, mirrored(n, roughness), rotation).forEach((v, c) => { shine[c] += v * arrives[c] * share; });
      }
    }
    rig.lights.forEach((light, k) => {
      const { toward, arrives } = arrival(light, place);
      const cosine = Math.max(n[0] * toward[0] + n[1] * toward[1] + n[2] * toward[2], 0);
      const plane = seen[k];
      const left = plane ? 1 - rig.shadow + rig.shadow * this.#upsampled(i, plane, width, height) : 1;
      const strength = cosine * arrives * left * light.intensity * this.#masked(light.mask, i);
      const shiny = rig.specular && strength ? rig.specular * ggx(n, toward, cosine, rig.roughness) : 0;
      light.color.forEach((c, channel) => {
        lit[channel] += c * strength;
        shine[channel] += c * strength * shiny;
      });
    });
    const old = even * Math.exp(-rig.delight * this.light[i]);
    return this.#luminance(i, lit.map((v) => v * old), shine);
  }

  /** @type {(i: number) => Vector} */
  #place(i) {
    const { width, height, focal } = this;
    const depth = 1 / this.q[i];
    return [2 * (((i % width) + 0.5) / width - 0.5) * depth,
      2 * ((height / 2 - Math.floor(i / width) - 0.5) / width) * depth, -2 * focal * (depth - 1)];
  }

  /** @type {(i: number, plane: Float32Array, width: number, height: number) => number} */
  #upsampled(i, plane, width, height) {
    const { count, weights: w } = this;
    const at = this.corners[i];
    const right = width > 1 ? 1 : 0;
    const below = height > 1 ? width : 0;
    return w[i] * plane[at] + w[count + i] * plane[at + right] + w[2 * count + i] * plane[at + below]
      + w[3 * count + i] * plane[at + below + right];
  }
}

/** Between the values before and after a place, or at an end. @type {(values: number[], place: number) => number} */
function interpolated(values, place) {
  const within = Math.min(Math.max(place, 0), values.length - 1);
  const before = Math.min(Math.floor(within), values.length - 2);
  return values[before] + (within - before) * (values[before + 1] - values[before]);
}

/** @param {number[]} values */
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / Math.max(values.length, 1);

/** @type {(a: number[], b: number[]) => number} */
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/**
 * Unit vector from a place toward a light, and how much of it arrives, before cosine and shadow.
 * @type {(light: Light, place: Vector) => {toward: Vector, arrives: number}}
 */
function arrival(light, place) {
  if (light.kind === 'directional') return { toward: light.direction, arrives: 1 };
  const away = light.position.map((v, i) => v - place[i]);
  const square = Math.max(dot(away, away), 1e-12);
  const length = Math.sqrt(square);
  /** @type {Vector} */
  const toward = [away[0] / length, away[1] / length, away[2] / length];
  const { near, axis, outer, fade } = lampNumbers(light);
  let arrives = 1 / (1 + square * near);
  if (light.kind === 'spot') {
    const t = Math.min(Math.max((dot(toward, axis) - outer) * fade, 0), 1);
    arrives *= t * t * (3 - 2 * t);
  }
  return { toward, arrives };
}

/** @param {Light} light */
function lampNumbers({ kind, position, target, range, cone, blend }) {
  const half = (cone * Math.PI) / 360;
  const outer = Math.cos(half);
  return {
    near: 1 / Math.max(range, 1e-12) ** 2,
    axis: kind === 'spot' ? unit(position.map((v, i) => v - target[i])) : [0, 0, 1],
    outer,
    fade: 1 / Math.max(Math.cos(half * (1 - blend)) - outer, 1e-6),
  };
}

/** See RELIGHT. @type {(n: number[], l: Vector, cosine: number, roughness: number) => number} */
function ggx(n, [x, y, z], cosine, roughness) {
  const alpha2 = roughness ** 4;
  const length = Math.sqrt(Math.max(2 * (z + 1), 1e-12));
  const less = Math.min(0.5 * [x, y, z + 1].reduce((sum, v, i) => sum + (v / length - n[i]) ** 2, 0), 1);
  const facing = Math.max(n[2], 1e-3);
  const D = less * (2 - less) * (1 - alpha2) + alpha2;
  const V = cosine * Math.sqrt(facing * facing * (1 - alpha2) + alpha2)
    + facing * Math.sqrt(cosine * cosine * (1 - alpha2) + alpha2);
  const grazing = 1 - Math.min(length / 2, 1);
  return ((grazing ** 5 * 0.96 + 0.04) * alpha2 * 0.5) / (D * D * Math.max(V, 1e-6));
}

// ---- shaders

const HEAD = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp usampler2D;
precision highp sampler2DArray;
`;

const WHOLE = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

// From the grids to the pixels: joint bilateral upsampling where pixels decide, bilinear elsewhere; the photo's own
// light; for the grid of the shadows, what each of the four texels around a pixel counts. server/light/upsampling.py
const PREPARE = `${HEAD}
uniform sampler2D photo, planes, more, colours, coarse;
uniform ivec2 size, grid, shadowGrid;
uniform float colour, depth, faintest, steepest, direct, least, share, lowest, harmonics[9], clipping, clipped;
uniform vec3 ranges;                    // of the logarithm of the old light, the headroom, q
layout(location = 0) out uvec4 pixels;  // 16 bits each: normal, log of the old light; linear photo, headroom
layout(location = 1) out uvec2 packed;  // 8 bits each: what three of four texels count, share; q, occlusion

// The texel before a pixel, of n along N pixels, and how far the pixel is past it: centres at halves, edges repeated.
int placed(int pixel, int n, int N, out float past) {
  int twice = clamp((2 * pixel + 1) * n - N, 0, 2 * N * (n - 1));
  int texel = min(twice / (2 * N), max(n - 2, 0));
  past = float(twice - texel * 2 * N) / float(2 * N);
  return texel;
}

// IEC 61966-2-1
vec3 toLinear(vec3 c) { return mix(pow((c + 0.055) / 1.055, vec3(2.4)), c / 12.92, lessThanEqual(c, vec3(0.04045))); }

void decide(ivec2 pixel, ivec2 at, vec2 past, float middle, inout vec4 a, inout vec4 b) {
  vec3 mine = texelFetch(photo, pixel, 0).rgb;
  vec4 nearA = vec4(0), nearB = vec4(0), farA = vec4(0), farB = vec4(0);
  float near = 0.0, far = 0.0;
  for (int k = 0; k < 16; k++) {
    ivec2 ahead = ivec2(k & 3, k >> 2) - 1;
    ivec2 texel = clamp(at + ahead, ivec2(0), grid - 1);
    vec3 off = mine - texelFetch(colours, texel, 0).rgb;
    vec2 away = past - vec2(ahead);
    float weight = exp(max(-0.5 * dot(off, off) / (colour * colour), faintest) - 0.5 * dot(away, away));
    vec4 a1 = texelFetch(planes, texel, 0) * weight, b1 = texelFetch(more, texel, 0);
    bool nearer = b1.z > middle;
    b1 *= weight;
    if (nearer) { nearA += a1; nearB += b1; near += weight; } else { farA += a1; farB += b1; far += weight; }
  }
  float t = clamp((near / (near + far) - 0.25) * 2.0, 0.0, 1.0), won = t * t * (3.0 - 2.0 * t);
  float n = won / max(near, 1e-12), f = (1.0 - won) / max(far, 1e-12);
  a = nearA * n + farA * f;
  b = nearB * n + farB * f;
}

float oldLight(vec3 n) {
  float h = harmonics[0] - harmonics[8] - lowest
    + n.x * (harmonics[1] + harmonics[7] * n.x + harmonics[4] * n.y + harmonics[6] * n.z)
    + n.y * (harmonics[2] - harmonics[7] * n.y + harmonics[5] * n.z)
    + n.z * (harmonics[3] + 3.0 * harmonics[8] * n.z);
  return 0.5 * sqrt(h * h + 4.0 * lowest * lowest) + 0.5 * h + lowest;
}

void main() {
  ivec2 pixel = ivec2(gl_FragCoord.xy);
  vec2 p;
  ivec2 at = ivec2(placed(pixel.x, grid.x, size.x, p.x), placed(pixel.y, grid.y, size.y, p.y));
  ivec2 next = min(at + 1, grid - 1);
  vec4 corner = vec4((1.0 - p.y) * (1.0 - p.x), (1.0 - p.y) * p.x, p.y * (1.0 - p.x), p.y * p.x);
  vec4 first = texelFetch(more, at, 0);
  vec4 a = texelFetch(planes, at, 0) * corner.x + texelFetch(planes, ivec2(next.x, at.y), 0) * corner.y
    + texelFetch(planes, ivec2(at.x, next.y), 0) * corner.z + texelFetch(planes, next, 0) * corner.w;
  vec4 b = first * corner.x + texelFetch(more, ivec2(next.x, at.y), 0) * corner.y
    + texelFetch(more, ivec2(at.x, next.y), 0) * corner.z + texelFetch(more, next, 0) * corner.w;
  if (first.w < 1e8) decide(pixel, at, p, first.w, a, b);
  vec3 n = a.xyz / max(length(a.xyz), 1e-6);
  float old = oldLight(n);
  float logarithm = log(lowest < least ? max(old, least) : old) * (1.0 - share) + a.w;

  at = ivec2(placed(pixel.x, shadowGrid.x, size.x, p.x), placed(pixel.y, shadowGrid.y, size.y, p.y));
  next = min(at + 1, shadowGrid - 1);
  mat4 texels = mat4(texelFetch(coarse, at, 0), texelFetch(coarse, ivec2(next.x, at.y), 0),
    texelFetch(coarse, ivec2(at.x, next.y), 0), texelFetch(coarse, next, 0));
  vec4 w = vec4((1.0 - p.y) * (1.0 - p.x), (1.0 - p.y) * p.x, p.y * (1.0 - p.x), p.y * p.x);
  if (texels[0].z > 0.5) {
    vec4 unlike = (vec4(texels[0].x, texels[1].x, texels[2].x, texels[3].x) - log(b.y)) / depth;
    w = (w + direct) * exp(-min(unlike * unlike, steepest));
    w /= w.x + w.y + w.z + w.w;
  }
  uvec4 bits = uvec4(vec4(w.xyz, clamp(b.x, 0.0, 1.0)) * 255.0 + 0.5);
  packed = uvec2(bits.x | bits.y << 8 | bits.z << 16 | bits.w << 24,
    packUnorm2x16(vec2(b.y / ranges.z, (texels * w).y)));

  vec3 own = texelFetch(photo, pixel, 0).rgb, over = clamp((own * 255.0 - clipping) / (255.0 - clipping), 0.0, 1.0);
  vec3 linear = toLinear(own);
  pixels = uvec4(packSnorm2x16(n.xy), packSnorm2x16(vec2(n.z, logarithm / ranges.x)), packUnorm2x16(linear.rg),
    packUnorm2x16(vec2(linear.b, clipped / 3.0 * dot(over, over) / ranges.y)));
}`;

// The picture: server/light/shading.py
const RELIGHT = `${HEAD}
uniform sampler2D photo;
uniform usampler2D pixels, packed;  // of PREPARE
uniform vec3 ranges;
uniform ivec2 size, grid;
uniform int step;             // every so manyth pixel is drawn
uniform vec2 scale;           // texels of the shadows a pixel
uniform float ambient, strength, delight, highlight, focal, alpha2, gloss;
#if MASKS
uniform sampler2DArray masks;
uniform ivec2 masked[LIGHTS + 1];  // of the lights, then of the picture: a layer, or -1 for everywhere; 1: inverted
#endif
#if LIGHTS > 0 || AROUND
uniform sampler2DArray shadows;  // a layer a light: what shadows leave of it, see fourAround
#endif
#if AROUND
uniform sampler2D matt, shiny;
uniform vec3 turned;          // of the environment, in turns; its factor; how near to the reflected direction
uniform float reflected[32];
#endif
#if LIGHTS > 0
uniform vec3 toward[LIGHTS];  // direction, or position
uniform vec3 light[LIGHTS];   // colour times intensity
uniform vec3 axis[LIGHTS];    // of a spot, toward it
uniform vec4 lamp[LIGHTS];    // 0 distant, 1 point, 2 spot; 1 / range^2; cosine of the cone; 1 / what it fades over
#endif
out vec4 result;

// IEC 61966-2-1, by a fit that is at most 0.009 of a code off: square roots are cheaper than powers
vec3 toCodes(vec3 c) {
  vec3 root = sqrt(c), fourth = sqrt(root);
  vec3 curve = 0.08132998422639177 * c + (1.1226816423232369 - 0.33550157870464875 * fourth) * root
    + 0.1961358592204037 * fourth - 0.06461153680856177;
  return mix(curve, c * 12.92, lessThanEqual(c, vec3(0.0031308)));
}
float largest(vec3 c) { return max(max(c.r, c.g), c.b); }

#if AROUND
vec3 lookUp(sampler2D sphere, vec3 d) {
  ivec2 size = textureSize(sphere, 0);
  vec2 place = (vec2(atan(d.x, -d.z) / 6.283185307 + 0.5 + turned.x, 0.5 - asin(clamp(d.y, -1.0, 1.0)) / 3.141592654))
    * vec2(size) - 0.5;
  place.y = clamp(place.y, 0.0, float(size.y - 1));
  ivec2 at = ivec2(floor(place.x), min(int(place.y), size.y - 2));
  vec2 past = place - vec2(at);
  int left = (at.x + 4 * size.x) % size.x, right = (left + 1) % size.x;
  return mix(
    mix(texelFetch(sphere, ivec2(left, at.y), 0).rgb, texelFetch(sphere, ivec2(right, at.y), 0).rgb, past.x),
    mix(texelFetch(sphere, ivec2(left, at.y + 1), 0).rgb, texelFetch(sphere, ivec2(right, at.y + 1), 0).rgb, past.x),
    past.y);
}
#endif

#if GLOSSY && LIGHTS > 0
// Cook-Torrance: GGX, the height-correlated Smith term, Schlick's Fresnel; times pi. The viewer is at +z.
float ggx(vec3 n, vec3 l, float NoL) {
  float len = sqrt(max(2.0 * (l.z + 1.0), 1e-12));
  vec3 off = vec3(l.xy, l.z + 1.0) / len - n;
  float less = min(0.5 * dot(off, off), 1.0), NoV = max(n.z, 1e-3);
  float D = less * (2.0 - less) * (1.0 - alpha2) + alpha2;
  float V = NoL * sqrt(NoV * NoV * (1.0 - alpha2) + alpha2) + NoV * sqrt(NoL * NoL * (1.0 - alpha2) + alpha2);
  float grazing = 1.0 - min(len * 0.5, 1.0), squared = grazing * grazing;
  return (squared * squared * grazing * 0.96 + 0.04) * alpha2 * 0.5 / (D * D * max(V, 1e-6));
}
#endif

// The built-in functions do the same, but without a GPU they are slower: processors convert signed numbers
vec2 unsignedPair(uint x) { return vec2(ivec2(x & 65535u, x >> 16)) * (1.0 / 65535.0); }
vec2 signedPair(uint x) { return vec2(ivec2(x << 16, x) >> 16) * (1.0 / 32767.0); }

#if MASKS
float within(ivec2 mask, ivec2 pixel) {
  if (mask.x < 0) return 1.0;
  float share = texelFetch(masks, ivec3(pixel, mask.x), 0).r;
  return mask.y > 0 ? 1.0 - share : share;
}
#endif

void main() {
  ivec2 pixel = ivec2(gl_FragCoord.xy);
  pixel.y = (size.y - 1) / step - pixel.y;
  pixel *= step;
  uvec2 bits = texelFetch(packed, pixel, 0).xy;
  vec2 there = unsignedPair(bits.y);  // q, occlusion
  ivec4 eights = ivec4(bits.x, bits.x >> 8, bits.x >> 16, bits.x >> 24) & 255;
  float share = float(eights.w) * (1.0 / 255.0);
#if MASKS
  share *= within(masked[LIGHTS], pixel);
#endif
  uvec4 all = texelFetch(pixels, pixel, 0);
  vec2 s = signedPair(all.y);
  vec3 n = vec3(signedPair(all.x), s.x), lit = vec3(ambient * there.y), shine = vec3(0);
  vec4 old = vec4(unsignedPair(all.z), unsignedPair(all.w));
#if SHADOWS
  vec3 counts = vec3(eights.xyz) * (1.0 / 255.0);
  vec4 w = vec4(counts, 1.0 - counts.x - counts.y - counts.z);
  // As placed() says: what is added decides for pixels on a texel; no others lie so near before one
  ivec2 at = min(ivec2(max((vec2(pixel) + 0.5) * scale - 0.4999, 0.0)), max(grid - 2, 0));
#endif
#if LAMPS
  float away = 1.0 / (there.x * ranges.z);
  vec3 here = vec3(2.0 * ((float(pixel.x) + 0.5) / float(size.x) - 0.5) * away,
    2.0 * ((0.5 * float(size.y) - float(pixel.y) - 0.5) / float(size.x)) * away, (away - 1.0) * -2.0 * focal);
#endif
#if AROUND
#if SHADOWS
  vec3 arriving = vec3(dot(w, texelFetch(shadows, ivec3(at, LIGHTS), 0)),
    dot(w, texelFetch(shadows, ivec3(at, LIGHTS + 1), 0)), dot(w, texelFetch(shadows, ivec3(at, LIGHTS + 2), 0)));
#else
  vec3 arriving = vec3(there.y);
#endif
  arriving *= turned.y;
  lit += arriving * lookUp(matt, n);
#if GLOSSY
  vec3 back = vec3(2.0 * n.z * n.xy, 2.0 * n.z * n.z - 1.0);
  float facing = clamp(n.z * 32.0 - 1.0, 0.0, 31.0);
  int step32 = min(int(facing), 30);
  float share32 = mix(reflected[step32], reflected[step32 + 1], facing - float(step32));
  shine += arriving * gloss * share32 * lookUp(shiny, normalize(n + (back - n) * turned.z));
#endif
#endif
#if LIGHTS > 0
  for (int i = 0; i < LIGHTS; i++) {
    vec3 l = toward[i];
#if SHADOWS
    float arrives = dot(w, texelFetch(shadows, ivec3(at, i), 0));
#else
    float arrives = 1.0;
#endif
#if MASKS
    arrives *= within(masked[i], pixel);
#endif
#if LAMPS
    if (lamp[i].x > 0.0) {
      l -= here;
      float square = max(dot(l, l), 1e-12);
      l *= inversesqrt(square);
      arrives /= 1.0 + square * lamp[i].y;
      if (lamp[i].x > 1.0) {
        float t = clamp((dot(l, axis[i]) - lamp[i].z) * lamp[i].w, 0.0, 1.0);
        arrives *= t * t * (3.0 - 2.0 * t);
      }
    }
#endif
    float NoL = max(dot(n, l), 0.0);
    lit += light[i] * (NoL * arrives);
#if GLOSSY
    shine += light[i] * (NoL * arrives * gloss * ggx(n, l, NoL));
#endif
  }
#endif
#if LIGHT_ALONE
  result = vec4(toCodes(min(0.5 * share * lit, 1.0)), 1.0);
  return;
#endif
  vec3 ratio = lit * exp(-delight * ranges.x * s.y);
  float headroom = old.a * ranges.y;
  ratio *= (1.0 + headroom) / (1.0 + headroom * min(largest(ratio), 1.0));
  vec3 new = old.rgb * ratio + shine * highlight;
  float was = largest(old.rgb), is = largest(new), kept = min(was, is), grown = is - kept, room = 1.0 - was;
  kept += grown * room * inversesqrt(room * room + 1e-12 + grown * grown);
  new *= kept / max(is, 1e-12);
  result.rgb = toCodes(mix(old.rgb, new, strength * share));
#if ALPHA
  result.a = texelFetch(photo, pixel, 0).a;
#else
  result.a = 1.0;
#endif
}`;

const SHOW = `${HEAD}
uniform sampler2D photo;
uniform ivec2 size;
out vec4 result;
void main() { result = texelFetch(photo, ivec2(gl_FragCoord.x, float(size.y) - gl_FragCoord.y), 0); }`;

// ---- the GPU

class Gpu {
  /** @param {WebGL2RenderingContext} gl */
  constructor(gl) {
    this.gl = gl;
    /** @type {Map<string, WebGLProgram>} */
    this.programs = new Map();
    /** @type {Set<WebGLProgram>} that were linked */
    this.proven = new Set();
    /** @type {Map<WebGLProgram, Map<string, WebGLUniformLocation | null>>} */
    this.places = new Map();
    /** @type {Set<WebGLTexture>} */
    this.textures = new Set();
    this.frame = /** @type {WebGLFramebuffer} */ (gl.createFramebuffer());
    gl.bindVertexArray(null);
    gl.disable(gl.DITHER);
    gl.disable(gl.BLEND);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  }

  /** Begins to build what the first picture takes, as a rule: drivers do it meanwhile. */
  warm() {
    this.#built(PREPARE, {});
    this.#built(RELIGHT, switchesOf({ lights: 1, shadows: true }));
  }

  /**
   * A program, made once; #define what `switches` say.
   * @param {string} source
   * @param {Record<string, number>} switches
   */
  program(source, switches = {}) {
    const { gl } = this;
    const program = this.#built(source, switches);
    if (!this.proven.has(program) && !gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const log = gl.getAttachedShaders(program)?.map((shader) => gl.getShaderInfoLog(shader)).join(' ');
      throw new RelightError(`A shader cannot be built here: ${log}`, 'no_webgl');
    }
    this.proven.add(program);
    return program;
  }

  /** @type {(source: string, switches: Record<string, number>) => WebGLProgram} */
  #built(source, switches) {
    const key = `${source.length} ${Object.entries(switches).join(' ')}`;
    const made = this.programs.get(key);
    if (made) return made;
    const { gl } = this;
    const program = /** @type {WebGLProgram} */ (gl.createProgram());
    const defines = Object.entries(switches).map(([name, value]) => `#define ${name} ${value}\n`).join('');
    for (const [type, text] of /** @type {[number, string][]} */ ([
      [gl.VERTEX_SHADER, WHOLE], [gl.FRAGMENT_SHADER, source.replace('\n', `\n${defines}`)]])) {
      const shader = /** @type {WebGLShader} */ (gl.createShader(type));
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      gl.deleteShader(shader);
    }
    gl.linkProgram(program);
    this.programs.set(key, program);
    this.places.set(program, new Map());
    return program;
  }

  /**
   * Uses a program with these numbers and textures, and draws `size` pixels into the canvas or into `targets`.
   * @param {WebGLProgram} program
   * @param {[number, number]} size
   * @param {Record<string, WebGLTexture>} textures
   * @param {Record<string, {set: string, value: any}>} numbers
   * @param {WebGLTexture[]} targets
   */
  draw(program, size, textures, numbers, targets = []) {
    const { gl } = this;
    gl.useProgram(program);
    Object.entries(textures).forEach(([name, texture], k) => {
      gl.activeTexture(gl.TEXTURE0 + k);
      gl.bindTexture(name === 'shadows' || name === 'masks' ? gl.TEXTURE_2D_ARRAY : gl.TEXTURE_2D, texture);
      gl.uniform1i(this.#place(program, name), k);
    });
    for (const [name, { set, value }] of Object.entries(numbers)) {
      const setter = /** @type {(place: WebGLUniformLocation | null, value: any) => void} */ (
        /** @type {any} */ (gl)[`uniform${set}`]);
      setter.call(gl, this.#place(program, name), value);
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, targets.length ? this.frame : null);
    targets.forEach((texture, k) => (
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + k, gl.TEXTURE_2D, texture, 0)));
    for (let k = targets.length; targets.length && k < 2; k += 1) {
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + k, gl.TEXTURE_2D, null, 0);
    }
    if (targets.length) gl.drawBuffers(targets.map((_, k) => gl.COLOR_ATTACHMENT0 + k));
    gl.viewport(0, 0, ...size);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** @type {(program: WebGLProgram, name: string) => WebGLUniformLocation | null} */
  #place(program, name) {
    const places = /** @type {Map<string, WebGLUniformLocation | null>} */ (this.places.get(program));
    if (!places.has(name)) places.set(name, this.gl.getUniformLocation(program, name));
    return places.get(name) ?? null;
  }

  /**
   * @param {number} target
   * @returns {WebGLTexture}
   */
  #texture(target) {
    const { gl } = this;
    const texture = /** @type {WebGLTexture} */ (gl.createTexture());
    this.textures.add(texture);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(target, texture);
    for (const [name, value] of [
      [gl.TEXTURE_MIN_FILTER, gl.NEAREST], [gl.TEXTURE_MAG_FILTER, gl.NEAREST],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]]) {
      gl.texParameteri(target, name, value);
    }
    return texture;
  }

  /** @type {(format: number, width: number, height: number) => WebGLTexture} */
  empty(format, width, height) {
    const texture = this.#texture(this.gl.TEXTURE_2D);
    this.gl.texStorage2D(this.gl.TEXTURE_2D, 1, format, width, height);
    return texture;
  }

  /** @type {(format: number, width: number, height: number, layers: number) => WebGLTexture} */
  layers(format, width, height, layers) {
    const texture = this.#texture(this.gl.TEXTURE_2D_ARRAY);
    this.gl.texStorage3D(this.gl.TEXTURE_2D_ARRAY, 1, format, width, height, layers);
    return texture;
  }

  /** @type {(texels: Float32Array, width: number, height: number) => WebGLTexture} */
  floats(texels, width, height) {
    const { gl } = this;
    const texture = this.empty(gl.RGBA32F, width, height);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.FLOAT, texels);
    return texture;
  }

  /** @type {(pixels: ImageBitmap | Uint8Array, width: number, height: number) => WebGLTexture} */
  codes(pixels, width, height) {
    const { gl } = this;
    const texture = this.empty(gl.RGBA8, width, height);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    if (pixels instanceof Uint8Array) {
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    } else gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    return texture;
  }

  /** Draws a texture into the canvas as it is. @type {(photo: WebGLTexture, width: number, height: number) => void} */
  show(photo, width, height) {
    this.draw(this.program(SHOW), [width, height], { photo }, { size: pair([width, height]) });
  }

  /** @param {WebGLTexture[]} textures */
  drop(...textures) {
    for (const texture of textures) {
      this.gl.deleteTexture(texture);
      this.textures.delete(texture);
    }
  }

  destroy() {
    this.drop(...this.textures);
    for (const program of this.programs.values()) this.gl.deleteProgram(program);
    this.gl.deleteFramebuffer(this.frame);
  }
}

const one = (/** @type {number} */ value) => ({ set: '1f', value });
const pair = (/** @type {number[]} */ value) => ({ set: '2iv', value });
const many = (/** @type {1 | 3 | 4} */ size, /** @type {number[]} */ value) => ({ set: `${size}fv`, value });

/**
 * Planes as the four channels of texels.
 * @param {number} texels
 * @param {(ArrayLike<number> | number)[]} channels  each an array, or a number for all texels
 */
function interleaved(texels, channels) {
  const out = new Float32Array(4 * texels);
  channels.forEach((channel, k) => {
    for (let i = 0; i < texels; i += 1) out[4 * i + k] = typeof channel === 'number' ? channel : channel[i];
  });
  return out;
}

/** @type {(texels: number, rgb: ArrayLike<number>) => Uint8Array} */
function opaque(texels, rgb) {
  const out = new Uint8Array(4 * texels).fill(255);
  for (let i = 0; i < texels; i += 1) for (let k = 0; k < 3; k += 1) out[4 * i + k] = rgb[k * texels + i];
  return out;
}

/**
 * In the middle between the two sides of a silhouette, for each cell: of the 5 x 5 texels around its upper left one.
 * @type {(layer: Float32Array, width: number, height: number) => Float32Array}
 */
function middles(layer, width, height) {
  const out = new Float32Array(layer.length);
  for (let i = 0; i < layer.length; i += 1) {
    const [x, y] = [i % width, Math.floor(i / width)];
    let low = Infinity;
    let high = -Infinity;
    for (let v = Math.max(y - 2, 0); v <= Math.min(y + 2, height - 1); v += 1) {
      for (let u = Math.max(x - 2, 0); u <= Math.min(x + 2, width - 1); u += 1) {
        low = Math.min(low, layer[v * width + u]);
        high = Math.max(high, layer[v * width + u]);
      }
    }
    out[i] = (low + high) / 2;
  }
  return out;
}

/** All that lights one photo on the GPU. */
class Lamp {
  /**
   * @param {Gpu} gpu
   * @param {Maps} maps
   * @param {ImageBitmap} photo
   */
  constructor(gpu, maps, photo) {
    this.gpu = gpu;
    this.maps = maps;
    this.shadows = new Shadows(maps);
    this.environments = new Environments(maps, this.shadows);
    /** @type {WebGLTexture[]} of the environment */
    this.spheres = [];
    this.samples = new Samples(maps);
    this.picture = this.#prepare(photo, maps.width, maps.height);
    this.layers = 0;
    /** @type {WebGLTexture | null} */
    this.shade = null;
    /** @type {WebGLTexture | null} */
    this.masks = null;
    /** @type {(Uint8Array | undefined)[]} what lies in its layers */
    this.masked = [];
  }

  /** Bytes of textures, and of a canvas that is kept twice. */
  get bytes() {
    const { texels } = this.shadows;
    const pixels = this.maps.width * this.maps.height;
    return this.picture.bytes + this.layers * texels * 16 + pixels * (8 + this.masked.length);
  }

  /**
   * @param {ImageBitmap} colours
   * @param {number} width
   * @param {number} height
   * @returns {Picture}
   */
  #prepare(colours, width, height) {
    const { gpu, gpu: { gl }, maps: { planes, constants, scene }, shadows } = this;
    const photo = gpu.codes(colours, width, height);
    const pixels = gpu.empty(gl.RGBA32UI, width, height);
    const packed = gpu.empty(gl.RG32UI, width, height);
    const { data: q } = need(planes, 'picture.q');
    /** @type {Vector} */
    const ranges = [LOGARITHMS, constants.clipped, Float32Array.from(q).reduce((most, v) => Math.max(most, v), 0)];
    const [, rows, columns] = need(planes, 'picture.q').shape;
    const texels = rows * columns;
    const inputs = { ...this.#grids(texels, columns, rows), coarse: this.#coarse() };
    gpu.draw(gpu.program(PREPARE), [width, height], { photo, ...inputs }, {
      size: pair([width, height]),
      grid: pair([columns, rows]),
      shadowGrid: pair([shadows.width, shadows.height]),
      ...Object.fromEntries(Object.keys(constants).filter((key) => typeof constants[key] === 'number')
        .map((key) => [key, one(constants[key])])),
      share: one(scene.shading_share),
      lowest: one(scene.floor),
      harmonics: many(1, scene.harmonics),
      ranges: many(3, ranges),
    }, [pixels, packed]);
    gpu.drop(...Object.values(inputs));
    return { width, height, photo, pixels, packed, ranges, bytes: width * height * 28 };
  }

  /**
   * What lies on the grid of the geometry, as textures.
   * @type {(texels: number, width: number, height: number) => Record<string, WebGLTexture>}
   */
  #grids(texels, width, height) {
    const { gpu, maps: { planes } } = this;
    const part = (/** @type {string} */ plane) => planes.get(`picture.${plane}`)?.data;
    const normals = need(planes, 'picture.normals').data;
    const q = need(planes, 'picture.q').data;
    const share = part('share') ?? 1;
    const layer = Float32Array.from(q, (v, i) => Math.log(v) + (typeof share === 'number' ? 0 : share[i]));
    const undecided = part('undecided');
    const middle = undecided ? middles(layer, width, height).map((v, i) => (undecided[i] ? v : 1e9)) : 1e9;
    return {
      planes: gpu.floats(interleaved(texels, [normals.subarray(0, texels), normals.subarray(texels, 2 * texels),
        normals.subarray(2 * texels), part('shading') ?? 0]), width, height),
      more: gpu.floats(interleaved(texels, [share, q, layer, middle]), width, height),
      colours: gpu.codes(opaque(texels, part('colours') ?? new Uint8Array(3 * texels)), width, height),
    };
  }

  #coarse() {
    const { gpu, shadows, maps: { planes } } = this;
    const channels = [Float32Array.from(shadows.q, Math.log), need(planes, 'grid.occlusion').data,
      need(planes, 'grid.broken').data, 0];
    return gpu.floats(interleaved(shadows.texels, channels), shadows.width, shadows.height);
  }

  /**
   * Draws into the canvas, which has the size of the picture divided by `step`.
   * @param {Rig} rig
   * @param {number} step
   * @param {boolean} alone  the light without the photo
   * @returns {number} the exposure in stops
   */
  render(rig, step, alone) {
    const even = meanOfLight(this.maps.scene.light_histogram, rig.delight);
    const { exposure: asked } = rig;
    const around = this.environments.of(rig);
    const exposure = asked === 'auto' ? this.samples.exposure(rig, this.shadows, even, around) : asked;
    this.#shade(rig, around?.left ?? []);
    if (rig.strength > 0 || step > 1 || alone) this.#draw(rig, even, 2 ** exposure, step, alone, around);
    else this.gpu.show(this.picture.photo, this.picture.width, this.picture.height);
    return exposure;
  }

  /**
   * Brings what shadows leave of each light to the GPU, a layer a light, and of an environment three layers more.
   * @param {Rig} rig
   * @param {Float32Array[]} around
   */
  #shade({ lights, shadow: strength }, around) {
    const { gpu, gpu: { gl }, shadows, shadows: { width, height, texels } } = this;
    if (!castsShadows(lights, strength) && !around.length) return;
    if (lights.length + around.length > this.layers) {
      if (this.shade) gpu.drop(this.shade);
      this.layers = lights.length + around.length;
      this.shade = gpu.layers(gl.RGBA32F, width, height, this.layers);
    }
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.shade);
    const data = new Float32Array(4 * texels);
    const planes = lights.map((light) => (
      light.shadow && strength > 0 && shadows.visibility(light).map((seen) => 1 - strength + strength * seen)));
    [...planes, ...around].forEach((left, layer) => {
      if (left) fourAround(left, width, height, data);
      else data.fill(1);
      gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, layer, width, height, 1, gl.RGBA, gl.FLOAT, data);
    });
  }

  /**
   * Brings masks to the GPU that are not there, and tells in which layer each is.
   * @type {(masks: (Mask | null)[]) => number[]}
   */
  #mask(masks) {
    const { gpu, gpu: { gl }, maps: { width, height } } = this;
    const wanted = [...new Set(masks.flatMap((mask) => mask?.codes ?? []))];
    if (wanted.length > this.masked.length) {
      if (this.masks) gpu.drop(this.masks);
      this.masks = gpu.layers(gl.R8, width, height, wanted.length);
      this.masked = wanted.map(() => undefined);
    }
    for (const codes of wanted.filter((each) => !this.masked.includes(each))) {
      const layer = this.masked.findIndex((held) => !held || !wanted.includes(held));
      this.masked[layer] = codes;
      gl.activeTexture(gl.TEXTURE0);
      gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.masks);
      gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, layer, width, height, 1, gl.RED, gl.UNSIGNED_BYTE, codes);
    }
    return masks.map((mask) => this.masked.indexOf(mask?.codes));
  }

  /**
   * An environment's textures, in place of the last one's, and its numbers.
   * @type {(around: Surroundings | null, factor: number) => [Record<string, WebGLTexture>,
   *   Record<string, {set: string, value: any}>]}
   */
  #surround(around, factor) {
    this.gpu.drop(...this.spheres);
    this.spheres = [];
    if (!around) return [{}, {}];
    const { matt, shiny, reflected, rotation, roughness } = around;
    const [first, second] = [matt, shiny ?? matt].map(({ rows, columns, texels }) => {
      const channels = [0, 1, 2].map((k) => texels.filter((_, i) => i % 3 === k));
      return this.gpu.floats(interleaved(rows * columns, channels), columns, rows);
    });
    this.spheres = [first, second];
    const smooth = 1 - roughness;
    return [{ matt: first, shiny: second }, {
      turned: many(3, [((rotation / 360) % 1 + 1) % 1, factor, smooth * (Math.sqrt(smooth) + roughness)]),
      ...(reflected.length ? { reflected: many(1, reflected) } : {}),
    }];
  }

  /**
   * @type {(rig: Rig, even: number, gain: number, step: number, alone: boolean,
   *   around: Surroundings | null) => void}
   */
  #draw(rig, even, gain, step, alone, around) {
    const { gpu, maps: { scene }, shadows } = this;
    const { photo, pixels, packed, ranges, width, height } = this.picture;
    const { lights } = rig;
    const masks = [...lights.map(({ mask }) => mask), rig.mask];
    const switches = switchesOf({
      lights: lights.length,
      lamps: lights.some(({ kind }) => kind !== 'directional'),
      shadows: castsShadows(lights, rig.shadow) || Boolean(around?.left),
      around: around !== null,
      glossy: rig.specular > 0,
      alpha: this.maps.alpha,
      alone,
      masks: masks.some(Boolean),
    });
    const factor = even * gain;
    const [spheres, surrounding] = this.#surround(around, factor);
    const layers = switches.MASKS ? this.#mask(masks) : [];
    gpu.draw(gpu.program(RELIGHT, switches), [Math.ceil(width / step), Math.ceil(height / step)], {
      photo, pixels, packed, ...(this.shade ? { shadows: this.shade } : {}), ...spheres,
      ...(this.masks ? { masks: this.masks } : {}),
    }, {
      size: pair([width, height]),
      grid: pair([shadows.width, shadows.height]),
      step: { set: '1i', value: step },
      scale: { set: '2fv', value: [shadows.width / width, shadows.height / height] },
      ambient: one(rig.ambient * factor),
      strength: one(rig.strength),
      delight: one(rig.delight),
      highlight: one(1 / even),
      focal: one(scene.focal),
      alpha2: one(rig.roughness ** 4),
      gloss: one(rig.specular),
      ranges: many(3, ranges),
      ...(lights.length ? lightNumbers(lights, factor) : {}),
      ...surrounding,
      ...(layers.length ? { masked: pair(layers.flatMap((layer, k) => [layer, Number(masks[k]?.invert)])) } : {}),
    });
  }
}

/**
 * What RELIGHT is built for.
 * @param {{lights: number, lamps?: boolean, shadows?: boolean, around?: boolean, glossy?: boolean, alpha?: boolean,
 *   alone?: boolean, masks?: boolean}} wanted
 */
const switchesOf = ({ lights, lamps, shadows, around, glossy, alpha, alone, masks }) => ({
  LIGHTS: lights,
  LAMPS: Number(lamps ?? false),
  SHADOWS: Number(shadows ?? false),
  AROUND: Number(around ?? false),
  GLOSSY: Number(glossy ?? false),
  ALPHA: Number(alpha ?? false),
  LIGHT_ALONE: Number(alone ?? false),
  MASKS: Number(masks ?? false),
});

/** @type {(lights: Light[], strength: number) => boolean} */
const castsShadows = (lights, strength) => strength > 0 && lights.some(({ shadow }) => shadow);

/**
 * Each value of a plane with the next, and the two below, into `out`.
 * @type {(plane: Float32Array, width: number, height: number, out: Float32Array) => void}
 */
function fourAround(plane, width, height, out) {
  for (let y = 0, i = 0; y < height; y += 1) {
    const below = y + 1 < height ? width : 0;
    for (let x = 0; x < width; x += 1, i += 1) {
      const right = x + 1 < width ? 1 : 0;
      out[4 * i] = plane[i];
      out[4 * i + 1] = plane[i + right];
      out[4 * i + 2] = plane[i + below];
      out[4 * i + 3] = plane[i + below + right];
    }
  }
}

/** @type {(lights: Light[], factor: number) => Record<string, {set: string, value: any}>} */
function lightNumbers(lights, factor) {
  const numbers = lights.map(lampNumbers);
  return {
    toward: many(3, lights.flatMap(({ kind, direction, position }) => (kind === 'directional' ? direction : position))),
    light: many(3, lights.flatMap(({ color, intensity }) => color.map((c) => c * intensity * factor))),
    axis: many(3, numbers.flatMap(({ axis }) => axis)),
    lamp: many(4, lights.flatMap(({ kind }, i) => (
      [['directional', 'point', 'spot'].indexOf(kind), numbers[i].near, numbers[i].outer, numbers[i].fade]))),
  };
}

/** @type {(histogram: Json, delight: number) => number} */
function meanOfLight({ low, high, counts }, delight) {
  const width = (high - low) / counts.length;
  let [sum, total] = [0, 0];
  counts.forEach((/** @type {number} */ count, /** @type {number} */ k) => {
    sum += count * Math.exp(delight * (low + (k + 0.5) * width));
    total += count;
  });
  return sum / total;
}

// ---- views

/** A canvas of the GPU's, which lights the photo where there are maps. */
class LiveEngine {
  /** @type {Lamp | null} */ lamp = null;

  /** @param {Gpu} gpu */
  constructor(gpu) {
    this.gpu = gpu;
    this.gl = gpu.gl;
  }

  /** Takes over the maps of a photo, in place of others. @type {(maps: Maps, photo: ImageBitmap | null) => this} */
  take(maps, photo) {
    this.gpu.drop(...this.gpu.textures);
    this.lamp = photo && new Lamp(this.gpu, maps, photo);
    return this;
  }

  get bytes() {
    return this.lamp?.bytes ?? 0;
  }

  /** A picture from elsewhere. @param {ImageBitmap} picture */
  show(picture) {
    const { gpu } = this;
    const photo = gpu.codes(picture, picture.width, picture.height);
    gpu.show(photo, picture.width, picture.height);
    gpu.drop(photo);
  }

  /** What is in the canvas, the first row first. @returns {ImageData} */
  pixels() {
    const { gl } = this;
    const { width, height } = gl.canvas;
    const upside = new Uint8Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, upside);
    const image = new ImageData(width, height);
    for (let y = 0; y < height; y += 1) {
      image.data.set(upside.subarray(4 * width * (height - 1 - y), 4 * width * (height - y)), 4 * width * y);
    }
    return image;
  }

  destroy() {
    this.gpu.destroy();
  }
}

/** The photo lit by the server, where nothing else can be done. */
class RemoteEngine {
  /** @param {CanvasRenderingContext2D} context */
  constructor(context) {
    this.context = context;
    this.bytes = 0;
  }

  /** @param {ImageBitmap} picture */
  show(picture) {
    this.context.drawImage(picture, 0, 0);
  }

  pixels() {
    return this.context.getImageData(0, 0, this.context.canvas.width, this.context.canvas.height);
  }

  destroy() {
    this.bytes = 0;
  }
}

/** @param {HTMLCanvasElement | OffscreenCanvas} canvas */
function webgl(canvas) {
  return /** @type {WebGL2RenderingContext | null} */ (canvas.getContext('webgl2', {
    alpha: true, premultipliedAlpha: false, antialias: false, depth: false, stencil: false, preserveDrawingBuffer: true,
  }));
}

/**
 * @typedef {import('./relight.d.ts').RelightView} RelightView
 * @implements {RelightView}
 */
class View extends EventTarget {
  /** @type {Server} */ #server;
  /** @type {Options} */ #options;
  /** @type {Maps} */ #maps;
  /** @type {LiveEngine | RemoteEngine} */ #engine;
  /** @type {Masks} */ #masks;
  /** @type {Promise<void>} */ #flying = Promise.resolve();
  #newest = 0;
  #last = 0; // that was drawn
  #destroyed = false;
  /** @type {Body | null} */ #body = null;
  /** @type {RenderOptions} */ #how = {};
  /** @type {[Body | null, RenderOptions]} what stands in the canvas */ #shown = [null, {}];
  /** @type {Promise<void> | null} */ #restored = null;
  /** @type {() => void} */ #wake = () => {};

  /**
   * @param {HTMLCanvasElement | OffscreenCanvas} canvas
   * @param {Server} server
   * @param {Options} options
   * @param {Maps} maps
   * @param {ImageBitmap | null} photo
   * @param {Gpu | null} gpu
   */
  constructor(canvas, server, options, maps, photo, gpu) {
    super();
    this.canvas = canvas;
    this.#server = server;
    this.#options = options;
    this.#maps = maps;
    this.#masks = new Masks(server);
    this.#fit();
    this.#engine = this.#start(photo, gpu);
    canvas.addEventListener('webglcontextlost', this.#onLost);
    canvas.addEventListener('webglcontextrestored', this.#onRestored);
  }

  #fit(step = 1) {
    const [width, height] = [Math.ceil(this.#maps.width / step), Math.ceil(this.#maps.height / step)];
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  /** @type {(photo: ImageBitmap | null, gpu: Gpu | null) => LiveEngine | RemoteEngine} */
  #start(photo, gpu) {
    if (gpu) return new LiveEngine(gpu).take(this.#maps, photo);
    const context = this.canvas.getContext('2d');
    if (!context) throw new RelightError('The canvas has another context already.', 'no_webgl');
    return new RemoteEngine(/** @type {CanvasRenderingContext2D} */ (context));
  }

  get #maxSide() {
    return this.#options.maxSide ?? MAX_SIDE;
  }

  get #lamp() {
    return this.#engine instanceof LiveEngine ? this.#engine.lamp : null;
  }

  get jobId() {
    return this.#server.jobId;
  }

  /** @returns {'webgl' | 'preview'} */
  get mode() {
    return this.#lamp ? 'webgl' : 'preview';
  }

  get width() {
    return this.#maps.width;
  }

  get height() {
    return this.#maps.height;
  }

  get alpha() {
    return this.#maps.alpha;
  }

  get bytes() {
    return { received: this.#maps.bytes, gpu: this.#engine.bytes };
  }

  get defaults() {
    return structuredClone(this.#maps.contract.defaults);
  }

  get presets() {
    return structuredClone(this.#maps.contract.presets);
  }

  get ownLight() {
    const { harmonics } = this.#maps.scene;
    const direction = harmonics?.slice(1, 4);
    return direction?.some(Boolean) ? unit(direction) : null;
  }

  /** @type {(name: string, normal: Vector, rotation?: number) => number[] | null} */
  irradiance(name, normal, rotation = 0) {
    return this.#lamp?.environments.irradiance(name, normal, rotation) ?? null;
  }

  /** @param {Body} body */
  check(body) {
    checkBody(body, this.#maps.contract);
  }

  /**
   * @param {Body} body
   * @param {RenderOptions} [how]
   * @returns {Promise<Drawn | null>}
   */
  async render(body, how = {}) {
    if (this.#destroyed) throw new RelightError('The view was destroyed.', 'destroyed');
    this.check(body);
    this.#body = structuredClone(body);
    this.#how = how;
    this.#newest += 1;
    const mine = this.#newest;
    if (this.#restored) {
      await this.#restored;
      if (mine !== this.#newest) return null;
    }
    try {
      return await this.#lit(mine);
    } catch (error) {
      if (mine === this.#newest) [this.#body, this.#how] = this.#shown;
      throw error;
    }
  }

  /**
   * Draws the last body.
   * @param {number} mine  which of the pictures asked for it was
   * @returns {Promise<Drawn | null>}
   */
  async #lit(mine) {
    const [body, how] = [/** @type {Body} */ (this.#body), this.#how];
    if (!this.#isLitHere(body)) return this.#inTurn(mine, () => this.#litByServer(mine, body, how));
    if (!this.#lacking(body).length) return this.#litHere(mine, body, how);
    return this.#inTurn(mine, async () => {
      await this.#fetchMasks(() => body);
      return this.#isLate(mine) ? null : this.#litHere(mine, body, how);
    });
  }

  /**
   * One at a time, so that pictures come in order; of those that wait, the newest goes.
   * @type {(mine: number, make: () => Promise<Drawn | null>) => Promise<Drawn | null>}
   */
  async #inTurn(mine, make) {
    const before = this.#flying;
    let landed = () => {};
    this.#flying = new Promise((resolve) => {
      landed = () => resolve(undefined);
    });
    try {
      await before;
      return mine === this.#newest ? await make() : null;
    } finally {
      landed();
    }
  }

  /** Is there a newer picture already, or nobody who wants one? @param {number} mine */
  #isLate(mine) {
    return this.#destroyed || mine < this.#last;
  }

  /** @param {Body | null} body */
  #isLitHere(body) {
    return this.#lamp !== null && body !== null && isLitHere(body);
  }

  /** @type {(mine: number, body: Body, how: RenderOptions) => Drawn} */
  #litHere(mine, body, how) {
    const { step = 1, show = 'picture' } = how;
    const lamp = /** @type {Lamp} */ (this.#lamp);
    const rig = rigOf(body, this.#maps);
    for (const mask of masksOf(rig)) mask.codes = this.#masks.of(mask, this.#maxSide, this.#maps);
    this.#fit(step);
    return this.#drawn(mine, body, how, lamp.render(rig, step, show === 'light'));
  }

  /** @type {(mine: number, body: Body, how: RenderOptions) => Promise<Drawn | null>} */
  async #litByServer(mine, body, how) {
    const picture = await this.#server.preview({ ...body, max_side: this.#maxSide, quality: 90 });
    const late = this.#isLate(mine);
    if (!late) {
      this.#fit();
      this.#engine.show(picture);
    }
    picture.close();
    return late ? null : this.#drawn(mine, body, how, null);
  }

  /** The masks that a picture waits for. @type {(body: Body | null, maps?: Maps, maxSide?: MaxSide) => Mask[]} */
  #lacking(body, maps = this.#maps, maxSide = this.#maxSide) {
    if (!body || !this.#isLitHere(body)) return [];
    return masksOf(rigOf(body, maps)).filter((mask) => !this.#masks.of(mask, maxSide, maps));
  }

  /** @type {(body: () => Body | null, maps?: Maps, maxSide?: MaxSide) => Promise<void>} */
  async #fetchMasks(body, maps, maxSide) {
    for (let lacking = this.#lacking(body(), maps, maxSide); lacking.length && !this.#destroyed;) {
      const found = await Promise.allSettled(lacking.map((mask) => this.#masks.fetch(mask, maxSide ?? this.#maxSide)));
      for (const each of found) if (each.status === 'rejected') throw each.reason;
      await this.#restored;
      lacking = this.#lacking(body(), maps, maxSide);
    }
  }

  /** @type {(mine: number, body: Body, how: RenderOptions, exposure: number | null) => Drawn} */
  #drawn(mine, body, how, exposure) {
    this.#last = mine;
    this.#shown = [body, how];
    const { width, height } = this.canvas;
    /** @type {Drawn} */
    const drawn = { exposure, mode: exposure === null ? 'preview' : 'webgl', width, height };
    this.dispatchEvent(new CustomEvent('render', { detail: drawn }));
    return drawn;
  }

  /** @type {(name: string, source: MaskSource | null) => void} */
  setMask(name, source) {
    this.#masks.set(name, this.#lamp && source);
  }

  /** @param {MaxSide} maxSide */
  async resize(maxSide) {
    const options = { ...this.#options, maxSide };
    const [maps, photo] = await fetchMaps(this.#server, options);
    try {
      await this.#fetchMasks(() => this.#body, maps, maxSide);
      if (this.#destroyed) return;
      this.#options = options;
      this.#maps = maps;
      this.#fit();
      if (this.#engine instanceof LiveEngine) this.#engine.take(maps, photo);
    } finally {
      photo?.close();
    }
    if (this.#body) await this.render(this.#body, this.#how);
  }

  /** @returns {ImageData} */
  pixels() {
    return this.#engine.pixels();
  }

  #onLost = (/** @type {Event} */ event) => {
    event.preventDefault(); // else it never comes back
    this.#restored ??= new Promise((resolve) => {
      this.#wake = resolve;
    });
    this.dispatchEvent(new Event('lost'));
  };

  #onRestored = async () => {
    try {
      const photo = await bitmapOf(this.#maps);
      if (this.#destroyed) return;
      const gl = webgl(this.canvas);
      this.#engine = this.#start(photo, gl && new Gpu(gl));
      photo?.close();
      this.#restored = null;
      this.#wake();
      if (this.#body) await this.#lit(this.#newest);
      this.dispatchEvent(new Event('restored'));
    } catch (error) {
      this.dispatchEvent(new CustomEvent('error', { detail: error }));
    }
  };

  destroy() {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#newest += 1;
    this.canvas.removeEventListener('webglcontextlost', this.#onLost);
    this.canvas.removeEventListener('webglcontextrestored', this.#onRestored);
    this.#engine.destroy();
    this.#wake();
  }
}

/** @param {Maps} maps  @returns {Promise<ImageBitmap | null>} null where the photo can only be lit by the server */
async function bitmapOf(maps) {
  if (!maps.planes.size) return null;
  return createImageBitmap(maps.webp, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
}

/**
 * @param {Server} server
 * @param {Options} options
 * @returns {Promise<[Maps, ImageBitmap | null]>}
 */
async function fetchMaps(server, { maxSide = MAX_SIDE, mode = 'auto' }) {
  const maps = await readMaps(await server.maps(maxSide));
  if (mode === 'webgl' && !maps.planes.size) {
    throw new RelightError('The model of this job does not say what its surfaces see.', 'no_webgl');
  }
  return [maps, mode === 'preview' ? null : await bitmapOf(maps)];
}

/** @type {typeof import('./relight.d.ts').relight} */
export async function relight(canvas, options) {
  const gl = options.mode === 'preview' ? null : webgl(canvas);
  if (options.mode === 'webgl' && !gl) throw new RelightError('There is no WebGL2 here.', 'no_webgl');
  const gpu = gl && new Gpu(gl);
  gpu?.warm();
  /** @type {ImageBitmap | null} */
  let photo = null;
  try {
    const server = new Server(options);
    const [maps, bitmap] = await fetchMaps(server, options);
    photo = bitmap;
    return new View(canvas, server, options, maps, photo, gpu);
  } catch (error) {
    gpu?.destroy();
    throw error;
  } finally {
    photo?.close();
  }
}
