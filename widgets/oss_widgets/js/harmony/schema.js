/**
 * The TypeScript-like text in which Harmony describes a function's arguments.
 *
 * Only what nano's tools use: a flat object of strings, numbers and booleans. Anything else is
 * refused in one sentence. oss_lab writes every JSON schema.
 */

import { HarmonyError } from "../errors.js";

const TYPES = { string: "string", number: "number", integer: "number", boolean: "boolean" };
const OBJECT_KEYS = ["type", "properties", "required"];
const PROPERTY_KEYS = ["type", "description", "enum"];

/** The signature of a function, such as `(_: {\nword: string,\n})`. */
export function writeSignature(tool) {
  const schema = tool.parameters ?? null;
  if (schema === null) return "()";
  checkKeys(tool, schema, OBJECT_KEYS, "parameters");
  if (schema.type !== "object") refuse(tool, `parameters has the type ${show(schema.type)}`);
  const required = schema.required ?? [];
  if (!Array.isArray(required)) refuse(tool, `required is ${show(required)}`);
  const lines = Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const optional = required.includes(name) ? "" : "?";
    // JavaScript would list such names first.
    if (/^\d+$/.test(name)) refuse(tool, `a property has the name ${show(name)}`);
    return writeProperty(tool, name, property, optional);
  });
  return `(_: {\n${lines.map((line) => `${line}\n`).join("")}})`;
}

function writeProperty(tool, name, property, optional) {
  checkKeys(tool, property, PROPERTY_KEYS, name);
  let type = typeof property.type === "string" ? TYPES[property.type] : undefined;
  if (type === undefined) refuse(tool, `${name} has the type ${show(property.type)}`);
  if (property.enum !== undefined) {
    const values = Array.isArray(property.enum) ? property.enum : [null];
    const isText = values.every((value) => typeof value === "string");
    if (property.type !== "string" || !isText) refuse(tool, `${name} has an enum of other values`);
    type = property.enum.map((value) => `"${value}"`).join(" | ") || type;
  }
  const comment = property.description;
  if (comment !== undefined && typeof comment !== "string") {
    refuse(tool, `${name} has a description that is not text`);
  }
  const line = `${name}${optional}: ${type},`;
  return comment === undefined ? [line] : [`// ${comment}`, line];
}

function checkKeys(tool, schema, known, where) {
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
    refuse(tool, `${where} is ${show(schema)}`);
  }
  const other = Object.keys(schema).find((key) => !known.includes(key));
  if (other !== undefined) refuse(tool, `${where} has the key ${show(other)}`);
}

function show(value) {
  return JSON.stringify(value) ?? "nothing";
}

function refuse(tool, reason) {
  const remedy = "use a flat object of strings, numbers and booleans";
  throw new HarmonyError(`the schema of tool ${tool.name}: ${reason}; ${remedy}`);
}
