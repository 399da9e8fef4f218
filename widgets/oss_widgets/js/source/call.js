/**
 * The calls of a run as views show them, and what became of each.
 *
 * @typedef {object} Outcome
 * @property {string | null} output  null: there is none yet
 * @property {number | null} seconds  that the tool took; null if none was run
 * @property {string | null} error  a diagnosis: malformed arguments, unknown tool, the tool failed
 * @property {string[]} notes  how malformed arguments were read
 *
 * @typedef {Outcome & {name: string, arguments: string}} Call  the arguments are the model's text
 */

import { isCall } from "../harmony/exchanges.js";
import { messageText } from "../harmony/messages.js";

/** The outcome of a call whose output somebody wrote. @returns {Outcome} */
export function writeOutcome(output) {
  return { output, seconds: null, error: null, notes: [] };
}

/** @param {Outcome} [outcome] @returns {Call} */
export function describeCall(name, text, outcome = writeOutcome(null)) {
  return { name, arguments: text, ...outcome };
}

/**
 * The calls of several exchanges. The outcomes of an exchange's last calls are kept by the next one.
 * @param {{reader: import("../record/reply.js").ReplyReader, outcomes: Outcome[]}[]} exchanges
 */
export function listCalls(exchanges) {
  return exchanges.flatMap(({ reader: { parser } }, n) => {
    const open = parser.open ? [parser.open.build()] : [];
    const calls = [...parser.messages, ...open].filter(isCall);
    const outcomes = exchanges[n + 1]?.outcomes ?? [];
    const first = calls.length - outcomes.length;
    return calls.map((call, place) =>
      describeCall(call.recipient, messageText(call), outcomes[place - first]),
    );
  });
}
