// The look as code, to paste into somebody's own program.

import { address } from './api.js';
import { toBody } from './rig.js';

/** @typedef {import('./rig.js').Rig} Rig */

/**
 * JSON over several lines, but each list of numbers on one.
 * @param {object} body
 */
function pretty(body) {
  const oneLine = (/** @type {string} */ _, /** @type {string} */ inner) => `[${inner.replace(/\s+/g, ' ')}]`;
  return JSON.stringify(body, null, 2).replace(/\[\s+([-\d.,\s]+?)\s+\]/g, oneLine);
}

/** @type {(rig: Rig, jobId: string) => string} */
export function asJson(rig, jobId) {
  return pretty({ job_id: jobId, ...toBody(rig) });
}

/** @type {(rig: Rig, jobId: string, withKey: boolean) => string} */
export function asCurl(rig, jobId, withKey) {
  const key = withKey ? ' \\\n  -H "Authorization: Bearer $RELIGHT_KEY"' : '';
  return `curl -fsS ${address('relight')}${key} \\
  -H 'Content-Type: application/json' \\
  -d '${JSON.stringify({ job_id: jobId, ...toBody(rig) })}'
curl -fsS ${address(`download/${jobId}/relit.png`)}${key} -o relit.png
`;
}

/** @type {(rig: Rig, jobId: string, withKey: boolean) => string} */
export function asPython(rig, jobId, withKey) {
  const look = pretty({ job_id: jobId, ...toBody(rig) });
  const body = look.replace(/\b(true|false)\b/g, (word) => (word === 'true' ? 'True' : 'False'));
  const os = withKey ? 'import os\n' : '';
  const key = withKey ? ', "Authorization": f"Bearer {os.environ[\'RELIGHT_KEY\']}"' : '';
  return `import json
${os}from urllib.request import Request, urlopen

SERVER = "${address('.').href.replace(/\/$/, '')}"
HEADERS = {"Content-Type": "application/json"${key}}

look = ${body}
with urlopen(Request(f"{SERVER}/relight", json.dumps(look).encode(), HEADERS)) as answer:
    print(json.load(answer)["relit_path"])
with urlopen(Request(f"{SERVER}/download/{look['job_id']}/relit.png", headers=HEADERS)) as answer:
    open("relit.png", "wb").write(answer.read())
`;
}

/** @type {(rig: Rig, jobId: string, withKey: boolean) => string} */
export function asJavaScript(rig, jobId, withKey) {
  const base = address('.').href.replace(/\/$/, '');
  const key = withKey ? ', key' : '';
  return `import { relight } from '${base}/static/relight.js';

const canvas = document.querySelector('canvas');
const view = await relight(canvas, { base: '${base}', jobId: '${jobId}'${key} });
await view.render(${pretty(toBody(rig))});
`;
}
