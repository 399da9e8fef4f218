/**
 * A button that can be switched off without losing the focus, as `disabled` would.
 */

import { make } from "./elements.js";

/**
 * @param {string} text
 * @param {() => void} act
 * @param {object} attributes  as in `make`
 * @returns {HTMLButtonElement & {setEnabled: (isEnabled: boolean) => void}}
 */
export function makeAction(text, act, attributes = {}) {
  const button = make("button", { type: "button", onclick, ...attributes }, text);
  function onclick() {
    if (button.getAttribute("aria-disabled") !== "true") act();
  }
  button.setEnabled = (isEnabled) => button.setAttribute("aria-disabled", String(!isEnabled));
  return button;
}
