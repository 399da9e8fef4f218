/**
 * A list of experts, each a button with a bar and a number. Arrow keys move through the list.
 */

import { make, moveFocus, refill } from "../elements.js";

/** Replace an element's content; the button of an expert keeps the focus. */
export function refillBars(element, content) {
  const { activeElement } = document;
  const focused = element.contains(activeElement) ? activeElement.dataset.expert : undefined;
  refill(element, content);
  if (focused !== undefined) element.querySelector(`[data-expert="${focused}"]`)?.focus();
}

/**
 * @param {string} label
 * @param {{expert: number, share: number, text: string, name: string}[]} entries  `share` of the
 *   widest bar, 0 to 1; `name` is what a screen reader says
 * @param {number | null} selected
 * @param {(expert: number) => void} select
 */
export function makeExpertBars(label, entries, selected, select) {
  const buttons = entries.map(({ expert, share, text, name }) => {
    const bar = make("span", { class: "oss-experts-bar", style: `width: ${(share * 100).toFixed(1)}%` });
    const track = make("span", { class: "oss-experts-track" }, bar);
    const number = make("span", { class: "oss-experts-number" }, String(expert));
    const attributes = {
      type: "button",
      "aria-label": name,
      "aria-pressed": String(expert === selected),
      "data-expert": expert,
      tabindex: "-1",
      onclick: () => select(expert),
    };
    return make("button", attributes, number, track, make("span", { class: "oss-experts-value" }, text));
  });
  const first = Math.max(0, entries.findIndex(({ expert }) => expert === selected));
  if (buttons.length) buttons[first].tabIndex = 0;
  const move = (event) => {
    const to = moveFocus(event, buttons, { ArrowDown: 1, ArrowUp: -1 });
    if (to !== null) buttons.forEach((button, n) => (button.tabIndex = n === to ? 0 : -1));
  };
  const attributes = { class: "oss-experts-bars", role: "group", "aria-label": label, onkeydown: move };
  return make("div", attributes, buttons);
}
