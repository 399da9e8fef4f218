/**
 * Recover a header that never reached `<|message|>`: separate its fields from the text after them.
 *
 * gpt-oss sometimes omits `<|message|>`, and a limit on the tokens may cut a header anywhere.
 */

import { SPACE, WORD, splitFirstWord, splitWords, strip, stripLeft } from "../python_text.js";
import { CONTENT_TYPES, RECIPIENT } from "./header_fields.js";
import { CONSTRAIN } from "./specials.js";

const TYPE = new RegExp(`^(?:${CONTENT_TYPES.join("|")})(?![${WORD}])`, "u");
const CONSTRAINED_TYPE = new RegExp(`^[${SPACE}]*[A-Za-z][${WORD}./+\\-]*`, "u");
const FUNCTION = new RegExp(`^functions\\.[${WORD}.\\-]+$`, "u");

/**
 * Split a header that never reached `<|message|>` into a header and the text after it.
 *
 * Each part keeps the one word it needs, and the words of a call: `to=` and the content type.
 * @returns {[import("./header_fields.js").Part[], string]}
 */
export function splitUnfinished(parts, role) {
  const head = parts.slice(0, -1);
  const [marker, text] = parts.at(-1);
  let kept;
  let rest;
  if (marker === CONSTRAIN) {
    const found = CONSTRAINED_TYPE.exec(text);
    kept = found ? [found[0]] : [];
    rest = text.slice(found ? found[0].length : 0);
  } else {
    const isRoleKnown = marker === null && role !== null && splitWords(text)[0] !== role;
    [kept, rest] = takeWords(text, isRoleKnown ? 0 : 1);
  }
  if (marker !== CONSTRAIN && hasRecipient([...head, [marker, kept.join(" ")]])) {
    const found = TYPE.exec(rest);
    if (found) {
      kept = [...kept, found[0]];
      rest = rest.slice(found[0].length);
    }
  }
  return [[...head, [marker, kept.join(" ")]], strip(rest)];
}

/** The first `keep` words and the words that name a recipient, and the text after them. */
function takeWords(text, keep) {
  const kept = [];
  let rest = text;
  while (strip(rest)) {
    const [word, tail] = splitFirstWord(rest);
    const isNamed = kept.some(isRecipient);
    if (kept.length >= keep && (isNamed || !isRecipient(word))) break;
    kept.push(word);
    rest = tail;
  }
  return [kept, stripLeft(rest)];
}

/** Whether a word of a header names a recipient. */
function isRecipient(word) {
  return word.startsWith(RECIPIENT) || FUNCTION.test(word);
}

/** Whether a word of these parts names a recipient. */
export function hasRecipient(parts) {
  return parts.some(([, text]) => splitWords(text).some(isRecipient));
}
