/**
 * Pair tool calls with their outputs.
 *
 * Harmony has no call ids. An output is a message of role `tool`, with the called name as its
 * author. The nth output of a tool belongs to the nth call to it that has none. A user message ends
 * the wait: the model no longer expects an output of an earlier call.
 */

import { ROLES } from "./messages.js";

/** Whether this is the assistant's message to a tool; `assistant`, `user` and `all` are not. */
export function isCall(message) {
  const name = message.recipient;
  return message.role === "assistant" && Boolean(name) && ![...ROLES, "all"].includes(name);
}

/** Whether this message is the assistant's answer. A call on `final` is not. */
export function isFinal(message) {
  return message.role === "assistant" && message.channel === "final" && !isCall(message);
}

/**
 * All calls and outputs of a conversation, in the order of their first message.
 * @returns {{call: number | null, output: number | null}[]} indices; null if one is missing
 */
export function pairCalls(messages) {
  const found = [];
  let waiting = [];
  messages.forEach((message, index) => {
    if (message.role === "user") {
      found.push(...waiting.map((call) => ({ call, output: null })));
      waiting = [];
    } else if (isCall(message)) {
      waiting.push(index);
    } else if (message.role === "tool") {
      const call = waiting.find((each) => messages[each].recipient === message.name) ?? null;
      waiting = waiting.filter((each) => each !== call);
      found.push({ call, output: index });
    }
  });
  found.push(...waiting.map((call) => ({ call, output: null })));
  const first = ({ call, output }) => call ?? output;
  return found.sort((one, other) => first(one) - first(other));
}
