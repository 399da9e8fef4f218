/**
 * A call of a tool and its output in the transcript: one line, which opens to everything about it.
 *
 * All of it is text that a model or a tool wrote, so it is set as text, and isolated from the
 * direction of the text around it.
 */

import { make, refill } from "../elements.js";
import { cutText, makeMessageText } from "./message_text.js";
import { describeMessage, describeMilliseconds, describeState } from "./run_text.js";

const LONGEST = 40; // characters of the arguments and of the output in the line

/** @param {import("./session.js").Session} session */
export function makeCallItem(session) {
  const title = make("span", { class: "oss-chat-channel" });
  const short = make("bdi");
  const result = make("span");
  const summary = make("summary", {}, title, " ", short, result);
  const pretty = make("pre", {
    class: "oss-chat-json", tabindex: "0", role: "group", "aria-label": "Arguments",
  });
  const prettyPart = make("div", {}, makeTitle("Arguments"), pretty);
  const writtenTitle = makeTitle("");
  const written = makeMessageText(session);
  const output = makeMessageText(session);
  // An output that is not a message yet, since another call of the reply has none.
  const early = make("div", {
    class: "oss-chat-text", dir: "auto", tabindex: "0", role: "group", "aria-label": "Output",
  });
  const outputPart = make("div", {}, makeTitle("Output"), output.element, early);
  const facts = make("div", { class: "oss-chat-facts" });
  const parts = [prettyPart, writtenTitle, written.element, outputPart, facts];
  const details = make("details", {}, summary, parts);
  const element = make("article", { class: "oss-chat-message oss-chat-call" }, details);
  let drawn = null;
  let selected = null;

  function update({ number, call, output: place }, spans) {
    const { run, scrub, job } = session;
    const [message, spansOf] = [run.messages[number], (n) => spans[n] ?? []];
    const kept = cutText(message.text, spansOf(number), scrub);
    const text = place === null ? call.output : cutText(run.messages[place].text, spansOf(place), scrub);
    const isLater = place !== null && text === "" && scrub !== null; // than the scrub position
    const label = describeMessage(message, run.messages);
    const state = describeState(message, session);
    element.hidden = kept === "" && scrub !== null;
    written.update(number, label, kept, spansOf(number));
    if (place !== null) output.update(place, `output of ${call.name}`, text, spansOf(place));
    openIfSelected([...spansOf(number), ...spansOf(place)]);
    const seen = { label, state, kept, text: isLater ? null : text };
    const waits = message.isOpen || isLater ? "" : job ? ": running" : ": no output";
    const drawing = { ...call, ...seen, waits, place, channel: message.channel };
    const key = JSON.stringify(drawing);
    if (key !== drawn) draw(drawing);
    drawn = key;
  }

  function draw({ label, state, kept, text, waits, place, channel, ...call }) {
    element.dataset.channel = channel ?? "format";
    element.setAttribute("aria-label", label);
    title.textContent = label + state;
    short.textContent = shorten(describeArguments(kept));
    pretty.textContent = writePretty(kept);
    prettyPart.hidden = pretty.textContent === kept;
    writtenTitle.textContent = prettyPart.hidden ? "Arguments" : "Arguments as written";
    outputPart.hidden = text === null;
    facts.hidden = text === null;
    output.element.hidden = place === null;
    early.hidden = place !== null;
    early.textContent = place === null ? text : "";
    const known = () => [" → ", make("bdi", {}, shorten(text)), ...describeOutcome(call)];
    refill(result, ...(text === null ? [waits] : known()));
    refill(facts, ...listFacts(call).map((fact) => make("div", {}, fact)));
  }

  /** A token of the call was selected, perhaps in another view: show where it is. */
  function openIfSelected(spans) {
    const { token } = session.selection;
    if (token !== selected && spans.some((span) => span.token === token)) details.open = true;
    selected = token;
  }

  return { element, update };
}

function makeTitle(text) {
  return make("div", { class: "oss-chat-part" }, text);
}

/** The time that the tool took, and what went wrong; what is not known is left out. */
function describeOutcome({ seconds, error }) {
  const time = seconds === null ? [] : [", ", describeMilliseconds(seconds)];
  return error ? [...time, ", ", make("strong", { class: "oss-error" }, error)] : time;
}

function listFacts({ seconds, error, notes }) {
  const time = seconds === null ? [] : [`Took ${describeMilliseconds(seconds)}`];
  const diagnosis = error ? [make("strong", { class: "oss-error" }, error)] : [];
  return [...time, ...diagnosis, ...notes.map((note) => make("bdi", {}, note))];
}

/** JSON with a line for each field; other text unchanged. */
function writePretty(text) {
  const value = readJson(text);
  return value === undefined ? text : JSON.stringify(value, null, 2);
}

/** The only value of an object, or its fields; other text unchanged. */
function describeArguments(text) {
  const fields = readJson(text);
  if (fields === null || typeof fields !== "object" || Array.isArray(fields)) return text;
  const parts = Object.entries(fields).map(([name, value]) => [name, writeValue(value)]);
  return parts.length === 1 ? parts[0][1] : parts.map((part) => part.join(": ")).join(", ");
}

/**
 * The value of JSON; undefined for other text, and where writing the value again would change it, as
 * that of an integer with 20 digits or of a repeated name.
 */
function readJson(text) {
  try {
    const value = JSON.parse(text);
    const compact = text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");
    return JSON.stringify(value) === compact ? value : undefined;
  } catch {
    return undefined;
  }
}

function writeValue(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function shorten(text) {
  const characters = Array.from(text.replace(/\s+/g, " ").trim());
  const isLong = characters.length > LONGEST;
  return isLong ? `${characters.slice(0, LONGEST - 1).join("")}…` : characters.join("");
}
