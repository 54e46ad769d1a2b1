// Before there is a photo: a ball in the light of the pointer.

import { $, calm, canvasAt, perFrame } from './dom.js';
import { drawBall } from './ball.js';

export function hero() {
  const canvas = canvasAt('#hero-ball');
  const sun = $('#hero-sun');
  /** @type {import('./rig.js').Vector} */
  let place = [-0.75, 0.7, 0.75];
  /** @type {() => import('./rig.js').Light[]} */
  const lights = () => [
    { type: 'directional', direction: place, temperature: 3600, intensity: 1.35 },
    { type: 'directional', direction: [0.6, -0.6, 0.2], temperature: 14000, intensity: 0.05 },
  ];
  const shown = () => document.body.dataset.state === 'empty';
  const draw = perFrame(() => {
    if (!shown() || !canvas.clientWidth) return;
    drawBall(canvas, canvas.clientWidth, lights(), 0.02, [0.7, 0.62, 0.52]);
    const radius = canvas.clientWidth / 2;
    sun.style.transform = `translate(${place[0] * radius}px, ${-place[1] * radius}px)`;
  });
  let touched = false;
  addEventListener('pointermove', (event) => {
    if (!shown()) return;
    touched = true;
    const box = canvas.getBoundingClientRect();
    const radius = box.width / 2;
    const x = (event.clientX - box.left - radius) / radius;
    const y = (box.top + radius - event.clientY) / radius;
    const far = Math.max(1, Math.hypot(x, y) / 1.22);
    place = [x / far, y / far, 0.75];
    draw();
  }, { passive: true });
  new ResizeObserver(draw).observe(canvas);
  /** @param {number} time */
  const drift = (time) => {
    if (touched || time > 40000 || !shown()) return;
    const angle = 2.3 - time / 4200;
    place = [Math.cos(angle) * 1.05, Math.sin(angle) * 1.05, 0.75];
    draw();
    requestAnimationFrame(drift);
  };
  if (!calm()) requestAnimationFrame(drift);
  return draw;
}
