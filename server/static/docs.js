// openapi.json, readable: nothing is fetched from anywhere else, and no text becomes markup.

/**
 * @typedef {object} Schema  JSON Schema: what this page reads of it
 * @property {string} [$ref]
 * @property {unknown} [const]
 * @property {unknown[]} [enum]
 * @property {Schema[]} [anyOf]
 * @property {Schema[]} [oneOf]
 * @property {string} [type]
 * @property {string} [format]
 * @property {Schema} [items]
 * @property {Schema[]} [prefixItems]
 * @property {Record<string, Schema>} [properties]
 * @property {string[]} [required]
 * @property {number} [minimum]
 * @property {number} [exclusiveMinimum]
 * @property {number} [maximum]
 * @property {number} [exclusiveMaximum]
 * @property {number} [maxLength]
 * @property {number} [minItems]
 * @property {number} [maxItems]
 * @property {string} [pattern]
 * @property {unknown} [default]
 * @property {string} [description]
 * @property {unknown[]} [examples]
 * @typedef {Record<string, {schema?: Schema, examples?: Record<string, {value: unknown}>}>} Media  by content type
 * @typedef {{description?: string, content?: Media}} Answer
 * @typedef {object} Operation
 * @property {string} [summary]
 * @property {string} [description]
 * @property {Record<string, unknown>[]} [security]
 * @property {{name: string, in: string, description?: string, schema?: Schema}[]} [parameters]
 * @property {{content: Media}} [requestBody]
 * @property {Record<string, Answer>} responses  by status
 * @typedef {object} Api  openapi.json
 * @property {{description: string, version: string}} info
 * @property {Record<string, Record<string, Operation>>} paths
 */

/**
 * An element with text in which `backticks` mark code.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string | null} [text]
 * @param {Record<string, string>} attributes
 */
function make(tag, text = null, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== null) {
    text.split("`").forEach((part, k) => {
      if (k % 2) e.append(Object.assign(document.createElement("code"), { textContent: part }));
      else e.append(part);
    });
  }
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
}

/** @param {string} id */
function byId(id) {
  const e = document.getElementById(id);
  if (!e) throw new Error(`The page has no #${id}.`);
  return e;
}

/**
 * What a `$ref` points to, as often as one follows another.
 * @type {(api: Api, schema: Schema | undefined) => Schema}
 */
function resolve(api, schema = {}) {
  let found = schema;
  while (found.$ref) {
    /** @type {unknown} */
    let node = api;
    for (const step of found.$ref.slice(2).split("/")) node = /** @type {Record<string, unknown>} */ (node)[step];
    found = /** @type {Schema} */ (node);
  }
  return found;
}

/** @param {Schema | undefined} schema */
const nameOf = (schema) => schema?.$ref?.split("/").pop() ?? "";

/**
 * A schema's type in one line.
 * @type {(api: Api, schema: Schema | undefined) => string}
 */
function kind(api, schema) {
  if (!schema) return "";
  if (schema.$ref) {
    const target = resolve(api, schema);
    return target.properties ? nameOf(schema) : kind(api, target);
  }
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((v) => JSON.stringify(v)).join(" | ");
  const options = schema.anyOf ?? schema.oneOf;
  if (options && !schema.properties) return options.map((o) => kind(api, o)).join(" | ");
  return schema.type === "array" ? listKind(api, schema) : schema.format ?? schema.type ?? "anything";
}

/** @type {(api: Api, schema: Schema) => string} */
function listKind(api, { prefixItems, items }) {
  if (prefixItems) return `[${prefixItems.map((i) => kind(api, i)).join(", ")}]`;
  return `list of ${kind(api, items) || "anything"}`;
}

/** @type {(schema: Schema) => string[]} */
function ownBounds(s) {
  const { minItems, maxItems = "any number" } = s;
  /** @type {[unknown, string][]} */
  const all = [
    [s.minimum, `≥ ${s.minimum}`],
    [s.exclusiveMinimum, `> ${s.exclusiveMinimum}`],
    [s.maximum, `≤ ${s.maximum}`],
    [s.exclusiveMaximum, `< ${s.exclusiveMaximum}`],
    [s.maxLength, `at most ${s.maxLength} characters`],
    [s.prefixItems ? undefined : minItems, `${minItems} to ${maxItems}`],
    [s.pattern || undefined, `${s.pattern}`],
  ];
  return all.filter(([stated]) => stated !== undefined).map(([, words]) => words);
}

/** @param {Schema} schema */
function bounds(schema) {
  const { anyOf = [], items = {}, prefixItems = [] } = schema;
  return [...new Set([schema, ...anyOf, items, ...prefixItems.slice(0, 1)].flatMap(ownBounds))].join(", ");
}

/**
 * An empty table in a box that scrolls.
 * @param {string[]} titles
 */
function tableOf(titles) {
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const title of titles) head.append(make("th", title, { scope: "col" }));
  const body = table.createTBody();
  const box = make("div", null, { class: "scroll", tabindex: "0" });
  box.append(table);
  return { box, body };
}

