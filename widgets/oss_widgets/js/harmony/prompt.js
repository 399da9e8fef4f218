/**
 * Build a conversation from a question and its setting.
 */

import { HarmonyError } from "../errors.js";
import { quote } from "../python_text.js";
import { EFFORTS, makeDeveloperContent, makeMessage, makeSystemContent } from "./messages.js";

/**
 * A conversation: system message, developer message (if not empty), earlier turns, question.
 * @param {string} question
 * @param {{effort?: string, instructions?: string | null, date?: string | null,
 *   tools?: import("./messages.js").ToolDescription[], history?: [string, string][]}} setting
 *   `history`: earlier questions and answers
 * @returns {import("./messages.js").Message[]}
 */
export function buildPrompt(question, setting = {}) {
  const { effort = "high", instructions = null, tools = [], date = null, history = [] } = setting;
  if (!EFFORTS.includes(effort)) {
    throw new HarmonyError(`effort is ${quote(effort)}; use one of ${EFFORTS.join(", ")}`);
  }
  const system = { reasoning_effort: effort, conversation_start_date: date };
  const messages = [makeMessage("system", makeSystemContent(system))];
  if (instructions !== null || tools.length) {
    messages.push(makeMessage("developer", makeDeveloperContent(instructions, tools)));
  }
  for (const [asked, answer] of history) {
    messages.push(makeMessage("user", asked));
    messages.push(makeMessage("assistant", answer, { channel: "final" }));
  }
  return [...messages, makeMessage("user", question)];
}
