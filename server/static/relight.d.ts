/**
 * Relight Server's light in the browser. `await relight(canvas, {base, jobId})`, then `view.render(body)` as often as
 * you like: every picture is made by the GPU, and no request is sent.
 */

/** The longer side of a picture in pixels, at most; never enlarged. */
export type MaxSide = 512 | 1024 | 2048;

export interface RelightOptions {
  /** The job, from `POST /upload`. */
  jobId: string;
  /** Where the server is, such as `https://relight.example`; by default the page's own origin. */
  base?: string;
  /** One of the server's keys, where it wants one. Whoever can read the page can read it. */
  key?: string;
  /** Default 1024. */
  maxSide?: MaxSide;
  /**
   * `auto` (the default): WebGL2, or where there is none, or the model does not say what the photo's surfaces see, the
   * server's `/preview`. `webgl`: that or an error. `preview`: always the server.
   */
  mode?: 'auto' | 'webgl' | 'preview';
  /** Ends requests that are under way. */
  signal?: AbortSignal;
}

/** x from left to right, y up, z toward the viewer. */
export type Vector = [number, number, number];

/**
 * Where in the photo: a mask of the job, or one that is built in (`subject`, `sky`). `invert`: everywhere else.
 * `feather`: how far it fades to each side of its edge, in picture widths, 0 to 0.1.
 */
export type Mask = string | { name: string; invert?: boolean; feather?: number };

/** A picture whose red is a mask: 255 wholly, 0 not at all. */
export type MaskSource = HTMLCanvasElement | OffscreenCanvas | ImageBitmap | ImageData;

interface Shine {
  /** `#rrggbb`; not together with `temperature`. */
  color?: string | null;
  /** Kelvin; 6500 is neutral. */
  temperature?: number | null;
  intensity?: number;
  shadow?: boolean;
  /** Where this light reaches; everywhere without one. */
  mask?: Mask | null;
}

export interface DirectionalLight extends Shine {
  type: 'directional';
  /** From the scene toward the light. */
  direction: Vector;
  /** Angular diameter in degrees. */
  angle?: number;
}

export interface PointLight extends Shine {
  type: 'point';
  position: Vector;
  radius?: number;
  range?: number;
}

export interface SpotLight extends Shine {
  type: 'spot';
  position: Vector;
  target: Vector;
  radius?: number;
  range?: number;
  cone?: number;
  blend?: number;
}

export type Light = DirectionalLight | PointLight | SpotLight;

/** Light from all around. A built-in one is lit here, the others by the server. */
export type Environment = ({ type: 'preset'; name: string } | { type: 'upload' } | { type: 'photo'; job_id: string }) & {
  intensity?: number;
  /** Degrees about the vertical, counter-clockwise seen from above. */
  rotation?: number;
};

/**
 * The body of `POST /relight` without `job_id`: the same names, bounds and defaults. One of `x, y, z`, `lights` and
 * `preset` gives the light, or an environment, or both.
 */
export interface Body {
  x?: number | null;
  y?: number | null;
  z?: number | null;
  lights?: Light[] | null;
  preset?: string | null;
  environment?: Environment | null;
  ambient?: number;
  strength?: number;
  delight?: number;
  shadow?: { strength?: number };
  specular?: { strength?: number; roughness?: number };
  exposure?: number | 'auto' | null;
  /** Where the photo is relit at all; everywhere without one. */
  mask?: Mask | null;
}

export interface RenderOptions {
  /** Draws every so manyth pixel, for light that follows a hand where there is little power. Default 1. */
  step?: 1 | 2 | 3 | 4;
  /** `light`: the new light with its shadows and masks on a gray matt surface, no photo. With WebGL2 only. */
  show?: 'picture' | 'light';
}

/** A picture that stands in the canvas. */
export interface Drawn {
  /** In stops, also where "auto" chose it; null where the server drew. */
  exposure: number | null;
  mode: 'webgl' | 'preview';
  width: number;
  height: number;
}

/** What went wrong, in a sentence for people. `code` and `status` are those of the API, `status` 0 without an answer. */
export class RelightError extends Error {
  constructor(message: string, code: string, status?: number);
  code: string;
  status: number;
}

/**
 * A photo in a canvas. Events: `render` (`detail`: a `Drawn`), `lost` and `restored` (the GPU's context; the picture
 * comes back by itself), `error` (`detail`: the error, when it does not).
 */
export interface RelightView extends EventTarget {
  readonly canvas: HTMLCanvasElement | OffscreenCanvas;
  readonly jobId: string;
  readonly mode: 'webgl' | 'preview';
  /** Of the picture, and of the canvas, in pixels. Give the canvas its size on the page with CSS. */
  readonly width: number;
  readonly height: number;
  /** Is the photo transparent somewhere? */
  readonly alpha: boolean;
  /** Bytes of the maps that came over the wire, and all that lie on the GPU with the canvas. */
  readonly bytes: { received: number; gpu: number };
  /** Where most of the light came from that the photo was taken in, as a unit vector; null where it is not known. */
  readonly ownLight: Vector | null;
  /** As `GET /models` tells them. */
  readonly defaults: Record<string, unknown>;
  readonly presets: Record<string, Body>;
  /** Linear red, green and blue that a matt surface gets of a built-in environment; null where it is not known. */
  irradiance(name: string, normal: Vector, rotation?: number): number[] | null;
  /** Throws a `RelightError` that says what the server would refuse. */
  check(body: Body): void;
  /**
   * Lights the photo. With WebGL2 the picture is drawn before this returns. Where the server draws, while the GPU's
   * context is lost, or when a mask has to be fetched first, it is drawn later; null if a newer picture was asked for
   * before it came. Rejects with a `RelightError`, and what was in the canvas stays.
   */
  render(body: Body, how?: RenderOptions): Promise<Drawn | null>;
  /**
   * Pictures that are lit here take this, on black, as the mask of that name, as it is now and whatever its size, without
   * a request: for a mask that is being painted. It is feathered as on an even ground, edges of the photo or not. `null`
   * forgets it, and what was fetched of that name: for a mask that was stored, or changed on the server, which otherwise
   * is fetched once. Nothing is drawn anew.
   */
  setMask(name: string, source: MaskSource | null): void;
  /** Fetches the maps of another size and draws the last picture anew. */
  resize(maxSide: MaxSide): Promise<void>;
  /** What stands in the canvas: 8-bit sRGB, alpha not multiplied in. */
  pixels(): ImageData;
  /** Gives everything back to the GPU. The canvas keeps its last picture, and can be given to `relight` again. */
  destroy(): void;
}

/**
 * Gets the maps of a job, waiting for its analysis, and readies a canvas, which has to be fresh or to have been used
 * by `relight` before. Rejects with a `RelightError`.
 */
export function relight(canvas: HTMLCanvasElement | OffscreenCanvas, options: RelightOptions): Promise<RelightView>;
