// The server's HTTP interface, and nothing else. Addresses are relative to the page, so a path prefix works.

/**
 * @typedef {import('./rig.js').Body} Body
 * @typedef {'waiting' | 'reading' | 'estimating' | 'fitting' | 'storing' | 'ready' | 'failed'} Stage
 * @typedef {object} JobState  GET /job/{id}, and each event of its stream: what the page reads of it
 * @property {string} job_id
 * @property {'queued' | 'analysing' | 'ready' | 'failed'} state
 * @property {Stage} stage
 * @property {number} progress  0..1
 * @property {number} width
 * @property {number} height
 * @property {Partial<ProblemFields> | null} [error]
 * @property {string[]} [masks]  names of those it was given
 * @property {string[]} [files]
 * @property {{state: 'rendering' | 'ready' | 'failed', progress: number, error: Partial<ProblemFields> | null} | null}
 *   [motion]
 * @typedef {{keyframes: Body[], frames: number, fps: number, loop: boolean, format: string}} Order  of /animate
 * @typedef {{job_id: string, width: number, height: number}} UploadAnswer
 * @typedef {{title: string} & Record<string, unknown>} Preset  what a body of /relight says that names it
 * @typedef {{name: string, title: string}} Named
 * @typedef {{roles_filled?: string[]}} Model
 * @typedef {{defaults: Record<string, unknown>, presets: Preset[], environments: Named[], models: Model[],
 *   limits: {motions?: string[]}}} Models  GET /models
 * @typedef {{up: boolean, keys?: boolean} & Partial<ProblemFields>} Ready  GET /ready; `up`: it answered at all
 * @typedef {Body & {max_side?: number, quality?: number, stream?: string}} PreviewBody  less the job
 * @typedef {{blob: Blob, ms: number, stages: [string, number][]}} Preview  `stages`: names with milliseconds
 * @typedef {{status: number, code: string, title: string, detail: string, retryAfter: number}} ProblemFields
 * @typedef {(share: number) => void} OnProgress  0..1
 */

const base = new URL('.', document.baseURI);
/** @param {string} path */
export const address = (path) => new URL(path, base);

const KEY = 'relight.key';
/** @type {<T>(use: (storage: Storage) => T) => T | null} */
const shelf = (use) => {
  try {
    return use(sessionStorage);
  } catch {
    return null; // storage can be switched off
  }
};
export const key = {
  get: () => shelf((s) => s.getItem(KEY)) ?? '',
  /** @param {string} value */
  set: (value) => shelf((s) => (value ? s.setItem(KEY, value) : s.removeItem(KEY))),
};
/**
 * As UTF-8: a header holds bytes, and the browser would send other characters as Latin-1 or not at all.
 * @param {string} text
 */
const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
/** @returns {Record<string, string>} */
const authorization = () => (key.get() ? { Authorization: `Bearer ${bytes(key.get())}` } : {});

/** What went wrong, in the server's words (RFC 9457). `code` is the server's, or `unreachable`. */
export class Problem extends Error {
  /** @param {Partial<ProblemFields>} fields */
  constructor({ status = 0, code = 'internal', title = '', detail = '', retryAfter = 0 }) {
    super(detail || title);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
    this.title = title;
    this.detail = detail;
    this.retryAfter = retryAfter;
  }
}

/**
 * Whatever was thrown, as a problem that can be shown.
 * @param {unknown} error
 */
export function asProblem(error) {
  if (error instanceof Problem) return error;
  const detail = error instanceof Error ? error.message || error.name : String(error);
  return new Problem({ title: 'Something went wrong', detail });
}

/**
 * Was this thrown because the page itself gave up waiting?
 * @param {unknown} error
 */
export const isAbort = (error) => error instanceof Error && error.name === 'AbortError';

export const unreachable = () => new Problem({
  code: 'unreachable',
  title: 'No answer',
  detail: 'The server is not responding. Check that it is running and that you are online.',
});

/** @type {(status: number, text: string, retryAfter: string | null) => Problem} */
function problemOf(status, text, retryAfter) {
  /** @type {Record<string, unknown>} */
  let body = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch { /* a proxy's own page */ }
  const title = typeof body.title === 'string' ? body.title : 'Request failed';
  const detail = typeof body.detail === 'string' ? body.detail : `The server answered with status ${status}.`;
  const code = typeof body.code === 'string' ? body.code : 'internal';
  return new Problem({ status, title, detail, code, retryAfter: Number(retryAfter) || 0 });
}

/**
 * @param {string} path
 * @param {RequestInit & {json?: object}} [options]  `json`: the body of a POST
 */
export async function request(path, { json, ...options } = {}) {
  const headers = { ...authorization(), ...(json ? { 'Content-Type': 'application/json' } : {}) };
  const body = json ? JSON.stringify(json) : undefined;
  const method = json ? 'POST' : 'GET';
  let response;
  try {
    response = await fetch(address(path), { method, headers, body, cache: 'no-cache', ...options });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw unreachable();
  }
  if (response.ok) return response;
  throw problemOf(response.status, await response.text().catch(() => ''), response.headers.get('Retry-After'));
}

