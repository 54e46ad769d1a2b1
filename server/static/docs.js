// openapi.json, readable: nothing is fetched from anywhere else, and no text becomes markup.

const make = (tag, text, attributes = {}) => {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) {
    String(text).split("`").forEach((part, k) => e.append(k % 2 ? Object.assign(document.createElement("code"), { textContent: part }) : part));
  }
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
};

const resolve = (api, schema) => {
  let found = schema ?? {};
  while (found.$ref) found = found.$ref.slice(2).split("/").reduce((o, k) => o[k], api);
  return found;
};

const nameOf = (schema) => schema?.$ref?.split("/").pop();

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
  if (schema.type === "array") {
    if (schema.prefixItems) return `[${schema.prefixItems.map((i) => kind(api, i)).join(", ")}]`;
    return `list of ${kind(api, schema.items) || "anything"}`;
  }
  return schema.format ?? schema.type ?? "anything";
}

function bounds(schema) {
  const parts = [];
  for (const s of [schema, ...(schema.anyOf ?? []), schema.items ?? {}, ...(schema.prefixItems ?? []).slice(0, 1)]) {
    if (s.minimum !== undefined) parts.push(`≥ ${s.minimum}`);
    if (s.exclusiveMinimum !== undefined) parts.push(`> ${s.exclusiveMinimum}`);
    if (s.maximum !== undefined) parts.push(`≤ ${s.maximum}`);
    if (s.exclusiveMaximum !== undefined) parts.push(`< ${s.exclusiveMaximum}`);
    if (s.maxLength !== undefined) parts.push(`at most ${s.maxLength} characters`);
    if (s.minItems !== undefined && !s.prefixItems) parts.push(`${s.minItems} to ${s.maxItems ?? "any number"}`);
    if (s.pattern) parts.push(s.pattern);
  }
  return [...new Set(parts)].join(", ");
}

function fields(api, schema) {
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const title of ["field", "type", "bounds", "default", "meaning"]) head.append(make("th", title, { scope: "col" }));
  const body = table.createTBody();
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const row = body.insertRow();
    row.append(make("td", `\`${name}\`${schema.required?.includes(name) ? " (required)" : ""}`));
    row.append(make("td", kind(api, field)), make("td", bounds(field)));
    row.append(make("td", field.default === undefined || field.default === null ? "" : JSON.stringify(field.default)));
    row.append(make("td", field.description ?? ""));
  }
  const box = make("div", null, { class: "scroll", tabindex: "0" });
  box.append(table);
  return box;
}

// A schema, and after it each schema with fields that it names.
function* withParts(api, schema, seen = new Set()) {
  const name = nameOf(schema);
  const whole = resolve(api, schema);
  if (name && seen.has(name)) return;
  if (name) seen.add(name);
  if (whole.properties) yield [name, whole];
  const inner = [...Object.values(whole.properties ?? {}), whole.items, ...(whole.anyOf ?? []), ...(whole.oneOf ?? []), ...(whole.prefixItems ?? [])];
  for (const part of inner) if (part && typeof part === "object") yield* withParts(api, part, seen);
}

function content(api, box, media) {
  for (const [type, { schema, examples }] of Object.entries(media ?? {})) {
    if (type === "application/problem+json") continue;
    box.append(make("p", `\`${type}\``));
    for (const [name, part] of withParts(api, schema)) {
      if (name) box.append(make("h3", name));
      box.append(fields(api, part));
      for (const example of part.examples ?? []) box.append(make("pre", JSON.stringify(example, null, 2), { tabindex: "0" }));
    }
    for (const example of Object.values(examples ?? {})) box.append(make("pre", JSON.stringify(example.value, null, 2), { tabindex: "0" }));
  }
}

function errors(responses) {
  const table = make("table");
  const head = table.createTHead().insertRow();
  for (const title of ["status", "code", "what it says"]) head.append(make("th", title, { scope: "col" }));
  const body = table.createTBody();
  for (const [status, answer] of Object.entries(responses)) {
    for (const [code, example] of Object.entries(answer.content?.["application/problem+json"]?.examples ?? {})) {
      const row = body.insertRow();
      row.append(make("td", status), make("td", `\`${code}\``), make("td", example.value.detail));
    }
  }
  if (!body.rows.length) return null;
  const box = make("div", null, { class: "scroll", tabindex: "0" });
  box.append(table);
  return box;
}

function operation(api, path, method, op) {
  const id = `${method}-${path.replace(/[^a-z]+/gi, "-").replace(/^-|-$/g, "")}`;
  const section = make("section", null, { id });
  const title = make("h2");
  title.append(make("span", method.toUpperCase(), { class: "method" }), make("code", path));
  section.append(title, make("p", op.description ?? op.summary ?? ""));
  if (op.security) {
    const open = op.security.some((way) => !Object.keys(way).length);
    section.append(make("p", `Send \`Authorization: Bearer <key>\`${open ? ", if the server has keys" : ""}.`));
  }
  for (const parameter of op.parameters ?? []) {
    section.append(make("p", `\`${parameter.name}\` (${parameter.in}): ${parameter.description ?? kind(api, parameter.schema)}`));
  }
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

const main = document.getElementById("main");
try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const api = await answer.json();
  document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  main.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, op] of Object.entries(methods)) {
      const section = operation(api, path, method, op);
      const link = make("a", `${method.toUpperCase()} ${path}`, { href: `#${section.id}` });
      const item = make("li");
      item.append(link);
      document.getElementById("index").append(item);
      main.append(section);
    }
  }
} catch (error) {
  main.replaceChildren(make("p", `openapi.json could not be read (${error.message}). Load this page again.`, { role: "alert" }));
}
main.removeAttribute("aria-busy");
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
