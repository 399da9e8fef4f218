/**
 * The gallery: questions that show what nano can do, and the outputs of the tools they need.
 *
 * The examples are data that Python writes (oss_widgets/page/gallery_data.py), so both ask the same.
 */

import { buildPrompt } from "../harmony/prompt.js";
import { messageText } from "../harmony/messages.js";
import { findOpenCalls } from "../record/reply.js";

/**
 * @typedef {{name: string, question: string, effort: string, answer: string, shows: string,
 *   instructions: string | null, tools: import("../harmony/messages.js").ToolDescription[],
 *   tool_outputs: Object<string, string>, history: [string, string][], reached: boolean}} Example
 */

/** All messages before the reply to an example. @param {Example} example */
export function buildExamplePrompt(example, effort = example.effort) {
  const { question, instructions, tools, history } = example;
  return buildPrompt(question, { effort, instructions, tools, history });
}

/** The output of each open call of a reply; null if the example does not have one of them. */
export function findOutputs(example, reply) {
  const outputs = findOpenCalls(reply).map((call) => example.tool_outputs[messageText(call)]);
  return outputs.every((output) => output !== undefined) ? outputs : null;
}
