// A ball lit by the rig: the direction of light at a glance.

import { pen } from './dom.js';
import { lightColour, toSrgb } from './colour.js';
import { towards } from './rig.js';

const SRGB = Uint8ClampedArray.from({ length: 1025 }, (_, i) => Math.round(255 * toSrgb(i / 1024)));

/**
 * @typedef {import('./rig.js').Vector} Vector
 * @typedef {import('./rig.js').Light} Light
 * @typedef {{direction: Vector, half: Vector, colour: number[], gloss: number}} Lamp  a light, prepared for drawing
 */

/** @type {(light: Light) => Lamp} */
function lampOf(light) {
  const direction = towards(light);
  const half = Math.hypot(direction[0], direction[1], direction[2] + 1) || 1;
  const power = Math.min(3, light.intensity ?? 1);
  return {
    direction,
    half: [direction[0] / half, direction[1] / half, (direction[2] + 1) / half],
    colour: lightColour(light).map((v) => Math.min(2.5, v) * power),
    gloss: 0.3 * Math.min(1, power),
  };
}

/**
 * Draws the ball into a square canvas whose CSS size is `size` pixels.
 * @param {HTMLCanvasElement} canvas
 * @param {number} size
 * @param {Light[]} lights
 * @param {number} ambient  0 and up
 * @param {number[]} albedo
 */
export function drawBall(canvas, size, lights, ambient = 0.12, albedo = [0.62, 0.6, 0.57]) {
  const side = Math.round(size * Math.min(2, devicePixelRatio || 1));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = pen(canvas);
  const image = context.createImageData(side, side);
  const data = image.data;
  const lamps = lights.filter((light) => light.on !== false).map(lampOf);
  const radius = side / 2 - 1;
  for (let row = 0, at = 0; row < side; row += 1) {
    const y = (side / 2 - row - 0.5) / radius;
    for (let column = 0; column < side; column += 1, at += 4) {
      const x = (column + 0.5 - side / 2) / radius;
      const d = x * x + y * y;
      const edge = (1 - Math.sqrt(d)) * radius + 0.5; // one pixel of antialiasing
      if (edge <= 0) continue;
      const z = Math.sqrt(Math.max(0, 1 - d));
      let r = ambient * (0.75 + 0.25 * y);
      let g = r;
      let b = r;
      let shine = 0;
      for (const { direction, half, colour, gloss } of lamps) {
        const facing = x * direction[0] + y * direction[1] + z * direction[2];
        if (facing <= -0.12) continue;
        const lit = ((facing + 0.12) / 1.12) ** 1.35; // the terminator of a lamp that has a size
        shine += gloss * Math.max(0, x * half[0] + y * half[1] + z * half[2]) ** 60;
        r += lit * colour[0];
        g += lit * colour[1];
        b += lit * colour[2];
      }
      data[at] = tone(r * albedo[0] + shine);
      data[at + 1] = tone(g * albedo[1] + shine);
      data[at + 2] = tone(b * albedo[2] + shine);
      data[at + 3] = edge >= 1 ? 255 : 255 * edge;
    }
  }
  context.putImageData(image, 0, 0);
}

/** @param {number} v */
const tone = (v) => SRGB[Math.round(1024 * (1 - Math.exp(-1.1 * v)))];

/**
 * The direction a place on the ball faces; beyond its rim the light goes behind. `x`, `y` in radii, y up.
 * @type {(x: number, y: number) => Vector}
 */
export function directionAt(x, y) {
  const d = Math.hypot(x, y);
  if (d <= 1) return [x, y, Math.sqrt(1 - d * d)];
  const behind = Math.min(1, d - 1);
  const flat = Math.sqrt(1 - behind * behind);
  return [(x / d) * flat, (y / d) * flat, -behind];
}
