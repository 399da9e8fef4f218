/**
 * Go back in a reply: a slider over its tokens, the token at that place, and what can be done there.
 */

import { LabError } from "../../errors.js";
import { make, refill } from "../elements.js";
import { probability } from "../numbers.js";
import { readableText } from "../token_bytes.js";
import { makeAction } from "../action.js";

/** @param {import("./session.js").Session} session */
export function makePosition(session) {
  const range = make("input", { type: "range", step: "1", oninput: scrub });
  const label = make("label", { class: "oss-chat-wide" }, "Go back to token", range);
  const facts = make("div", { class: "oss-chat-token-facts" });
  const all = make("button", { type: "button", onclick: showAll }, "Show the whole reply");
  const proceed = makeAction("Continue from here", () => session.fork(session.run, session.place + 1));
  const alternatives = make("div", { class: "oss-chat-row" });
  const other = make("input", { type: "text", dir: "auto", onkeydown: replaceOnEnter });
  const replace = make("button", { type: "button", onclick: replaceByText }, "Replace");
  const edit = make(
    "div", { role: "group", "aria-label": "Edit this token" },
    alternatives,
    make("div", { class: "oss-chat-row" }, make("label", {}, "Other text", other), replace),
  ); // prettier-ignore
  const element = make(
    "section", { class: "oss-chat-position", "aria-label": "Go back and edit" },
    label, facts, make("div", { class: "oss-chat-row" }, all, proceed), edit,
  ); // prettier-ignore
  let drawn = null;

  function scrub() {
    const at = Number(range.value);
    const { run } = session;
    session.scrub = at === run.tokens.length - 1 ? null : at;
    session.selection.set({ token: at });
    session.changed();
  }

  function showAll() {
    session.showAll();
    range.focus();
  }

  function replaceByText() {
    if (other.value) return replaceBy({ text: other.value });
    session.frame.fail(new LabError("There is no text: write what replaces the token."));
  }

  function replaceOnEnter(event) {
    if (event.key === "Enter" && !event.isComposing) replaceByText();
  }

  function replaceBy(change) {
    other.value = "";
    range.focus(); // the buttons of this token go away
    session.fork(session.run, session.place, change);
  }

  function update() {
    const { run } = session;
    element.hidden = !run || run.tokens.length === run.promptLength;
    if (element.hidden) return;
    const at = session.place;
    const last = run.tokens.length - 1;
    const canFork = session.source.can.has("fork");
    range.min = run.promptLength;
    range.max = last;
    range.value = at;
    range.setAttribute("aria-valuetext", `token ${at}, the last is ${last}: ${readableText(run.tokens[at].text)}`);
    all.hidden = session.scrub === null;
    proceed.hidden = !canFork;
    proceed.setEnabled(session.job === null && at < last);
    edit.hidden = !canFork || session.job !== null;
    const key = `${run.id} ${at} ${last}`;
    if (key === drawn) return;
    drawn = key;
    refill(facts, ...describeToken(run, at));
    const { id, alternatives: likeliest } = run.tokens[at];
    alternatives.hidden = !canFork || likeliest.length === 0; // none are known of a token that was given
    refill(alternatives, "Replace with", ...likeliest.map((each) => makeAlternative(each, id)));
  }

  function makeAlternative({ id, text, logprob }, own) {
    const isOwn = id === own;
    const label = `${isOwn ? "Keeps" : "Replace with"} ${text}, ${probability(logprob)}`;
    return make(
      "button",
      {
        type: "button", "aria-label": label, disabled: isOwn, onclick: () => replaceBy({ ids: [id] }),
      },
      showToken(text), ` ${probability(logprob)}`,
    ); // prettier-ignore
  }

  return { element, update };
}

function describeToken({ tokens }, at) {
  const { text, channel, part, logprob } = tokens[at];
  const where = part === "content" ? (channel ?? "no channel") : "format";
  const chance = logprob === null ? "probability not known" : `probability ${probability(logprob)}`;
  return [`Token ${at} (the last is ${tokens.length - 1}): `, showToken(text), ` (${where}, ${chance})`];
}

function showToken(text) {
  return make("bdi", { class: "oss-token-text" }, readableText(text));
}
