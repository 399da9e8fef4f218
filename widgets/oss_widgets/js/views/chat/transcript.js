/**
 * The question and the messages of the shown run, each with the name and color of its channel. A call
 * and its output are one message that is folded into a line.
 */

import { isCall } from "../../harmony/exchanges.js";
import { make, refill } from "../elements.js";
import { alignMessages } from "./align.js";
import { makeCallItem } from "./call_item.js";
import { cutText, makeMessageText } from "./message_text.js";
import { describeMessage, describeState, promptText, questionOf } from "./run_text.js";

/** @param {import("./session.js").Session} session */
export function makeTranscript(session) {
  const question = make("div", { class: "oss-chat-asked" });
  const list = make("div", { class: "oss-chat-messages" });
  const prompt = makePrompt(session);
  const element = make("div", { class: "oss-chat-transcript" }, question, prompt.element, list);
  const items = [];

  function update() {
    const { run } = session;
    element.hidden = !run;
    if (!run) return;
    const asked = questionOf(run);
    question.hidden = !asked;
    refill(question, make("strong", {}, "question "), make("bdi", {}, asked));
    prompt.update();
    const { messages } = run;
    const needsSpans = session.scrub !== null || session.selection.token >= run.promptLength;
    const spans = needsSpans ? alignMessages(messages, run.tokens, run.promptLength) : [];
    const parts = foldCalls(messages, run.calls);
    items.splice(parts.length).forEach((item) => item.element.remove());
    parts.forEach((part, n) => {
      const makeItem = part.call ? makeCallItem : makeMessageItem;
      if (items[n]?.makeItem !== makeItem) {
        const item = { ...makeItem(session), makeItem };
        if (items[n]) items[n].element.replaceWith(item.element);
        else list.append(item.element);
        items[n] = item;
      }
      items[n].update(part, spans);
    });
  }

  return { element, update };
}

/**
 * The messages, with the output of a call as a part of it.
 * @param {object[]} messages
 * @param {import("../../source/call.js").Call[]} calls
 * @returns {{number: number, call: import("../../source/call.js").Call | null, output: number | null}[]}
 *   `number` and `output` are numbers of messages; `output` is null if the call has none yet
 */
export function foldCalls(messages, calls) {
  const parts = [];
  const waiting = [];
  let count = 0;
  messages.forEach((message, number) => {
    if (message.role === "tool" && waiting.length) {
      waiting.shift().output = number;
      return;
    }
    const part = { number, call: isCall(message) ? calls[count++] : null, output: null };
    parts.push(part);
    if (part.call && part.call.output !== null) waiting.push(part);
  });
  return parts;
}

function makePrompt(session) {
  const text = make("pre", { class: "oss-chat-prompt", tabindex: "0", "aria-label": "Prompt" });
  const summary = make("summary");
  const element = make("details", { ontoggle: update }, summary, text);

  function update() {
    const { run } = session;
    element.hidden = run.promptLength === 0; // a source without tokens
    summary.textContent = `Prompt, ${run.promptLength} tokens`;
    if (element.open) text.textContent = promptText(run);
  }
  return { element, update };
}

function makeMessageItem(session) {
  const name = make("div", { class: "oss-chat-channel" });
  const text = makeMessageText(session);
  const element = make("article", { class: "oss-chat-message" }, name, text.element);

  function update({ number }, spans) {
    const { messages } = session.run;
    const message = messages[number];
    const kept = cutText(message.text, spans[number] ?? [], session.scrub);
    element.hidden = kept === "" && session.scrub !== null;
    const label = describeMessage(message, messages);
    name.textContent = label + describeState(message, session);
    element.dataset.channel = message.channel ?? "format";
    element.setAttribute("aria-label", label);
    text.update(number, label, kept, spans[number] ?? []);
  }

  return { element, update };
}
