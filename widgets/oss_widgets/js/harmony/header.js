/**
 * The header grammar: the text between `<|start|>` and `<|message|>`.
 *
 *     author [to=recipient] [<|channel|> channel [to=recipient] [type]] [<|constrain|> type]
 *
 * A header arrives as parts: the text before any special token, then one part for each
 * `<|channel|>` or `<|constrain|>` with the text after it. An author is a role or `role:name`;
 * anything else is a tool's name. Every header can be read; whatever does not fit the grammar is
 * reported as a problem.
 */

import { SPACE, WORD, quote, removePrefix, splitWords } from "../python_text.js";
import { Kind } from "./events.js";
import { CONTENT_TYPES, HeaderFields, RECIPIENT, isCanonical } from "./header_fields.js";
import { checkRecipient, readConstraint, readType } from "./header_type.js";
import { CHANNELS, ROLES } from "./messages.js";
import { CHANNEL, CONSTRAIN } from "./specials.js";

const NAMES = CHANNELS.join("|");
const TO = `to=[^${SPACE}]+`;
const GLUED_AUTHOR = new RegExp(`^(assistant|user|system|developer)(${NAMES})?(${TO})?$`, "u");
const GLUED_CHANNEL = new RegExp(`^(${NAMES})(${TO}|${CONTENT_TYPES.join("|")})$`, "u");
const NAME = new RegExp(`^[A-Za-z_][${WORD}.\\-]*$`, "u");
const DOTTED_NAME = new RegExp(`^(?:[A-Za-z_][${WORD}\\-]*(?:\\.[${WORD}\\-]+)+|python)$`, "u");

/**
 * Read a complete header.
 * @param {import("./header_fields.js").Part[]} parts
 * @param {string | null} role the author's role if the caller already knows it
 * @returns {HeaderFields}
 */
export function parseHeader(parts, role) {
  let [header, words] = readAuthor(parts.length ? parts[0][1] : "", role);
  let constraint = null;
  for (const [marker, text] of parts.slice(1)) {
    if (marker === CHANNEL) {
      words = [...words, ...readChannel(header, text)];
    } else if (constraint === null) {
      constraint = text;
    } else {
      header.report(Kind.SPECIAL_IN_HEADER, `a second ${CONSTRAIN} in the header; skipped`);
    }
  }
  words = readRecipient(header, words);
  const hasMarker = parts.some(([marker]) => marker === CHANNEL);
  if (words.length && header.channel === null && !hasMarker) {
    words = readBareChannel(header, words);
  }
  words = readBareRecipient(header, words, constraint !== null);
  if (constraint === null) {
    checkRecipient(header); // first: only the header of a call may have any content type
    readType(header, words);
  } else {
    const inner = readRecipient(header, splitWords(constraint));
    readConstraint(header, constraint, inner, words);
    checkRecipient(header);
  }
  if (!header.problems.length && !isCanonical(parts, role, header)) {
    header.report(Kind.MALFORMED_HEADER, "the header's spacing or order is not Harmony's");
  }
  return header;
}

/** The author, and the other words of the first part. @returns {[HeaderFields, string[]]} */
function readAuthor(text, role) {
  const words = splitWords(text);
  const first = words[0] ?? "";
  const glued = GLUED_AUTHOR.exec(first);
  if (glued && glued[0] !== glued[1] && (role === null || role === glued[1])) {
    const header = new HeaderFields(glued[1]);
    const reason = `${quote(first)} has no separator; its fields are separated`;
    header.report(Kind.GLUED_HEADER, reason);
    return [header, [...glued.slice(2).filter(Boolean), ...words.slice(1)]];
  }
  if (role !== null) {
    const header = new HeaderFields(role);
    if (first !== role) return [header, words];
    header.report(Kind.EXTRA_HEADER_WORDS, `a second ${quote(role)} in the header; skipped`);
    return [header, words.slice(1)];
  }
  if (!words.length || first.startsWith(RECIPIENT)) {
    const header = new HeaderFields("assistant");
    header.report(Kind.MISSING_ROLE, "the header has no role; the assistant is assumed");
    return [header, words];
  }
  return [readName(first), words.slice(1)];
}

