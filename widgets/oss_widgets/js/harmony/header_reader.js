/**
 * Collect the tokens of a header, and read its fields once it is complete or broken off.
 */

import { splitFirstWord, splitWords } from "../python_text.js";
import { decodeAll, decodeUtf8 } from "../utf8.js";
import { Kind } from "./events.js";
import { parseHeader } from "./header.js";
import { CHANNELS, ROLES } from "./messages.js";
import { CHANNEL } from "./specials.js";
import { hasRecipient, splitUnfinished } from "./unfinished_header.js";

const LONGEST_CHANNEL = 16; // bytes after <|channel|> searched for a known channel name

export class HeaderReader {
  /**
   * @param {string | null} role the author's role if it is already known
   * @param {number} start the position of the header's first token
   */
  constructor(role, start) {
    this.role = role;
    this.start = start;
    /** The channel, as soon as it is known to be one of Harmony's three. */
    this.channel = null;
    /** @type {[string | null, number[]][]} */
    this.parts = [[null, []]];
  }

  /** Add the bytes of an ordinary token. */
  addText(bytes) {
    const [marker, text] = this.parts.at(-1);
    for (const byte of bytes) text.push(byte);
    if (marker === CHANNEL) {
      const [word] = splitFirstWord(decodeAll(text.slice(0, LONGEST_CHANNEL)));
      this.channel = CHANNELS.includes(word) ? word : null;
    }
  }

  /** Add `<|channel|>` or `<|constrain|>`. */
  addMarker(name) {
    this.parts.push([name, []]);
    if (name === CHANNEL) this.channel = null;
  }

  /** Whether the header so far is exactly a role's name. */
  isOnlyRole() {
    const parts = this.decodeParts();
    return this.role === null && parts.length === 1 && ROLES.includes(parts[0][1]);
  }

  /** The fields of a complete header. */
  read() {
    return this.checkBytes(parseHeader(this.decodeParts(), this.role));
  }

  /**
   * The fields of a header without `<|message|>`, and the text after them.
   *
   * No fields if there is no message: nothing follows `<|start|>role`, or the stream was cut before
   * the content.
   */
  recover(isCut) {
    const [parts, text] = splitUnfinished(this.decodeParts(), this.role);
    let isMessage = text !== "" || parts.some(([marker, words]) => marker || words);
    if (isCut) isMessage = splitWords(text).length > 1 && !hasRecipient(parts); // else a cut field
    return isMessage ? [this.checkBytes(parseHeader(parts, this.role)), text] : [null, ""];
  }

  /** @returns {import("./header_fields.js").Part[]} */
  decodeParts() {
    return this.parts.map(([marker, bytes]) => [marker, decodeAll(bytes)]);
  }

  checkBytes(header) {
    const isBroken = this.parts.some(([, bytes]) => {
      const { broken, waiting } = decodeUtf8(bytes);
      return broken > 0 || waiting.length > 0;
    });
    if (isBroken) header.report(Kind.INVALID_UTF8, "bytes in the header that are not UTF-8");
    return header;
  }
}
