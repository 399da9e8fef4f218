/**
 * The question, the effort and the buttons that ask.
 */

import { LabError } from "../../errors.js";
import { EFFORTS } from "../../harmony/messages.js";
import { make, makeChoice } from "../elements.js";
import { term } from "../glossary.js";
import { makeExamples } from "./examples.js";
import { describeExpected } from "./session.js";
import { makeSettings } from "./settings.js";

/**
 * @param {import("./session.js").Session} session
 * @param {{question?: string, effort?: string, maxTokens?: number}} options
 * @param {(requests: object[]) => void} compare  asks several at once
 */
export function makeComposer(session, options, compare) {
  const settings = makeSettings(session.source, options);
  const question = make("textarea", {
    class: "oss-chat-question", rows: "2", "aria-label": "Question", dir: "auto",
    placeholder: "Write a question and press Enter",
    oninput: writeOwn, onkeydown: askOnEnter,
  });
  question.value = options.question ?? "";
  session.home = question;
  const choices = EFFORTS.map((value) => ({ value, text: value }));
  const effort = makeChoice("Reasoning effort", choices, options.effort ?? "high", changeEffort);
  const askButton = make("button", { type: "button", class: "oss-chat-ask", onclick: ask }, "Ask");
  const compareButton = make("button", { type: "button", onclick: compareEfforts }, "Compare efforts");
  const examples = makeExamples(session.source.examples, (example) => {
    if (example) fill(example);
    const isRunHere = example?.tools?.every(({ name }) => name === session.source.calculator?.name);
    settings.use(example && { ...example, toolOutputs: isRunHere ? {} : example.tool_outputs });
  });
  let followed = null; // the shown run whose question was last put into the box

  function fill(request) {
    question.value = request.question;
    effort.mark(request.effort);
  }

  function readRequest(chosen = effort.value) {
    const interventions = session.run?.interventions ?? [];
    return { question: question.value, effort: chosen, ...settings.read(), interventions };
  }

  function refuseEmpty() {
    if (question.value.trim()) return false;
    session.frame.fail(new LabError("There is no question: write one and press Enter."));
    question.focus();
    return true;
  }

  function ask() {
    if (!refuseEmpty()) session.ask(readRequest());
  }

  function compareEfforts() {
    if (!refuseEmpty()) compare(EFFORTS.map((each) => readRequest(each)));
  }

  function askOnEnter(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  }

  /** A question that is already asked is asked again; a draft waits for Enter. */
  function changeEffort() {
    if (session.run?.request?.question === question.value) ask();
    update();
  }

  /** The setting of an example or of an earlier run belongs to its question only. */
  function writeOwn() {
    if (settings.use(null)) examples.forget();
  }

  /** Another run is shown: take over its question, unless somebody is writing one. */
  function followShownRun() {
    const { run } = session;
    if (!run?.request || run === followed) return;
    const isDraft = question.value.trim() && question.value !== followed?.request.question;
    followed = run;
    const isOther = question.value !== run.request.question;
    if (isDraft && isOther) return;
    fill(run.request);
    if (!isOther) return;
    examples.clear();
    settings.use(run.request);
  }

  function update() {
    followShownRun();
    askButton.textContent = `Ask${describeExpected(session.expected[effort.value])}`;
    const sum = EFFORTS.reduce((total, each) => total + session.expected[each], 0);
    compareButton.textContent = `Compare efforts${describeExpected(sum)}`;
  }

  const label = term("effort", "Effort");
  const row = make("div", { class: "oss-chat-row" }, label, effort, askButton, compareButton);
  const element = make(
    "div", { class: "oss-chat-composer" }, question, row, examples.element, settings.element,
  ); // prettier-ignore
  return { element, update, read: () => ({ question: question.value, effort: effort.value }) };
}