/** An author such as `user`, `user:alice` or `functions.f`. */
function readName(first) {
  const colon = first.indexOf(":");
  let known = colon < 0 ? first : first.slice(0, colon);
  let name = colon < 0 ? "" : first.slice(colon + 1);
  if (!ROLES.includes(known)) {
    [known, name] = ["tool", first];
  } else if (known === "tool") {
    name = name || "tool";
  }
  const header = new HeaderFields(known, name || null);
  if (name.includes("<|") || ROLES.includes(name) || (colon >= 0 && !name)) {
    header.report(Kind.UNKNOWN_AUTHOR, `${quote(first)} is not a name`);
    if (known !== "tool") header.name = null;
  }
  return header;
}

/** Set the channel; returns the words after its name. */
function readChannel(header, text) {
  let words = splitWords(text);
  if (!words.length || words[0].startsWith(RECIPIENT)) {
    header.report(Kind.EMPTY_CHANNEL, `${CHANNEL} has no name after it`);
    return words;
  }
  words = separateChannel(header, words);
  if (header.channel) {
    const two = `${quote(header.channel)} and ${quote(words[0])}`;
    header.report(Kind.DUPLICATE_CHANNEL, `two channels, ${two}; the last is used`);
  }
  if (words[0].includes("<|")) {
    header.report(Kind.UNKNOWN_CHANNEL, `${quote(words[0])} is not a channel; skipped`);
  } else {
    header.channel = words[0];
  }
  return words.slice(1);
}

/** Split a first word such as `commentaryto=python` into its fields. */
function separateChannel(header, words) {
  const glued = GLUED_CHANNEL.exec(words[0]);
  if (!glued) return words;
  const reason = `${quote(words[0])} has no separator; its fields are separated`;
  header.report(Kind.GLUED_HEADER, reason);
  return [glued[1], glued[2], ...words.slice(1)];
}

/** Read a channel's name without `<|channel|>`; returns the words after it. */
function readBareChannel(header, given) {
  const words = separateChannel(header, given);
  if (!CHANNELS.includes(words[0])) return words;
  header.channel = words[0];
  if (!header.has(Kind.GLUED_HEADER)) {
    const reason = `${quote(words[0])} has no ${CHANNEL}; read as the channel`;
    header.report(Kind.GLUED_HEADER, reason);
  }
  return readRecipient(header, words.slice(1));
}

/** Read `to=x` from the words; returns the other words. */
function readRecipient(header, words) {
  const others = [];
  let isWaiting = false; // the word was only `to=`, the next is the name
  for (const word of words) {
    if (isWaiting && !CONTENT_TYPES.includes(word)) {
      header.recipient = word;
      isWaiting = false;
    } else if (!word.startsWith(RECIPIENT)) {
      others.push(word);
    } else if (header.recipient) {
      header.report(Kind.MALFORMED_RECIPIENT, `a second recipient ${quote(word)}; skipped`);
    } else {
      header.recipient = removePrefix(word, RECIPIENT);
      isWaiting = !header.recipient;
      const reason = "`to=` has no name directly after it";
      if (isWaiting) header.report(Kind.MALFORMED_RECIPIENT, reason);
    }
  }
  return others;
}

/** Read a tool's name without `to=`; returns the other words. */
function readBareRecipient(header, words, isConstrained) {
  if (header.recipient || header.role !== "assistant") return words;
  const pattern = isConstrained && words.length === 1 ? NAME : DOTTED_NAME;
  const reserved = [...ROLES, ...CHANNELS, ...CONTENT_TYPES, "all"];
  const n = words.findIndex((word) => pattern.test(word) && !reserved.includes(word));
  if (n < 0) return words;
  header.recipient = words[n];
  const reason = `${quote(words[n])} has no \`to=\`; read as the recipient`;
  header.report(Kind.MALFORMED_RECIPIENT, reason);
  return words.toSpliced(n, 1);
}
