/**
 * The last fields of a header: check the recipient, and read the content type.
 */

import { SPACE, WORD, quote } from "../python_text.js";
import { Kind } from "./events.js";
import { CONTENT_TYPES, RECIPIENT } from "./header_fields.js";
import { CHANNELS, ROLES } from "./messages.js";
import { CONSTRAIN } from "./specials.js";

const TYPE = new RegExp(`^[A-Za-z][${WORD}./+\\-]*$`, "u");
const BAD_DOTS = /^\.|\.\.|\.$/;
const STARTS_WITH_SPACE = new RegExp(`^[${SPACE}]`, "u");

/** Drop a recipient that is not a tool or cannot be read back. */
export function checkRecipient(header) {
  let name = header.recipient ?? "";
  const isCall = header.role === "assistant";
  if (name === "all" || (isCall && ROLES.includes(name))) {
    header.report(Kind.RECIPIENT_NOT_A_TOOL, `${quote(name)} is not a tool; dropped`);
    name = "";
  } else if (name.includes("<|") || name.startsWith(RECIPIENT)) {
    header.report(Kind.MALFORMED_RECIPIENT, `${quote(name)} is not a tool's name; dropped`);
    name = "";
  } else if (isCall && BAD_DOTS.test(name)) {
    const reason = `${quote(name)} has a missing name before or after a dot`;
    header.report(Kind.MALFORMED_RECIPIENT, reason);
  }
  header.recipient = name || null;
}

/** Read the content type from the words that are left over. */
export function readType(header, words) {
  const found = words.findIndex((word) => CONTENT_TYPES.includes(word));
  if (found >= 0) {
    header.contentType = words[found];
    reportExtra(header, words.toSpliced(found, 1));
    return;
  }
  if (words.length !== 1) {
    reportExtra(header, words);
    return;
  }
  const isWord = TYPE.test(words[0]) && ![...ROLES, ...CHANNELS].includes(words[0]);
  if (isWord && header.recipient) {
    header.contentType = words[0];
  } else {
    const kind = isWord ? Kind.UNKNOWN_CONTENT_TYPE : Kind.MALFORMED_CONTENT_TYPE;
    header.report(kind, `${quote(words[0])} is not a content type; dropped`);
  }
}

/**
 * Read the content type after `<|constrain|>`.
 * @param {string[]} inner the words of `text` without a recipient
 * @param {string[]} words those left over from other parts
 */
export function readConstraint(header, text, inner, words) {
  const name = inner[0] ?? "";
  if (name && !TYPE.test(name)) {
    header.report(Kind.MALFORMED_CONTENT_TYPE, `${quote(name)} is not a content type; dropped`);
  } else {
    const space = name && STARTS_WITH_SPACE.test(text) ? " " : "";
    header.contentType = `${CONSTRAIN}${space}${name}`;
  }
  reportExtra(header, [...words, ...inner.slice(1)]);
}

function reportExtra(header, words) {
  if (!words.length) return;
  header.report(Kind.EXTRA_HEADER_WORDS, `extra words ${quote(words.join(" "))}; dropped`);
}
