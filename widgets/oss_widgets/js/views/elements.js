/**
 * Makes elements. All text is set as text, never as markup, so a token that reads `<img …>` is
 * shown as these characters.
 */

import { makeVisible } from "./visible.js";

const SVG = "http://www.w3.org/2000/svg"; // an XML namespace; nothing is fetched

/**
 * make("button", { class: "oss-x", onclick: f, "aria-label": "Close" }, "×", child)
 * A function becomes a listener; true an empty attribute; null, undefined and false are left out.
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. @returns {SVGElement} */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace an element's children. */
export function refill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null));
}

/** The text of a token: isolated, so that Arabic does not reorder the text around it. */
export function tokenText(text) {
  return make("bdi", { class: "oss-token-text" }, makeVisible(text));
}

/**
 * A table with a caption; `rows` are lists of texts, the first of each is the row's header.
 * @param {string[]} heads
 * @param {(string | Node)[][]} rows
 */
export function makeTable(caption, heads, rows) {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), rest.map((cell) => make("td", {}, cell))),
  );
  return make(
    "div",
    { class: "oss-table", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, body)),
  );
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/**
 * Moves the focus among buttons if an arrow key was pressed; after the last comes the first.
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} buttons
 * @param {Record<string, number>} steps  by key
 * @returns {number | null}  number of the button that has the focus now; null for another key
 */
export function moveFocus(event, buttons, steps = STEPS) {
  const from = buttons.indexOf(event.target.closest("button"));
  if (from < 0 || !(event.key in steps)) return null;
  event.preventDefault();
  const to = (from + steps[event.key] + buttons.length) % buttons.length;
  buttons[to].focus();
  return to;
}

/**
 * Buttons of which one is pressed, moved through with the arrow keys (a radio group).
 * @param {string} label
 * @param {{value: string, text: string, hint?: string}[]} choices
 * @param {(value: string) => void} choose
 * @returns {HTMLElement & {value: string}}
 */
export function makeChoice(label, choices, value, choose) {
  const group = make("div", { class: "oss-choice", role: "radiogroup", "aria-label": label });
  const buttons = choices.map(({ value: own, text, hint }) =>
    make("button", { type: "button", role: "radio", title: hint, "data-value": own }, text),
  );
  const mark = (chosen) => {
    group.value = chosen;
    for (const button of buttons) {
      const isChosen = button.dataset.value === chosen;
      button.setAttribute("aria-checked", isChosen);
      button.tabIndex = isChosen ? 0 : -1;
    }
  };
  const take = (button) => {
    if (button.dataset.value === group.value) return;
    mark(button.dataset.value);
    choose(group.value);
  };
  for (const button of buttons) button.addEventListener("click", () => take(button));
  group.addEventListener("keydown", (event) => {
    const to = moveFocus(event, buttons);
    if (to !== null) take(buttons[to]);
  });
  group.append(...buttons);
  group.mark = mark; // shows another value without calling `choose`
  mark(value);
  return group;
}
