/**
 * The text of a token with every character visible, as `oss_lab/plots/tokens.py` shows it.
 */

const SYMBOLS = { "\n": "↵", "\r": "␍", "\t": "⇥", " ": "␣" };
const INVISIBLE = /^[\p{C}\p{Z}]$/u;

/**
 * A newline is shown as ↵, a space as ␣, other invisible characters by their code point.
 * @param {string} text
 * @param {number} longest  characters that are shown; the middle of a longer text is left out
 */
export function makeVisible(text, longest = 24) {
  const shown = Array.from(text, makeCharacterVisible).join("");
  const characters = Array.from(shown);
  if (characters.length <= longest) return shown;
  const half = Math.floor(longest / 2);
  return `${characters.slice(0, half).join("")}…${characters.slice(1 - half).join("")}`;
}

function makeCharacterVisible(character) {
  if (character in SYMBOLS) return SYMBOLS[character];
  if (!INVISIBLE.test(character)) return character;
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}
