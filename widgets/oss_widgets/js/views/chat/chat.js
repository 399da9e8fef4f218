/**
 * Chat: ask a question at an effort, watch the reply by channel, stop it, change it, compare.
 */

import { make } from "../elements.js";
import { makeFrame } from "../frame.js";
import { makeCalls } from "./calls.js";
import { makeComparison } from "./comparison.js";
import { makeComposer } from "./composer.js";
import { makeDiagnostics } from "./diagnostics.js";
import { makeExports } from "./exports.js";
import { makeIntervene } from "./intervene.js";
import { makePosition } from "./position.js";
import { makeRunControls } from "./run_controls.js";
import { makeRunList } from "./run_list.js";
import { countTokens, questionOf } from "./run_text.js";
import { Session } from "./session.js";
import { makeTranscript } from "./transcript.js";

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @param {{question?: string, effort?: "low" | "medium" | "high", maxTokens?: number,
 *   run?: import("../../source/source.js").Run}} options  what the controls show at first
 * @returns {import("../frame.js").View}
 */
export function showChat(element, source, selection, options = {}) {
  const frame = makeFrame(element, "chat", "Chat");
  const spoken = make("div", { class: "oss-spoken", role: "status" });
  const session = new Session(source, selection, frame, options.run ?? null, (text) => {
    spoken.textContent = text;
  });
  const comparison = makeComparison(session);
  const composer = makeComposer(session, options, comparison.compare);
  const intervene = makeIntervene(session);
  const below = [
    makeRunControls(session),
    comparison,
    makeTranscript(session),
    makeCalls(session),
    makeDiagnostics(session),
    makePosition(session),
    intervene,
    makeRunList(session),
    makeExports(session),
  ];
  session.parts = [composer, ...below, { update: updateState }];
  if (source.can.has("ask")) frame.controls.append(composer.element);
  frame.controls.hidden = !source.can.has("ask");
  frame.body.append(...below.map((part) => part.element), spoken);
  for (const part of session.parts) part.update();

  function updateState() {
    frame.root.setAttribute("aria-busy", String(session.job !== null));
    const empty = source.can.has("ask") ? ". Ask a question." : ". No run is shown.";
    frame.say(`${source.name}${session.run ? "" : empty}`);
  }

  const stops = [
    ...["tokens", "runs"].map((change) => source.on(change, () => session.changed())),
    source.on("shown", () => session.showAll()),
    selection.on((changed) => {
      intervene.followSelection(changed);
      session.changed();
    }),
  ];

  function data() {
    const { run } = session;
    if (!run) return { ...composer.read(), messages: [], calls: [], answer: "", tokens: {}, seconds: 0 };
    const { messages, calls, answer, seconds, request } = run;
    const asked = { question: questionOf(run), effort: request?.effort ?? null };
    return { ...asked, messages, calls, answer, tokens: countTokens(run), seconds };
  }

  function close() {
    session.close();
    for (const stop of stops) stop();
    frame.close();
  }

  return { close, data, toSvg: () => null };
}