/** @type {(path: string, options?: RequestInit & {json?: object}) => Promise<unknown>} */
const getJson = async (path, options) => (await request(path, options)).json();

export const models = async () => /** @type {Models} */ (await getJson('models'));
/** @type {(id: string, options?: RequestInit) => Promise<JobState>} */
export const job = async (id, options) => /** @type {JobState} */ (await getJson(`job/${id}`, options));
/** @param {string} id */
export const erase = (id) => getJson(`job/${id}`, { method: 'DELETE' });
/** @type {(id: string, name: string, query?: string) => Promise<ImageBitmap>} */
export async function mask(id, name, query = '') {
  const response = await request(`job/${id}/mask/${name}${query}`);
  return createImageBitmap(await response.blob(), { colorSpaceConversion: 'none' });
}
/** @type {(id: string, name: string, png: Blob) => Promise<unknown>} */
export const putMask = (id, name, png) => getJson(`job/${id}/mask/${name}`, { method: 'PUT', body: png });
/** @type {(id: string, name: string) => Promise<unknown>} */
export const eraseMask = (id, name) => request(`job/${id}/mask/${name}`, { method: 'DELETE' });
/** @type {(id: string, order: Order, options?: RequestInit) => Promise<{motion_path: string}>} */
export const animate = async (id, order, options) => /** @type {{motion_path: string}} */ (
  await getJson('animate', { json: { job_id: id, ...order }, ...options }));
/** @param {string} id */
export const stopMotion = (id) => getJson(`job/${id}/motion`, { method: 'DELETE' });
/** @type {(id: string, body: Body, options?: RequestInit) => Promise<unknown>} */
export const relight = (id, body, options) => getJson('relight', { json: { job_id: id, ...body }, ...options });

/**
 * State of the server; it also answers, with status 503, while it warms up.
 * @returns {Promise<Ready>}
 */
export async function ready() {
  try {
    const response = await fetch(address('ready'), { cache: 'no-store' });
    return { up: true, ...(await response.json().catch(() => ({}))) };
  } catch {
    return { up: false };
  }
}

/**
 * Sends a photo. Only XMLHttpRequest tells how much has left.
 * @param {File} file
 * @param {{onProgress: OnProgress, signal?: AbortSignal}} options
 * @returns {Promise<UploadAnswer>}
 */
export function upload(file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append('file', file, file.name || 'photo');
    const call = new XMLHttpRequest();
    call.open('POST', address('upload'));
    for (const [name, value] of Object.entries(authorization())) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    call.onload = () => {
      if (call.status >= 200 && call.status < 300) resolve(JSON.parse(call.responseText));
      else reject(problemOf(call.status, call.responseText, call.getResponseHeader('Retry-After')));
    };
    call.onerror = () => reject(unreachable());
    call.onabort = () => reject(new DOMException('aborted', 'AbortError'));
    signal?.addEventListener('abort', () => call.abort());
    call.send(form);
  });
}

/**
 * The job's states as they come (GET /job/{id}/events). By fetch, since an EventSource can carry no key.
 * @param {string} id
 * @param {{signal?: AbortSignal}} options
 * @returns {AsyncGenerator<JobState, void, void>}
 */
export async function* events(id, { signal }) {
  const headers = { ...authorization(), Accept: 'text/event-stream' };
  const response = await request(`job/${id}/events`, { signal, headers });
  if (!response.body) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer = (buffer + decoder.decode(value, { stream: true })).replace(/\r\n?/g, '\n');
    const blocks = buffer.split('\n\n');
    buffer = blocks.pop() ?? '';
    for (const block of blocks) {
      const lines = block.split('\n').filter((line) => line.startsWith('data:'));
      const data = lines.map((line) => line.slice(5).trimStart()).join('\n');
      if (data) yield JSON.parse(data);
    }
  }
}

/**
 * @param {string} id
 * @param {PreviewBody} body
 * @param {{signal?: AbortSignal}} [options]
 * @returns {Promise<Preview>}
 */
export async function preview(id, body, { signal } = {}) {
  const began = performance.now();
  const response = await request('preview', { json: { job_id: id, ...body }, signal });
  const blob = await response.blob();
  const stages = [...(response.headers.get('Server-Timing') ?? '').matchAll(/([\w-]+)[^,]*?dur=([\d.]+)/g)];
  return { blob, ms: performance.now() - began, stages: stages.map((m) => [m[1], Number(m[2])]) };
}

/**
 * One of the job's files.
 * @param {string} id
 * @param {string} name
 * @param {{onProgress?: OnProgress, signal?: AbortSignal}} [options]
 */
export async function download(id, name, { onProgress = () => {}, signal } = {}) {
  const response = await request(`download/${id}/${name}`, { signal });
  const total = Number(response.headers.get('Content-Length')) || 0;
  const reader = response.body?.getReader();
  const chunks = [];
  for (let got = 0; reader;) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
    got += value.length;
    if (total) onProgress(Math.min(1, got / total));
  }
  return new Blob(chunks, { type: response.headers.get('Content-Type') ?? 'image/png' });
}
