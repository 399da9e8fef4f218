/**
 * How Python splits and quotes text, so that messages and diagnostics equal those of oss_lab.
 *
 * JavaScript's \s and trim() differ from Python's: they include U+FEFF and lack U+001C to U+001F
 * and U+0085.
 */

/** Python's white space, for use inside [ ] of a regular expression. */
export const SPACE =
  "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
/** A letter, digit or underscore, as Python's \w. */
export const WORD = "\\p{L}\\p{N}_";

const WORDS = new RegExp(`[^${SPACE}]+`, "gu");
const LEFT = new RegExp(`^[${SPACE}]+`, "u");
const RIGHT = new RegExp(`[${SPACE}]+$`, "u");
const FIRST = new RegExp(`^[${SPACE}]*([^${SPACE}]+)[${SPACE}]*`, "u");

/** The words of a text: `text.split()`. */
export function splitWords(text) {
  return text.match(WORDS) ?? [];
}

/** The first word, and everything after the space that follows it: `text.split(None, 1)`. */
export function splitFirstWord(text) {
  const found = FIRST.exec(text);
  return found ? [found[1], text.slice(found[0].length)] : ["", ""];
}

export function stripLeft(text) {
  return text.replace(LEFT, "");
}

export function strip(text) {
  return stripLeft(text).replace(RIGHT, "");
}

export function removePrefix(text, prefix) {
  return text.startsWith(prefix) ? text.slice(prefix.length) : text;
}

export function removeSuffix(text, suffix) {
  return suffix && text.endsWith(suffix) ? text.slice(0, -suffix.length) : text;
}

const ESCAPES = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** The text in quotes, with invisible characters as escapes: `repr(text)`. */
export function quote(text) {
  if (text === null || text === undefined) return "None";
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  let quoted = mark;
  for (const character of text) {
    if (character === mark) quoted += `\\${mark}`;
    else if (character in ESCAPES) quoted += ESCAPES[character];
    else if (character === " " || !/[\p{C}\p{Z}]/u.test(character)) quoted += character;
    else quoted += escapeCode(character.codePointAt(0));
  }
  return quoted + mark;
}

function escapeCode(code) {
  const digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
  return `\\${{ 2: "x", 4: "u", 8: "U" }[digits]}${code.toString(16).padStart(digits, "0")}`;
}
