// The server's HTTP interface, and nothing else. Addresses are relative to the page, so a path prefix works.

const base = new URL('.', document.baseURI);
export const address = (path) => new URL(path, base);

const KEY = 'relight.key';
const shelf = (use) => {
  try {
    return use(sessionStorage);
  } catch {
    return null; // storage can be switched off
  }
};
export const key = {
  get: () => shelf((s) => s.getItem(KEY)) ?? '',
  set: (value) => shelf((s) => (value ? s.setItem(KEY, value) : s.removeItem(KEY))),
};
/** As UTF-8: a header holds bytes, and the browser would send other characters as Latin-1 or not at all. */
const bytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));
const authorization = () => (key.get() ? { Authorization: `Bearer ${bytes(key.get())}` } : {});

/** What went wrong, in the server's words (RFC 9457). `code` is the server's, or `unreachable`. */
export class Problem extends Error {
  constructor({ status = 0, code = 'internal', title = '', detail = '', retryAfter = 0 }) {
    super(detail || title);
    Object.assign(this, { name: 'Problem', status, code, title, detail, retryAfter });
  }
}

const unreachable = () => new Problem({
  code: 'unreachable', title: 'No answer', detail: 'The server does not answer. Check that it runs and that you are online.',
});

function problemOf(status, text, retryAfter) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch { /* a proxy's own page */ }
  const title = typeof body.title === 'string' ? body.title : 'Request failed';
  const detail = typeof body.detail === 'string' ? body.detail : `The server answered with status ${status}.`;
  return new Problem({ status, title, detail, code: body.code ?? 'internal', retryAfter: Number(retryAfter) || 0 });
}

export async function request(path, { json, ...options } = {}) {
  const headers = { ...authorization(), ...(json ? { 'Content-Type': 'application/json' } : {}) };
  const body = json ? JSON.stringify(json) : undefined;
  let response;
  try {
    response = await fetch(address(path), { method: json ? 'POST' : 'GET', headers, body, cache: 'no-cache', ...options });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw unreachable();
  }
  if (response.ok) return response;
  throw problemOf(response.status, await response.text().catch(() => ''), response.headers.get('Retry-After'));
}

const getJson = async (path, options) => (await request(path, options)).json();

export const models = () => getJson('models');
export const job = (id, options) => getJson(`job/${id}`, options);
export const erase = (id) => getJson(`job/${id}`, { method: 'DELETE' });
export const relight = (id, body, options) => getJson('relight', { json: { job_id: id, ...body }, ...options });

/** State of the server: {ready, …}; it also says so with status 503 while it warms up. */
export async function ready() {
  try {
    const response = await fetch(address('ready'), { cache: 'no-store' });
    return { up: true, ...(await response.json().catch(() => ({}))) };
  } catch {
    return { up: false };
  }
}

/** Sends a photo; `onProgress` gets 0..1. Only XMLHttpRequest tells how much has left. */
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

/** The job's states as they come (GET /job/{id}/events). By fetch, since an EventSource can carry no key. */
export async function* events(id, { signal }) {
  const response = await request(`job/${id}/events`, { signal, headers: { ...authorization(), Accept: 'text/event-stream' } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer = (buffer + value).replace(/\r\n?/g, '\n');
    const blocks = buffer.split('\n\n');
    buffer = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart()).join('\n');
      if (data) yield JSON.parse(data);
    }
  }
}

/** A preview: {blob, ms, stages: [[name, ms]]}. */
export async function preview(id, body, { signal }) {
  const began = performance.now();
  const response = await request('preview', { json: { job_id: id, ...body }, signal });
  const blob = await response.blob();
  const stages = [...(response.headers.get('Server-Timing') ?? '').matchAll(/([\w-]+)[^,]*?dur=([\d.]+)/g)];
  return { blob, ms: performance.now() - began, stages: stages.map((m) => [m[1], Number(m[2])]) };
}

/** One of the job's files as a blob; `onProgress` gets 0..1. */
export async function download(id, name, { onProgress = () => {}, signal } = {}) {
  const response = await request(`download/${id}/${name}`, { signal });
  const total = Number(response.headers.get('Content-Length')) || 0;
  const reader = response.body.getReader();
  const chunks = [];
  for (let got = 0; ;) {
    const { value, done } = await reader.read();
    if (done) break;
    chunks.push(value);
    got += value.length;
    if (total) onProgress(Math.min(1, got / total));
  }
  return new Blob(chunks, { type: response.headers.get('Content-Type') ?? 'image/png' });
}
