/**
 * What all views share: a heading, one sentence about what is drawn, controls, a place for the
 * picture, the same as a table, and a button that saves it.
 *
 * A view is a function `showX(element, source, selection, options) -> View`. It reads `source` and
 * `selection`, listens to both, and stops listening in `close`.
 *
 * @typedef {object} View
 * @property {() => void} close
 * @property {() => object} data  what is drawn: plain numbers, lists and texts
 * @property {() => string | null} toSvg
 */

import { LabError } from "../errors.js";
import { make, refill } from "./elements.js";
import { saveFile } from "./save.js";

/**
 * @param {HTMLElement} element
 * @param {string} name  of the view, for classes and file names, such as "experts"
 * @param {string} title
 */
export function makeFrame(element, name, title) {
  const heading = make("h3", { class: "oss-title" }, title);
  const sentence = make("p", { class: "oss-sentence" });
  const controls = make("div", { class: "oss-controls" });
  const body = make("div", { class: "oss-body" });
  const status = make("div", { class: "oss-status", role: "status" });
  const error = make("div", { class: "oss-error", role: "alert" });
  const table = make("details", { class: "oss-as-table" }, make("summary", {}, "As a table"));
  const root = make(
    "section",
    { class: `oss-view oss-${name}`, "aria-label": title },
    heading, sentence, controls, error, body, status, table,
  ); // prettier-ignore
  table.hidden = true;
  element.append(root);
  let makeRows = null;
  const fillTable = () => {
    if (table.open && makeRows) refill(table, table.firstChild, makeRows());
  };
  table.addEventListener("toggle", fillTable);
  const report = (text) => (status.textContent = text);
  return {
    root,
    controls,
    body,
    /** One sentence about what is drawn. */
    say: (text) => (sentence.textContent = text),
    /** A sentence with terms in it, under the title. */
    explain: (...parts) => heading.after(make("p", { class: "oss-sentence" }, parts)),
    /** What is going on; a screen reader hears it. */
    report,
    /** Shows a mistake as its sentence; throws anything that is a bug. Call it in `catch`. */
    fail: (problem) => {
      if (!(problem instanceof LabError)) throw problem;
      error.textContent = problem.message;
    },
    clearError: () => (error.textContent = ""),
    /** `make()` returns the table; it is called when somebody opens it. */
    setTable: (call) => {
      makeRows = call;
      table.hidden = false;
      fillTable();
    },
    /** Adds a button that saves the picture. `toSvg` returns SVG text, or null if there is none yet. */
    addExport: (toSvg) => {
      const save = () => {
        const svg = toSvg();
        if (svg === null) status.textContent = "There is nothing to save yet.";
        else saveFile(`${name}.svg`, svg, "image/svg+xml");
      };
      const attributes = { type: "button", class: "oss-save", onclick: save };
      controls.append(make("button", attributes, "Save SVG"));
    },
    close: () => root.remove(),
  };
}
