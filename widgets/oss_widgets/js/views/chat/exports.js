/**
 * Copy the Python that reproduces a run, and save the transcript as a text file.
 */

import { make } from "../elements.js";
import { saveFile } from "../save.js";
import { makeAction } from "../action.js";
import { writeTranscript } from "./run_text.js";

/** @param {import("./session.js").Session} session */
export function makeExports(session) {
  const copy = makeAction("Copy Python", copyPython);
  const save = make("button", { type: "button", onclick: saveText }, "Save text");
  const note = make("span", { role: "status" });
  const code = make("textarea", { class: "oss-chat-code", readonly: true, rows: 8, "aria-label": "Python" });
  const element = make("div", {}, make("div", { class: "oss-chat-row" }, copy, save, note), code);
  code.hidden = true;

  async function copyPython() {
    try {
      await copyText(await session.source.toPython(session.run));
    } catch (problem) {
      session.frame.fail(problem);
    }
  }

  /** A page may not be allowed to use the clipboard; then the code is shown, selected. */
  async function copyText(text) {
    code.value = text;
    code.hidden = true;
    try {
      await navigator.clipboard.writeText(text);
      note.textContent = "Copied.";
    } catch {
      code.hidden = false;
      code.focus();
      code.select();
      note.textContent = "The browser refused the clipboard; the code is selected, copy it from here.";
    }
  }

  function saveText() {
    saveFile("chat.txt", writeTranscript(session.run), "text/plain");
  }

  function update() {
    element.hidden = !session.run;
    copy.setEnabled(session.job === null);
  }

  return { element, update };
}
