/**
 * The state of a page as a short text for its address, and back.
 *
 *     mode=lab&views=tokens,lens&q=What+is+347+*+62%3F&e=high&t=93&l=2&x=7&pin=93.2..7
 *
 * An address may come from anybody, so everything that is read is checked.
 *
 * @typedef {object} PageState
 * @property {string} [mode]
 * @property {number} [step]  of the guided path
 * @property {string[]} [views]  names of the open ones
 * @property {string} [theme]
 * @property {{token: number | null, layer: number | null, head: number | null,
 *   expert: number | null, pinned: object[]}} [selection]  as `Selection.toJSON` writes it
 * @property {{request: import("../source/source.js").Request, forks: {at: number, ids: number[],
 *   interventions: object[]}[]} | null} [run]  how to repeat what is shown
 */

import { LabError } from "../errors.js";
import { EFFORTS } from "../harmony/messages.js";

const PARTS = { t: "token", l: "layer", h: "head", x: "expert" };
const NAME = /^[a-z][a-z_]*$/;
const INTEGER = /^\d{1,9}$/;
const KEYS = ["mode", "step", "views", "theme", "q", "e", "more", "forks", "pin", ...Object.keys(PARTS)];

const isPlain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isListOf = (isItem) => (value) => Array.isArray(value) && value.every(isItem);
const isPair = (value) => isListOf(isText)(value) && value.length === 2;
const isIntervention = (value) => isPlain(value) && isText(value.kind);
const isTool = ({ name, description = "" }) => isText(name) && isText(description);
const isNumberOrNull = (value) => value === null || Number.isFinite(value);

/** What a request may have besides its question and effort. */
const MORE = {
  instructions: isText,
  tools: isListOf((value) => isPlain(value) && isTool(value)),
  history: isListOf(isPair),
  toolOutputs: (value) => isPlain(value) && Object.values(value).every(isText),
  sampling: (value) => isPlain(value) && Object.values(value).every(isNumberOrNull),
  maxTokens: isCount,
  interventions: isListOf(isIntervention),
};
const FORK = { at: isCount, ids: isListOf(isCount), interventions: isListOf(isIntervention) };

/** @param {PageState} state @returns {string}  without the # */
export function encode({ mode, step, views, theme, selection, run }) {
  const parts = new URLSearchParams();
  const add = (key, value) => {
    if (value !== undefined && value !== null && value !== "") parts.set(key, value);
  };
  add("mode", mode);
  add("step", step);
  add("views", views?.join(","));
  add("theme", theme);
  if (run) {
    const { question, effort, ...more } = run.request;
    add("q", question);
    add("e", effort);
    const kept = Object.entries(more).filter(([, value]) => !isVoid(value));
    if (kept.length) add("more", JSON.stringify(Object.fromEntries(kept)));
    if (run.forks.length) add("forks", JSON.stringify(run.forks));
  }
  for (const [key, part] of Object.entries(PARTS)) add(key, selection?.[part]);
  add("pin", selection?.pinned.map(encodePlace).join("_"));
  return parts.toString();
}

/**
 * @param {string} fragment  of an address, without the #
 * @returns {PageState}  without the parts that the address does not have
 * @throws {LabError} if a part is unknown or damaged
 */
export function decode(fragment) {
  const parts = new URLSearchParams(fragment);
  for (const key of parts.keys()) {
    if (!KEYS.includes(key)) throw new LabError(`it has an unknown part “${key}”; use a newer page`);
    if (parts.getAll(key).length > 1) throw new LabError(`it has the part “${key}” more than once`);
  }
  const state = {};
  const read = (key, parse) => parts.has(key) && (state[key] = parse(key, parts.get(key)));
  read("mode", parseName);
  read("step", parseInteger);
  read("views", (key, text) => (text ? text.split(",").map((each) => parseName(key, each)) : []));
  read("theme", parseName);
  if (parts.has("q") || parts.has("e")) state.run = decodeRun(parts);
  if (parts.has("pin") || Object.keys(PARTS).some((key) => parts.has(key))) {
    state.selection = decodeSelection(parts);
  }
  return state;
}

function decodeRun(parts) {
  const [question, effort] = [parts.get("q"), parts.get("e")];
  if (!question?.trim()) throw damaged("q");
  if (!EFFORTS.includes(effort)) throw damaged("e");
  const more = parts.has("more") ? parseJson("more", parts.get("more")) : {};
  checkFields("more", more, MORE);
  const forks = parts.has("forks") ? parseJson("forks", parts.get("forks")) : [];
  if (!Array.isArray(forks)) throw damaged("forks");
  for (const fork of forks) {
    checkFields("forks", fork, FORK);
    if (Object.keys(fork).length !== Object.keys(FORK).length) throw damaged("forks");
  }
  return { request: { question, effort, ...more }, forks };
}

function decodeSelection(parts) {
  const read = (key) => (parts.has(key) ? parseInteger(key, parts.get(key)) : null);
  const place = Object.fromEntries(Object.entries(PARTS).map(([key, part]) => [part, read(key)]));
  const pins = parts.get("pin")?.split("_") ?? [];
  return { ...place, pinned: pins.map(decodePlace) };
}

/** "93.2..7": token 93, layer 2, no head, expert 7. */
function encodePlace(place) {
  return Object.values(PARTS).map((part) => place[part] ?? "").join(".");
}

function decodePlace(text) {
  const numbers = text.split(".");
  const names = Object.values(PARTS);
  if (numbers.length !== names.length) throw damaged("pin");
  const read = (number) => (number === "" ? null : parseInteger("pin", number));
  return Object.fromEntries(names.map((name, n) => [name, read(numbers[n])]));
}

function checkFields(key, value, checks) {
  if (!isPlain(value)) throw damaged(key);
  for (const [name, field] of Object.entries(value)) {
    if (!Object.hasOwn(checks, name) || !checks[name](field)) throw damaged(key);
  }
}

function parseName(key, text) {
  if (!NAME.test(text)) throw damaged(key);
  return text;
}

function parseInteger(key, text) {
  if (!INTEGER.test(text)) throw damaged(key);
  return Number(text);
}

function parseJson(key, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) throw damaged(key);
    throw error;
  }
}

function damaged(key) {
  return new LabError(`its part “${key}” is damaged; copy the whole link again`);
}

/** Whether a part of a request says nothing. */
function isVoid(value) {
  if (value === null || value === undefined) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}
