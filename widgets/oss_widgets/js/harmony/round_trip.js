/**
 * What can be rendered and read back: a header is read before it is written.
 *
 * A header field is text inside the format. A tool named `system` would be rendered as the header
 * of a system message, and a space would end a name.
 */

import { HarmonyError } from "../errors.js";
import { quote } from "../python_text.js";
import { Kind } from "./events.js";
import { parseHeader } from "./header.js";
import { HeaderFields, spellHeader } from "./header_fields.js";

/** Check that the header of this message can be read back. */
export function checkHeaderFields(message) {
  const name = message.name ?? null;
  const channel = message.channel ?? null;
  const recipient = message.recipient ?? null;
  const contentType = message.content_type ?? null;
  const wanted = new HeaderFields(message.role, name, channel, recipient, contentType);
  const found = parseHeader(spellHeader(wanted, message.role === "assistant"), null);
  const isOther = found.role !== message.role || found.has(Kind.UNKNOWN_AUTHOR);
  for (const [what, value, read] of [
    ["author's name", name, isOther ? null : found.name],
    ["recipient", recipient, found.recipient],
    ["channel", channel, found.channel],
    ["content type", contentType, found.contentType],
  ]) {
    if (value === "") {
      throw new HarmonyError(`the ${what} is empty; leave it out or give one`);
    }
    if (value !== read) {
      throw new HarmonyError(
        `the ${what} ${quote(value)} cannot be read back from the header; use one word that is` +
          " not part of the format",
      );
    }
  }
}
