/**
 * Sampling, the maximum number of tokens, tools and instructions.
 */

import { make } from "../elements.js";

const SAMPLING = [
  { name: "temperature", text: "Temperature", value: "0", min: 0, step: 0.1 },
  { name: "topK", text: "Top-k", min: 1, step: 1 },
  { name: "topP", text: "Top-p", min: 0, max: 1, step: 0.05 },
  { name: "minP", text: "Min-p", min: 0, max: 1, step: 0.01 },
  { name: "seed", text: "Seed", min: 0, step: 1 },
];
const LIMIT = { name: "maxTokens", text: "Maximum tokens", min: 1, step: 1 };
const HINTS = {
  temperature: "0: always the most likely token",
  topK: "only the k most likely tokens; empty: all",
  topP: "only the tokens that together reach this probability; empty: all",
  minP: "only tokens with this fraction of the largest probability; empty: all",
  seed: "the same seed gives the same reply; empty: a random one",
  maxTokens: "per reply; empty: to the end of the context",
};

/**
 * @param {import("../../source/source.js").Source} source
 * @param {{maxTokens?: number}} options
 */
export function makeSettings(source, { maxTokens }) {
  let setting = null;
  const inputs = SAMPLING.map(makeNumber);
  const limit = makeNumber({ ...LIMIT, value: maxTokens });
  const calculator = make("input", { type: "checkbox" });
  const calculatorLabel = make("label", {}, calculator, "Calculator");
  calculatorLabel.hidden = !source.calculator;
  const note = make("bdi");
  const names = (source.tools ?? []).join(", ");
  const runHere = make("div", {}, `Python runs these tools if the model calls them: ${names}.`);
  runHere.hidden = !source.tools?.length;
  const instructions = make("textarea", { rows: "2", dir: "auto" });

  /**
   * Take over the setting of an example or a run; null removes it.
   * @returns {boolean}  whether there was one
   */
  function use(chosen) {
    const hadOne = setting !== null;
    setting = chosen;
    if (!chosen && !hadOne) return false;
    instructions.value = chosen?.instructions ?? "";
    const { tools = [], history = [] } = chosen ?? {};
    calculator.checked = tools.some(isCalculator);
    const others = tools.filter((tool) => !isCalculator(tool)).map(({ name }) => name);
    const notes = [
      others.length ? `Other tools: ${others.join(", ")}.` : "",
      history.length ? `Earlier questions: ${history.map(([asked]) => asked).join(" ")}` : "",
    ];
    note.textContent = notes.join(" ");
    return hadOne;
  }

  function isCalculator({ name }) {
    return name === source.calculator?.name;
  }

  /** The fields of a request. */
  function read() {
    const values = inputs.map(({ name, input }) => [name, readNumber(input)]);
    const others = (setting?.tools ?? []).filter((tool) => !isCalculator(tool));
    return {
      instructions: instructions.value.trim() ? instructions.value : null,
      tools: calculator.checked ? [source.calculator, ...others] : others,
      history: setting?.history ?? [],
      toolOutputs: setting?.toolOutputs ?? {},
      sampling: Object.fromEntries(values.filter(([, value]) => value !== undefined)),
      ...(limit.input.value === "" ? {} : { maxTokens: readNumber(limit.input) }),
    };
  }

  const element = make(
    "details",
    { class: "oss-chat-settings" },
    make("summary", {}, "Sampling, tools and instructions"),
    make("div", { class: "oss-chat-row" }, inputs.map(({ label }) => label), limit.label),
    make("div", { class: "oss-chat-row" }, calculatorLabel, note),
    runHere,
    make("label", { class: "oss-chat-wide" }, "Instructions", instructions),
  );
  return { element, read, use };
}

function makeNumber({ name, text, value = "", min, max, step }) {
  const input = make("input", { type: "number", value, min, max, step, title: HINTS[name], name });
  return { name, input, label: make("label", {}, text, input) };
}

/** undefined if the field is empty. */
function readNumber(input) {
  return input.value === "" ? undefined : Number(input.value);
}
