// Shows /openapi.json: routes by tag, each with its fields, an example to edit and to send.
"use strict";

/** An element with attributes and children; texts are never read as HTML. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** What a reference stands for. */
function resolve(description, schema) {
  let found = schema;
  while (found && found.$ref) {
    found = found.$ref.slice(2).split("/").reduce((part, key) => part && part[key], description);
  }
  return found || {};
}

/** The fields of an object's schema, those of its parts included. */
function fields(description, given) {
  const schema = resolve(description, given);
  const all = Object.entries(schema.properties || {}).map(([name, own]) => ({
    name,
    schema: own,
    required: (schema.required || []).includes(name),
  }));
  for (const part of schema.allOf || []) all.push(...fields(description, part));
  return all;
}

/** A schema in a few words. */
function kind(description, given) {
  if (given.$ref) {
    const schema = resolve(description, given);
    return schema.type && schema.type !== "object" ? kind(description, schema) : given.$ref.split("/").pop();
  }
  const options = given.oneOf || given.anyOf;
  if (options) return options.map((own) => kind(description, own)).join(" or ");
  if (given.enum) return given.enum.map((own) => JSON.stringify(own)).join(", ");
  const type = [].concat(given.type || "anything").filter((own) => own !== "null").join(" or ");
  return type === "array" ? `list of ${kind(description, given.items || {})}` : type;
}

/** A value that fits a schema, to begin with. */
function example(description, given, name = "") {
  const samples = { query: "How long does a flea live?", model: "local", index: undefined };
  if (name in samples) return samples[name];
  const schema = resolve(description, given);
  const options = schema.oneOf || schema.anyOf;
  if (options) return example(description, options[0], name);
  const type = [].concat(schema.type || "object").find((own) => own !== "null");
  if (type === "string") return schema.enum ? schema.enum[0] : "A flea lives for a hundred days.";
  if (type === "array") return [example(description, schema.items || {}, "")];
  if (type === "integer" || type === "number") return schema.minimum ?? 1;
  if (type === "boolean") return false;
  const needed = fields(description, schema).filter((field) => field.required);
  return Object.fromEntries(
    needed.map((field) => [field.name, example(description, field.schema, field.name)]),
  );
}

/** The fields as a table. */
function table(description, schema) {
  const rows = fields(description, schema).map((field) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, field.name), field.required ? " (needed)" : ""),
      element("td", {}, kind(description, field.schema)),
      element("td", {}, field.schema.description || resolve(description, field.schema).description || ""),
    ),
  );
  return element("table", {}, element("tbody", {}, ...rows));
}

/** A form that sends the example as it was edited. */
function form(description, method, path, schema) {
  const text = element("textarea", { rows: "6", "aria-label": `Body of ${method} ${path}` });
  if (schema) text.value = JSON.stringify(example(description, schema), null, 2);
  const button = element("button", { type: "button" }, "Send");
  const answer = element("pre", { "aria-live": "polite" });
  button.addEventListener("click", async () => {
    answer.textContent = "…";
    const headers = { "content-type": "application/json" };
    const key = sessionStorage.getItem("topshelf-key");
    if (key) headers.authorization = `Bearer ${key}`;
    try {
      const response = await fetch(path, {
        method: method.toUpperCase(),
        headers,
        body: schema ? text.value : undefined,
      });
      const body = await response.text();
      let shown = body;
      try {
        shown = JSON.stringify(JSON.parse(body), null, 2);
      } catch {
        // Not every answer is JSON; it is shown as it came.
      }
      answer.textContent = `${response.status}\n${shown}`;
    } catch (error) {
      answer.textContent = `The server did not answer: ${error.message}`;
    }
  });
  return element("div", { class: "try" }, ...(schema ? [text] : []), button, answer);
}

/** One route. */
function route(description, path, method, operation) {
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const answer = operation.responses?.["200"]?.content?.["application/json"]?.schema;
  const parts = [
    element(
      "summary",
      {},
      element("b", {}, method.toUpperCase()),
      " ",
      element("code", {}, path),
      ` ${operation.summary || operation.description || ""}`,
    ),
  ];
  if (body) parts.push(element("h4", {}, "Request"), table(description, body));
  if (answer) parts.push(element("h4", {}, "Answer"), table(description, answer));
  parts.push(element("h4", {}, "Try it"), form(description, method, path, body));
  return element("details", { class: "route" }, ...parts);
}

async function show() {
  const main = document.getElementById("routes");
  try {
    const response = await fetch("/openapi.json");
    const description = await response.json();
    main.replaceChildren();
    for (const tag of description.tags) {
      const section = element("section", {}, element("h2", {}, tag.name), element("p", {}, tag.description || ""));
      for (const [path, methods] of Object.entries(description.paths)) {
        for (const [method, operation] of Object.entries(methods)) {
          if ((operation.tags || []).includes(tag.name)) {
            section.append(route(description, path, method, operation));
          }
        }
      }
      main.append(section);
    }
  } catch (error) {
    main.textContent = `The description cannot be shown: ${error.message}`;
  }
}

show();
