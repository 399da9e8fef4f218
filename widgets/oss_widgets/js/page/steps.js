/**
 * The steps of the guided path. Each is completed by doing the thing, so each has a watcher: a
 * function that is called with what happens while the step is shown, and returns whether it is
 * done.
 *
 * @typedef {{kind: "finished", run: import("../source/source.js").Run} | {kind: "selected"}
 *   | {kind: "analyzed", name: string}} Happening
 *
 * @typedef {object} Step
 * @property {string} title
 * @property {string[]} views  open while the step is shown, the one with the task last; the step
 *   needs all of them
 * @property {(config: object) => (string | Node)[]} text
 * @property {string} task  what to do
 * @property {() => (happening: Happening, source: import("../source/source.js").Source,
 *   selection: import("../views/selection.js").Selection) => boolean} watch
 */

import { LabError } from "../errors.js";
import { evaluate } from "../nano/calculator.js";
import { term } from "../views/glossary.js";

/** @type {Step[]} */
export const STEPS = [
  {
    title: "Ask",
    views: ["chat"],
    text: () => [
      "A small language model runs in this page: gpt-oss-nano, built like OpenAI's gpt-oss. ",
      "It knows sums, products and little else. It writes its reply one ",
      term("token"),
      " at a time.",
    ],
    task: "Ask a question, for example: What is 347 * 62?",
    watch: () => ({ kind }) => kind === "finished",
  },
  {
    title: "Channels",
    views: ["chat", "tokens"],
    text: () => [
      "Every message of a reply has a ",
      term("channel"),
      ". The model thinks in analysis and answers in final.",
    ],
    task: "In Tokens, select a token of analysis and one of final: click, or use arrow keys and Enter.",
    watch: () => {
      const seen = new Set();
      return (happening, source, selection) => {
        const token = source.shown?.tokens[selection.token];
        if (happening.kind === "selected" && token?.role === "assistant") seen.add(token.channel);
        return seen.has("analysis") && seen.has("final");
      };
    },
  },
  {
    title: "Effort",
    views: ["chat"],
    text: () => [
      "The prompt contains a reasoning ",
      term("effort"),
      ". With less effort the reply is shorter, and it is wrong more often.",
    ],
    task: "Ask the same question at another effort.",
    watch: () => ({ kind, run }, source) => {
      if (kind !== "finished") return false;
      const isCompared = ({ request, stop }) => {
        const isSame = request?.question === run.request?.question;
        return stop !== null && isSame && request.effort !== run.request.effort;
      };
      return source.runs.some(isCompared);
    },
  },
  {
    title: "Experts",
    views: ["chat", "experts"],
    text: ({ num_experts: experts, experts_per_token: slots, num_hidden_layers: layers }) => [
      `Each of the ${layers} layers has ${experts} small networks, the `,
      term("expert", "experts"),
      `. For every token, a `,
      term("router"),
      ` picks ${slots} of them. So only a part of the model computes each token.`,
    ],
    task: "In Experts, select an expert of one token: click, or use arrow keys and Enter.",
    watch: () => ({ kind }, source, { token, layer, expert }) =>
      kind === "selected" && token !== null && layer !== null && expert !== null,
  },
  {
    title: "Knock one out",
    views: ["chat", "experts"],
    text: () => [
      "Does the model need that expert? Set the effort to high, and ask the same question without it. The ",
      term("null"),
      " removes another expert instead: an effect counts only if it is larger than that of the null.",
    ],
    task: "In Experts, select an expert and press “Ask again without it”. Compare the three answers.",
    watch: () => ({ kind, run }, source) => {
      if (kind !== "finished") return false;
      const removed = source.runs.filter(({ stop }) => stop !== null).map(listExperts);
      const own = listExperts(run);
      return own !== "" && removed.some((others) => others !== "" && others !== own);
    },
  },
  {
    title: "Attention and the sink",
    views: ["chat", "attention"],
    text: ({ num_attention_heads: heads }) => [
      `In each layer, ${heads} `,
      term("head", "heads"),
      " of attention read earlier tokens. A head with nothing to read puts its attention into its ",
      term("sink"),
      ".",
    ],
    task: "In Attention, select a head and a token, and read the share of its sink.",
    watch: () => ({ kind }, source, { head, token }) =>
      kind === "selected" && head !== null && token !== null,
  },
  {
    title: "Four bits",
    views: ["chat", "microscope"],
    text: () => [
      "The weights of the experts have four bits each, in the format ",
      term("MXFP4"),
      ": 32 of them share one scale. So a weight is one of 15 numbers times the scale.",
    ],
    task: "In the microscope, flip one bit, and see what the layer and the answer do.",
    watch: () => ({ kind, name }) => kind === "analyzed" && name === "flipBit",
  },
  {
    title: "Break it",
    views: ["chat"],
    text: () => [
      "nano learned products of at most three by two digits, and some more tasks. ",
      "It also learned to refuse what is too hard, but it does not always notice.",
    ],
    task: "Get a wrong answer or a refusal: ask for a larger product, or for something else.",
    watch: () => ({ kind, run }) => kind === "finished" && isBroken(run),
  },
];

/** The experts that a run's interventions change, as text; "" if there are none. */
function listExperts({ interventions }) {
  const changed = interventions.filter(({ expert }) => expert !== undefined);
  return changed.map(({ layer, expert }) => `${layer} ${expert}`).join(", ");
}

/** Whether a reply is wrong, refuses, has a defect of format, or did not end. */
function isBroken({ request, answer, stop, diagnostics }) {
  if (stop !== "return" || diagnostics.length > 0) return true;
  const expected = compute(request?.question ?? "");
  const given = answer.replace(/[^\d-]/g, "");
  return /cannot/.test(answer) || (expected !== null && given !== expected);
}

/** The result of `What is 3 * 4?`; null for another kind of question. */
function compute(question) {
  const expression = /^\s*What is ([\d\s+*()/-]+)\?\s*$/.exec(question)?.[1];
  if (expression === undefined) return null;
  try {
    return String(evaluate(expression));
  } catch (error) {
    if (error instanceof LabError) return null; // such as 1/0
    throw error;
  }
}
