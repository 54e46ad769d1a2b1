// Looks to begin from. `aspect` is the picture's height / width: y runs ±aspect.

/**
 * @typedef {import('./rig.js').Vector} Vector
 * @typedef {import('./rig.js').Shine} Shine
 * @typedef {import('./rig.js').Light} Light
 * @typedef {import('./rig.js').Rig} Rig
 */

/** @type {(direction: Vector, more: Shine) => Light} */
const directional = (direction, more) => ({ type: 'directional', direction, ...more });
/** @type {(position: Vector, more: Shine) => Light} */
const point = (position, more) => ({ type: 'point', position, ...more });

/** @type {{name: string, make: (aspect: number) => Rig & {ambient: number}}[]} */
export const PRESETS = [
  {
    name: 'Window left',
    make: () => ({
      lights: [directional([-1, 0.35, 0.55], { angle: 20, temperature: 6000, intensity: 1.25 })],
      ambient: 0.22,
    }),
  },
  {
    name: 'Rim',
    make: () => ({
      lights: [
        directional([-1, 0.45, -0.2], { angle: 6, temperature: 8000, intensity: 2.6 }),
        directional([1, 0.45, -0.2], { angle: 6, temperature: 4200, intensity: 2.6 }),
      ],
      ambient: 0.16, specular: { strength: 0.35, roughness: 0.4 },
    }),
  },
  {
    name: 'Golden hour',
    make: () => ({
      lights: [
        directional([1, 0.26, 0.4], { angle: 2, temperature: 3000, intensity: 1.7 }),
        directional([-0.5, 1, 0.6], { angle: 90, temperature: 12000, intensity: 0.25, shadow: false }),
      ],
      ambient: 0.22,
    }),
  },
  {
    name: 'Softbox',
    make: (aspect) => ({
      lights: [point([0.6, 0.75 * aspect, 1], { radius: 0.5, range: 1.6, temperature: 5600, intensity: 1.5 })],
      ambient: 0.3,
    }),
  },
  {
    name: 'From below',
    make: (aspect) => ({
      lights: [point([0, -0.9 * aspect, 0.5], { radius: 0.08, range: 0.9, temperature: 2300, intensity: 2.4 })],
      ambient: 0.1,
    }),
  },
  {
    name: 'Ring',
    make: () => ({
      lights: [point([0, 0, 0.9], { radius: 0.6, range: 0.8, temperature: 6500, intensity: 2.6 })],
      ambient: 0.12, specular: { strength: 0.15, roughness: 0.4 },
    }),
  },
];
