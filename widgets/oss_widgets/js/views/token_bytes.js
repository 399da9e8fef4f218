/**
 * Tokens that are only some bytes of a character, such as one of the three bytes of 你.
 *
 * A source writes such bytes as `\xe4`. Neighboring tokens have the other bytes, so the character
 * can be found and shown.
 */

import { makeVisible } from "./visible.js";

const BYTES = /(?:\\x[0-9a-f]{2})+/g;
const LONGEST = 4; // bytes of a character in UTF-8

/** A token's text where its neighbors are not known: bytes are shown as ⟨E4·BD⟩. */
export function readableText(text, longest) {
  return makeVisible(text.replace(BYTES, showBytes), longest);
}

function showBytes(bytes) {
  return `⟨${bytes.slice(2).toUpperCase().split("\\X").join("·")}⟩`;
}

/**
 * The character that a token is a part of.
 * @param {{text: string}[]} tokens
 * @param {number} at
 * @returns {{bytes: string, character: string | null, part: number, parts: number} | null}  null if
 *   the token has no single bytes; `character` is null if the bytes do not make one, for example
 *   because a reply was cut; `part` is the token's number from 1 among those that share it
 */
export function findCharacter(tokens, at) {
  const own = tokens[at].text.match(BYTES);
  if (!own) return null;
  const from = Math.max(0, at - LONGEST + 1);
  const near = tokens.slice(from, at + LONGEST).flatMap(({ text }, n) =>
    readBytes(text).map((byte) => ({ byte, token: from + n })),
  );
  const bytes = own.map(showBytes).join(" ");
  for (let start = 0; start < near.length; start++) {
    for (let size = 2; size <= LONGEST && start + size <= near.length; size++) {
      const found = near.slice(start, start + size);
      const owners = [...new Set(found.map(({ token }) => token))];
      if (owners.length < 2 || !owners.includes(at)) continue;
      const character = decode(found.map(({ byte }) => byte));
      if (!character) continue;
      return { bytes, character, part: owners.indexOf(at) + 1, parts: owners.length };
    }
  }
  return { bytes, character: null, part: 1, parts: 1 };
}

/** The bytes of a token; those of ordinary characters too. */
function readBytes(text) {
  const pieces = text.match(/\\x[0-9a-f]{2}|[^\\]+|\\/g) ?? [];
  return pieces.flatMap((piece) =>
    /^\\x/.test(piece) ? [parseInt(piece.slice(2), 16)] : [...new TextEncoder().encode(piece)],
  );
}

/** One character of several bytes, or null. */
function decode(bytes) {
  if (bytes[0] < 0xc2) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
    return Array.from(text).length === 1 ? text : null;
  } catch (error) {
    if (error instanceof TypeError) return null; // not UTF-8
    throw error;
  }
}
