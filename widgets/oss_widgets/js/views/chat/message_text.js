/**
 * The text of one message, as one run of text. The selected token is outlined in it; a click or the
 * arrow keys select one.
 */

import { make, refill } from "../elements.js";
import { alignMessages } from "./align.js";

/** @param {import("./session.js").Session} session */
export function makeMessageText(session) {
  const element = make("div", {
    class: "oss-chat-text", tabindex: "0", role: "group", dir: "auto", onclick: pick, onkeydown: move,
  });
  let number = 0;
  let drawn = null;

  /**
   * @param {number} shown  number of the message
   * @param {string} label
   * @param {string} text  what is shown of it
   * @param {import("./align.js").Span[]} spans  of its tokens, if one of them may be selected
   */
  function update(shown, label, text, spans) {
    number = shown;
    const selected = spans.find(({ token, end }) => token === session.selection.token && end <= text.length);
    const key = JSON.stringify([label, text, selected]);
    if (key === drawn) return;
    drawn = key;
    element.setAttribute("aria-label", `${label}; the arrow keys select a token`);
    const isAtEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 4;
    drawText(element, text, selected);
    if (session.run.messages[number].isOpen && isAtEnd) element.scrollTop = element.scrollHeight;
  }

  function findSpans() {
    const { run } = session;
    return alignMessages(run.messages, run.tokens, run.promptLength)[number];
  }

  function pick(event) {
    if (!getSelection().isCollapsed) return; // somebody selects text
    const offset = findOffset(element, event.clientX, event.clientY);
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
export function cutText(text, spans, scrub) {
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
