/**
 * What is wrong with the format of a reply, with a link to the token.
 */

import { make, refill } from "../elements.js";

/** @param {import("./session.js").Session} session */
export function makeDiagnostics(session) {
  const list = make("ul");
  const element = make(
    "section", { class: "oss-chat-diagnostics", "aria-label": "Diagnostics" },
    make("h4", {}, "Diagnostics"), list,
  ); // prettier-ignore
  let drawn = "[]";

  function update() {
    const diagnostics = session.run?.diagnostics ?? [];
    element.hidden = diagnostics.length === 0;
    const key = JSON.stringify([session.run?.id, diagnostics]);
    if (key === drawn) return;
    drawn = key;
    refill(list, ...diagnostics.map(makeItem));
  }

  function makeItem({ code, sentence, token }) {
    const select = () => session.selection.set({ token });
    const button = make("button", { type: "button", onclick: select }, `token ${token}`);
    return make("li", {}, make("code", {}, code), " ", make("bdi", {}, sentence), " ", button);
  }

  return { element, update };
}
