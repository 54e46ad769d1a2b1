// A few lines over the DOM. Properties only: no inline style and no markup from strings, so a strict CSP holds.

/** @typedef {(Node | string | null | undefined)[]} Children */

/**
 * An element with properties, attributes and children:
 * h('button', {className: 'x', onclick: f, 'aria-label': 'y'}, 'text', child)
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Partial<HTMLElementTagNameMap[K]> & Record<string, unknown>} [props]
 * @param {(Children[number] | Children)[]} children
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props ?? {}, children);
}

/**
 * The same for SVG, where every property is an attribute.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number>} props
 * @param {Children} children
 */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);
}

/**
 * @template {Element} T
 * @param {T} node
 * @param {Record<string, unknown>} props
 * @param {(Children[number] | Children)[]} children
 */
function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith('on') || (name in node && !(node instanceof SVGElement))) Reflect.set(node, name, value);
    else node.setAttribute(name, String(value));
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

/**
 * An icon from the sprite in index.html.
 * @param {string} name
 */
export function icon(name) {
  return svg('svg', { class: 'icon', 'aria-hidden': 'true' }, svg('use', { href: `#i-${name}` }));
}

/**
 * The element of this kind that a selector names. Everything asked for here is in index.html.
 * @template {Element} T
 * @param {string} selector
 * @param {new () => T} kind
 */
export function find(selector, kind) {
  const node = document.querySelector(selector);
  if (!(node instanceof kind)) throw new Error(`The page has no ${kind.name} ${selector}.`);
  return node;
}

/** @param {string} selector */
export const $ = (selector) => find(selector, HTMLElement);
/** @param {string} selector */
export const buttonAt = (selector) => find(selector, HTMLButtonElement);
/** @param {string} selector */
export const fieldAt = (selector) => find(selector, HTMLInputElement);
/** @param {string} selector */
export const dialogAt = (selector) => find(selector, HTMLDialogElement);
/** @param {string} selector */
export const canvasAt = (selector) => find(selector, HTMLCanvasElement);

/**
 * Every element of this kind that a selector names.
 * @template {Element} T
 * @param {string} selector
 * @param {new () => T} kind
 * @returns {T[]}
 */
export function findAll(selector, kind) {
  const nodes = [...document.querySelectorAll(selector)];
  return nodes.flatMap((node) => (node instanceof kind ? [node] : []));
}

/**
 * The nearest element around an event's target that the selector names, the target included.
 * @param {Event} event
 * @param {string} selector
 */
export function around(event, selector) {
  const node = event.target instanceof Element ? event.target.closest(selector) : null;
  return node instanceof HTMLElement ? node : null;
}

/**
 * The context of a canvas to draw on.
 * @param {HTMLCanvasElement} canvas
 */
export function pen(canvas) {
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser cannot draw on a canvas.');
  return context;
}

/** @type {(value: number, low: number, high: number) => number} */
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

/**
 * At most one call per animation frame.
 * @param {() => void} draw
 */
export function perFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}
