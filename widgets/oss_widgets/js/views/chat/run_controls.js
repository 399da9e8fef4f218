/**
 * Pause, resume, step and cancel; what the run has so far.
 */

import { make } from "../elements.js";
import { term } from "../glossary.js";
import { describeIntervention, describeStop } from "../run_names.js";
import { makeAction } from "../action.js";
import { countTokens, describeCounts, describeSeconds, describeTime } from "./run_text.js";
import { describeExpected } from "./session.js";

/** @param {import("./session.js").Session} session */
export function makeRunControls(session) {
  const pause = makeAction("Pause", () => (session.job ? session.stop() : session.resume()));
  const step = makeAction("Step one token", () => session.resume(1));
  const cancel = makeAction("Cancel", () => session.stop(true));
  const accept = makeAction("", () => {
    session.offer?.decide(true);
    pause.focus();
  });
  const sentence = make("span");
  const offer = make(
    "div", { class: "oss-chat-offer", role: "group", "aria-label": "A long reply" }, sentence, accept,
  ); // prettier-ignore
  const counts = make("span");
  const state = make("span");
  const channels = make("span", {}, " ", term("channel", "By channel"), counts);
  const facts = make("div", { class: "oss-chat-facts" }, state, channels);
  const row = make("div", { class: "oss-chat-row" }, pause, step, cancel);
  const element = make("div", {}, row, offer, facts);
  let offered = null;

  function update() {
    const { run, job, remaining } = session;
    const isUnfinished = run?.stop === null;
    const canResume = isUnfinished && run.openCalls.length === 0;
    row.hidden = !session.source.can.has("ask") || !(job || run);
    pause.setEnabled(job ? !session.offer && !job.abort.signal.aborted : canResume);
    const seconds = remaining?.run === run ? remaining?.seconds : 0;
    pause.textContent = job ? "Pause" : `Resume${describeExpected(seconds)}`;
    step.setEnabled(job === null && canResume);
    pause.hidden = step.hidden = !session.source.can.has("fork"); // it cannot continue a reply
    cancel.setEnabled(job !== null);
    updateOffer();
    facts.hidden = !run;
    if (!run) return;
    const isWritten = job && isUnfinished && !session.offer;
    channels.hidden = run.tokens.length === run.promptLength;
    const isEmpty = channels.hidden && run.messages.length === 0;
    const ending = isWritten ? "being written" : isEmpty ? "no reply" : describeStop(run);
    const changes = run.interventions.map((each) => `, with ${describeIntervention(each)}`).join("");
    const notes = [run.missing, run.note].filter(Boolean).map((note) => ` ${note}`).join("");
    state.textContent = `${run.id}: ${ending}${describeTime(run)}${changes}.${notes}`;
    counts.textContent = `: ${describeCounts(countTokens(run))}.`;
  }

  function updateOffer() {
    offer.hidden = session.offer === null;
    if (session.offer === offered) return;
    offered = session.offer;
    if (!offered) return;
    const text = describeSeconds(offered.seconds);
    sentence.textContent = `This reply takes about ${text} on this model.`;
    accept.textContent = `Generate (about ${text})`;
    session.announce(sentence.textContent);
    accept.focus();
  }

  return { element, update };
}
