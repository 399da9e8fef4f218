/**
 * The fields of a header, the problems found in it, and how a renderer spells it.
 */

import { removePrefix, removeSuffix } from "../python_text.js";
import { CHANNEL, CONSTRAIN } from "./specials.js";

export const RECIPIENT = "to=";
/** Content types that are read even without `<|constrain|>`. */
export const CONTENT_TYPES = ["json", "code", "text"];

/**
 * @typedef {[string | null, string]} Part
 *   The special token that opens a part of a header (null: the first part), and its text.
 * @typedef {[string, string]} Problem its kind, and a sentence that explains it
 */

export class HeaderFields {
  constructor(role, name = null, channel = null, recipient = null, contentType = null) {
    this.role = role;
    this.name = name;
    this.channel = channel;
    this.recipient = recipient;
    this.contentType = contentType;
    /** @type {Problem[]} */
    this.problems = [];
  }

  report(kind, message) {
    this.problems.push([kind, message]);
  }

  /** Whether one of these problems was found. */
  has(...kinds) {
    return this.problems.some(([kind]) => kinds.includes(kind));
  }
}

/** The parts of a header as a renderer writes it. @returns {Part[]} */
export function spellHeader(header, channelFirst) {
  const { role, name } = header;
  const author = role === "tool" ? (name ?? "") : name === null ? role : `${role}:${name}`;
  /** @type {Part[]} */
  const parts = [[null, author]];
  const isAddressed = header.recipient !== null && header.recipient !== "all";
  const recipient = isAddressed ? ` ${RECIPIENT}${header.recipient}` : "";
  const add = (text) => {
    parts.at(-1)[1] += text;
  };
  if (!channelFirst) add(recipient);
  if (header.channel !== null) parts.push([CHANNEL, header.channel]);
  if (channelFirst) add(recipient);
  if (header.contentType !== null) {
    add(" ");
    if (header.contentType.startsWith(CONSTRAIN)) {
      parts.push([CONSTRAIN, removePrefix(header.contentType, CONSTRAIN)]);
    } else {
      add(header.contentType);
    }
  }
  return parts;
}

/**
 * Whether these parts are one of the spellings of the header.
 *
 * The space before `<|constrain|>` may be missing: gpt-oss often omits it.
 */
export function isCanonical(parts, role, header) {
  const trim = (all) => all.map(([marker, text], n) => {
    return [marker, n < all.length - 1 ? removeSuffix(text, " ") : text];
  });
  const given = JSON.stringify(trim(parts));
  return [true, false].some((channelFirst) => {
    const spelled = spellHeader(header, channelFirst);
    if (role !== null) spelled[0][1] = removePrefix(spelled[0][1], role);
    return JSON.stringify(trim(spelled)) === given;
  });
}
