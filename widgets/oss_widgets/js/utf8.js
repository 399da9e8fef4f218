/**
 * Decode UTF-8 whose bytes arrive in pieces, such as the bytes of one token after the other.
 *
 * A token may end inside a character. Its last bytes then wait for the next token. TextDecoder
 * cannot report how many sequences were broken, so the bytes are read here.
 */

/** Stands for bytes that are not UTF-8. */
export const BROKEN = "\ufffd";

// The second bytes that may follow these first bytes; all others allow 80 to BF.
const SECOND = { 0xe0: [0xa0, 0xbf], 0xed: [0x80, 0x9f], 0xf0: [0x90, 0xbf], 0xf4: [0x80, 0x8f] };

/** Bytes of the character that starts with `first`; 0 if no character does. */
function countBytes(first) {
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/**
 * The text of `bytes`, up to an incomplete character at the end.
 * @param {ArrayLike<number>} bytes
 * @param {(broken: number[]) => string} show what a broken sequence becomes
 * @returns {{text: string, broken: number, waiting: number[]}} the number of broken sequences, and
 *   the bytes of the incomplete character
 */
export function decodeUtf8(bytes, show = () => BROKEN) {
  const all = Array.from(bytes);
  let text = "";
  let broken = 0;
  for (let at = 0, end; at < all.length; at = end) {
    const size = countBytes(all[at]);
    let [low, high] = SECOND[all[at]] ?? [0x80, 0xbf];
    end = at + 1;
    while (end < at + size && all[end] >= low && all[end] <= high) {
      [low, high] = [0x80, 0xbf];
      end += 1;
    }
    if (end - at === size) {
      text += readCharacter(all.slice(at, end));
    } else if (size > 0 && end === all.length) {
      return { text, broken, waiting: all.slice(at) };
    } else {
      text += show(all.slice(at, end));
      broken += 1;
    }
  }
  return { text, broken, waiting: [] };
}

function readCharacter([first, ...others]) {
  if (others.length === 0) return String.fromCharCode(first);
  const start = first & (0x3f >> others.length);
  return String.fromCodePoint(others.reduce((code, byte) => (code << 6) | (byte & 0x3f), start));
}

/** All the text of `bytes`; an incomplete character at the end is broken, too. */
export function decodeAll(bytes, show = () => BROKEN) {
  const { text, waiting } = decodeUtf8(bytes, show);
  return waiting.length ? text + show(waiting) : text;
}
