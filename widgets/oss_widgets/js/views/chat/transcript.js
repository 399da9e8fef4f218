/**
 * The question and the messages of the shown run, each with the name and color of its channel.
 *
 * The text of a message is one run of text. The selected token is outlined in it; a click or the
 * arrow keys select one.
 */

import { make, refill } from "../elements.js";
import { alignMessages } from "./align.js";
import { describeMessage, promptText, questionOf } from "./run_text.js";

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
    while (items.length < messages.length) items.push(makeMessageItem(session, items.length));
    while (items.length > messages.length) items.pop().element.remove();
    items.forEach((item, n) => {
      if (!item.element.isConnected) list.append(item.element);
      item.update(messages, spans[n] ?? []);
    });
  }

  return { element, update };
}

function makePrompt(session) {
  const text = make("pre", { class: "oss-chat-prompt", tabindex: "0", "aria-label": "Prompt" });
  const summary = make("summary");
  const element = make("details", { ontoggle: update }, summary, text);

  function update() {
    const { run } = session;
    summary.textContent = `Prompt, ${run.promptLength} tokens`;
    if (element.open) text.textContent = promptText(run);
  }
  return { element, update };
}

function makeMessageItem(session, number) {
  const name = make("div", { class: "oss-chat-channel" });
  const text = make("div", {
    class: "oss-chat-text", tabindex: "0", role: "group", dir: "auto", onclick: pick, onkeydown: move,
  });
  const element = make("article", { class: "oss-chat-message" }, name, text);
  let drawn = null;

  function update(messages, spans) {
    const message = messages[number];
    const kept = cutText(message.text, spans, session.scrub);
    element.hidden = kept === "" && session.scrub !== null;
    const label = describeMessage(message, messages);
    const state = !message.isOpen ? "" : session.job ? " (being written)" : " (not finished)";
    const channel = message.channel ?? "format";
    const selected = spans.find(({ token, end }) => token === session.selection.token && end <= kept.length);
    const key = JSON.stringify([label, state, channel, kept, selected]);
    if (key === drawn) return;
    drawn = key;
    name.textContent = label + state;
    element.dataset.channel = channel;
    element.setAttribute("aria-label", label);
    text.setAttribute("aria-label", `${label}; the arrow keys select a token`);
    const isAtEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
    drawText(text, kept, selected);
    if (message.isOpen && isAtEnd) text.scrollTop = text.scrollHeight;
  }

  function findSpans() {
    const { run } = session;
    return alignMessages(run.messages, run.tokens, run.promptLength)[number];
  }

  function pick(event) {
    if (!getSelection().isCollapsed) return; // somebody selects text
    const offset = findOffset(text, event.clientX, event.clientY);
    const span = findSpans().find(({ start, end }) => start <= offset && offset < end);
    if (span) session.selection.set({ token: span.token });
  }

  function move(event) {
    const spans = findSpans();
    const now = spans.findIndex(({ token }) => token === session.selection.token);
    const goal = {
      ArrowRight: now + 1, ArrowLeft: now < 0 ? spans.length - 1 : now - 1, Home: 0, End: spans.length - 1,
    }[event.key];
    if (goal === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (spans[goal]) session.selection.set({ token: spans[goal].token });
  }

  return { element, update };
}

/** The text up to and including a token. */
function cutText(text, spans, scrub) {
  if (scrub === null) return text;
  const last = spans.findLast(({ token }) => token <= scrub);
  return last ? text.slice(0, last.end) : "";
}

function drawText(element, text, selected) {
  if (!selected) {
    element.textContent = text;
    return;
  }
  const mark = make("mark", { class: "oss-chat-token" }, text.slice(selected.start, selected.end));
  refill(element, text.slice(0, selected.start), mark, text.slice(selected.end));
  const top = mark.offsetTop - element.offsetTop;
  const bottom = top + mark.offsetHeight;
  const { scrollTop, clientHeight } = element;
  const isVisible = scrollTop <= top && bottom <= scrollTop + clientHeight;
  if (!isVisible) element.scrollTop = top - clientHeight / 2;
}

/** The number of the character at a point of the page. */
function findOffset(element, x, y) {
  const range = document.createRange();
  const place = document.caretPositionFromPoint?.(x, y);
  const caret = place ? null : document.caretRangeFromPoint(x, y);
  const [node, offset] = place ? [place.offsetNode, place.offset] : [caret.startContainer, caret.startOffset];
  range.setStart(element, 0);
  range.setEnd(node, offset);
  const before = range.toString().length;
  if (offset === 0 || node.nodeType !== Node.TEXT_NODE) return before;
  range.setStart(node, offset - 1);
  const { left, right } = range.getBoundingClientRect();
  return left <= x && x < right ? before - 1 : before; // a caret is at the nearest edge of a character
}