/** @type {(api: Api, schema: Schema) => HTMLElement} */
function fields(api, schema) {
  const { box, body } = tableOf(["field", "type", "bounds", "default", "meaning"]);
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const byDefault = field.default === undefined || field.default === null ? "" : JSON.stringify(field.default);
    const row = body.insertRow();
    row.append(make("td", `\`${name}\`${schema.required?.includes(name) ? " (required)" : ""}`));
    row.append(make("td", kind(api, field)), make("td", bounds(field)), make("td", byDefault));
    row.append(make("td", field.description ?? ""));
  }
  return box;
}

/** @param {Schema} schema */
function partsOf({ properties = {}, items, anyOf = [], oneOf = [], prefixItems = [] }) {
  const parts = [...Object.values(properties), items, ...anyOf, ...oneOf, ...prefixItems];
  return parts.filter((part) => typeof part === "object"); // true and false are schemas as well
}

/**
 * A schema, and after it each schema with fields that it names.
 * @param {Api} api
 * @param {Schema | undefined} schema
 * @param {Set<string>} seen
 * @returns {Generator<[name: string, schema: Schema], void, void>}
 */
function* withParts(api, schema, seen = new Set()) {
  const name = nameOf(schema);
  const whole = resolve(api, schema);
  if (name && seen.has(name)) return;
  if (name) seen.add(name);
  if (whole.properties) yield [name, whole];
  for (const part of partsOf(whole)) yield* withParts(api, part, seen);
}

/** @param {unknown} value */
const exampleOf = (value) => make("pre", JSON.stringify(value, null, 2), { tabindex: "0" });

/** @type {(api: Api, box: HTMLElement, media: Media | undefined) => void} */
function content(api, box, media) {
  for (const [type, { schema, examples }] of Object.entries(media ?? {})) {
    if (type === "application/problem+json") continue;
    box.append(make("p", `\`${type}\``));
    for (const [name, part] of withParts(api, schema)) {
      if (name) box.append(make("h3", name));
      box.append(fields(api, part));
      for (const example of part.examples ?? []) box.append(exampleOf(example));
    }
    for (const example of Object.values(examples ?? {})) box.append(exampleOf(example.value));
  }
}

/** @param {Record<string, Answer>} responses */
function errors(responses) {
  const { box, body } = tableOf(["status", "code", "what it says"]);
  for (const [status, answer] of Object.entries(responses)) {
    for (const [code, example] of Object.entries(answer.content?.["application/problem+json"]?.examples ?? {})) {
      const { detail } = /** @type {{detail: string}} */ (example.value);
      body.insertRow().append(make("td", status), make("td", `\`${code}\``), make("td", detail));
    }
  }
  return body.rows.length ? box : null;
}

/** @type {(api: Api, op: Operation) => HTMLElement[]} */
function toSend(api, op) {
  const parts = [];
  if (op.security) {
    const open = op.security.some((way) => !Object.keys(way).length);
    parts.push(make("p", `Send \`Authorization: Bearer <key>\`${open ? ", if the server has keys" : ""}.`));
  }
  for (const parameter of op.parameters ?? []) {
    const meaning = parameter.description ?? kind(api, parameter.schema);
    parts.push(make("p", `\`${parameter.name}\` (${parameter.in}): ${meaning}`));
  }
  return parts;
}

/** @type {(api: Api, path: string, method: string, op: Operation) => HTMLElement} */
function operation(api, path, method, op) {
  const id = `${method}-${path.replace(/[^a-z]+/gi, "-").replace(/^-|-$/g, "")}`;
  const section = make("section", null, { id });
  const title = make("h2");
  title.append(make("span", method.toUpperCase(), { class: "method" }), make("code", path));
  section.append(title, make("p", op.description ?? op.summary ?? ""), ...toSend(api, op));
  if (op.requestBody) {
    section.append(make("h3", "Send"));
    content(api, section, op.requestBody.content);
  }
  for (const [status, answer] of Object.entries(op.responses)) {
    if (status >= "400") continue;
    section.append(make("h3", `Answer ${status}`), make("p", answer.description ?? ""));
    content(api, section, answer.content);
  }
  const table = errors(op.responses);
  if (table) section.append(make("h3", "Errors, as `application/problem+json`"), table);
  return section;
}

const main = byId("main");
try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  /** @type {Api} */
  const api = await answer.json();
  byId("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  main.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, op] of Object.entries(methods)) {
      const section = operation(api, path, method, op);
      const link = make("a", `${method.toUpperCase()} ${path}`, { href: `#${section.id}` });
      const item = make("li");
      item.append(link);
      byId("index").append(item);
      main.append(section);
    }
  }
} catch (error) {
  const why = error instanceof Error ? error.message : String(error);
  const words = `openapi.json could not be read (${why}). Reload this page.`;
  main.replaceChildren(make("p", words, { role: "alert" }));
}
main.removeAttribute("aria-busy");
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
