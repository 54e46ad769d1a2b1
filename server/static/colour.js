// Colours for swatches, handles and the lit balls. What counts in the picture is computed by the server.

/** @param {number} v */
export const toLinear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
/** @param {number} v */
export const toSrgb = (v) => (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);

/** @param {number[]} rgb */
const luminance = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;

/**
 * Chromaticity of a black body: Kim et al. 2002 (US patent 7024034, as in Wikipedia's "Planckian locus").
 * @param {number} kelvin
 */
function planckian(kelvin) {
  const t = Math.min(25000, Math.max(1667, kelvin));
  const x = t <= 4000
    ? -0.2661239e9 / t ** 3 - 0.2343589e6 / t ** 2 + 0.8776956e3 / t + 0.17991
    : -3.0258469e9 / t ** 3 + 2.1070379e6 / t ** 2 + 0.2226347e3 / t + 0.24039;
  const y = t <= 2222 ? -1.1063814 * x ** 3 - 1.3481102 * x ** 2 + 2.18555832 * x - 0.20219683
    : t <= 4000 ? -0.9549476 * x ** 3 - 1.37418593 * x ** 2 + 2.09137015 * x - 0.16748867
      : 3.081758 * x ** 3 - 5.8733867 * x ** 2 + 3.75112997 * x - 0.37001483;
  const X = x / y;
  const Z = (1 - x - y) / y;
  return [
    3.2404542 * X - 1.5371385 - 0.4985314 * Z,
    -0.969266 * X + 1.8760108 + 0.041556 * Z,
    0.0556434 * X - 0.2040259 + 1.0572252 * Z,
  ].map((v) => Math.max(0, v));
}

const NEUTRAL = planckian(6500);

/** @typedef {{color?: string, temperature?: number}} Tint  what of a light gives it its colour */

/**
 * Linear RGB of luminance 1 for a light's colour or temperature (6500 K is neutral, as on the server).
 * @param {Tint} light
 */
export function lightColour(light) {
  let rgb = [1, 1, 1];
  const { color } = light;
  if (color) {
    rgb = [1, 3, 5].map((i) => toLinear(parseInt(color.slice(i, i + 2), 16) / 255));
  } else if (light.temperature) {
    rgb = planckian(light.temperature).map((v, i) => v / NEUTRAL[i]);
  }
  const y = luminance(rgb);
  return y > 0 ? rgb.map((v) => v / y) : [1, 1, 1];
}

/**
 * The same as a CSS colour, as bright as the screen can show it.
 * @param {Tint} light
 */
export function swatch(light) {
  const rgb = lightColour(light);
  const top = Math.max(...rgb);
  return `rgb(${rgb.map((v) => Math.round(255 * toSrgb(v / top))).join(' ')})`;
}
