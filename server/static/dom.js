// A few lines over the DOM. Properties only: no inline style and no markup from strings, so a strict CSP holds.

/** h('button', {className: 'x', onclick: f, 'aria-label': 'y'}, 'text', child) */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name in node && !(node instanceof SVGElement)) node[name] = value;
    else if (name.startsWith('on')) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An icon from the sprite in index.html. */
export function icon(name) {
  return svg('svg', { class: 'icon', 'aria-hidden': 'true' }, svg('use', { href: `#i-${name}` }));
}

export const $ = (selector, root = document) => root.querySelector(selector);

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

/** At most one call per animation frame. */
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
