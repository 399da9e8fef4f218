/** The button of one token. */

import { make } from "../elements.js";
import { inkOn, toCss } from "../scale.js";

/**
 * @typedef {object} Look  how a token is drawn
 * @property {string} text  visible characters
 * @property {string} name  accessible name; contains `text`
 * @property {number | null} share  probability, drawn as a bar; null is no bar
 * @property {[number, number, number] | null} color  of the background
 * @property {boolean} isMarked
 * @property {string} part  such as "1/3" if the token is only some bytes of a character
 * @property {boolean} isFormat  belongs to the Harmony format
 */

/** Remove a cell, and its block and message if they are empty then. */
export function removeCell(button) {
  const block = button.parentElement;
  if (button.nextSibling) button.nextSibling.remove(); // its line break
  button.remove();
  if (block.childElementCount) return;
  const group = block.parentElement;
  block.remove();
  if (group.childElementCount === 1) group.remove();
}

/** @param {HTMLButtonElement} button @param {Look} look */
export function drawCell(button, { text, name, share, color, isMarked, part, isFormat }) {
  const classes = [
    "oss-token",
    isFormat && "oss-token-format",
    isMarked && "oss-token-marked",
    part && "oss-token-part",
    share !== null && "oss-token-known",
  ];
  button.className = classes.filter(Boolean).join(" ");
  button.textContent = text;
  if (part) button.append(make("small", {}, part));
  button.dir = part ? "ltr" : "auto"; // Arabic reads from the right; the number stays after it
  button.setAttribute("aria-label", name);
  if (share !== null) button.style.setProperty("--share", share);
  button.style.backgroundColor = color ? toCss(color) : "";
  button.style.color = color ? inkOn(color) : "";
}
