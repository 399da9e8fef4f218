/**
 * Which earlier reasoning is left out of a rendering: four named policies.
 *
 * The chain of thought of a finished turn is not shown to the model again. OpenAI's guide (`spec`),
 * its library (`library`) and Hugging Face's chat template (`hf`) disagree about when a turn is
 * finished. `keep` drops nothing. A policy only removes messages on the analysis channel.
 */

import { HarmonyError } from "../errors.js";
import { quote } from "../python_text.js";
import { isCall, isFinal, pairCalls } from "./exchanges.js";

export const MODES = ["completion", "conversation", "training", "message"];
const BUILT_IN = ["python", "browser"];

/** If the last answer is final, everything on analysis before the first final is dropped. */
function findForLibrary(messages) {
  const last = messages.findLast((message) => message.role === "assistant");
  if (last?.channel !== "final") return [];
  const first = messages.findIndex((message) => message.channel === "final");
  return listAnalysis(messages.slice(0, first));
}

/**
 * Everything on analysis before the last final answer is dropped, but a call to a function stays
 * together with its output. In training, the last turn is the target and counts as open.
 */
function findForSpec(messages, mode) {
  const end = mode === "training" ? findTurnStart(messages, messages.length) : messages.length;
  const last = Math.max(messages.slice(0, end).findLastIndex(isFinal), 0);
  const kept = pairCalls(messages)
    .filter((exchange) => !isInsideReasoning(messages, exchange, last))
    .flatMap(({ call, output }) => [call, output]);
  return listAnalysis(messages.slice(0, last)).filter((index) => !kept.includes(index));
}

/** Reasoning is kept before a call without an answer after it, and before the last answer. */
function findForTemplate(messages, mode) {
  return listAnalysis(messages).filter((index) => {
    const message = messages[index];
    if (message.role !== "assistant" || isCall(message)) return false;
    return !isShownByTemplate(messages, index, mode);
  });
}

const POLICIES = {
  library: findForLibrary,
  spec: findForSpec,
  keep: () => [],
  hf: findForTemplate,
};

/** Indices of the messages that a policy leaves out; a single message is never dropped. */
export function findDroppedMessages(messages, policy, mode) {
  if (!Object.hasOwn(POLICIES, policy)) {
    const names = Object.keys(POLICIES).join(", ");
    throw new HarmonyError(`unknown policy ${quote(policy)}; use one of ${names}`);
  }
  return mode === "message" ? [] : POLICIES[policy](messages, mode);
}

/** Index at which the turn of message `index` starts: after the last input to the model. */
function findTurnStart(messages, index) {
  let start = index;
  while (start > 0 && ["assistant", "tool"].includes(messages[start - 1].role)) start -= 1;
  return start;
}

function listAnalysis(messages) {
  return messages.flatMap((message, index) => (message.channel === "analysis" ? [index] : []));
}

/** Whether a built-in tool was called and answered on the analysis channel, before `end`. */
function isInsideReasoning(messages, { call, output }, end) {
  const found = [call, output].filter((index) => index !== null);
  const message = messages[found[0]];
  const name = message.role === "assistant" ? message.recipient : message.name;
  const isInside = found.every((n) => n < end && messages[n].channel === "analysis");
  return BUILT_IN.includes((name ?? "").split(".")[0]) && isInside;
}

/** Whether the template prints the reasoning at `index`. It does so in only two places. */
function isShownByTemplate(messages, index, mode) {
  for (let n = index + 1; n < messages.length; n++) {
    if (messages[n].role !== "assistant") return false;
    if (isCall(messages[n])) return !messages.slice(n + 1).some(isFinal);
    if (isFinal(messages[n])) return n === messages.length - 1 && mode !== "completion";
  }
  return false;
}
