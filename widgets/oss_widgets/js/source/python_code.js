/**
 * Python code that makes a run again, with `oss_lab` and without a page.
 */

import { quote } from "../python_text.js";

const MAX_TOKENS = 2048; // the default of `lab.chat`
const SAMPLING = { temperature: "temperature", topK: "top_k", topP: "top_p", minP: "min_p", seed: "seed" };

/**
 * Code that ends with `reply`, the last reply of a run, and `ids`, all its tokens.
 * @param {import("./live_run.js").LiveRun} run
 * @param {import("./live_run.js").LiveRun[]} runs  with those that it was forked from
 * @returns {string}
 */
export function writePython(run, runs) {
  const line = [run];
  while (line[0].parent) line.unshift(runs.find(({ id }) => id === line[0].parent.run));
  const [root, ...forks] = line;
  const hasOutputs = countExchanges(line, 0) > 1;
  const kinds = [...new Set(line.flatMap((each) => each.interventions.map(({ kind }) => kind)))].sort();
  return [
    "import oss_lab",
    ...(kinds.length ? [`from oss_lab import ${kinds.join(", ")}`] : []),
    ...(forks.length ? ["from oss_lab.analysis.branch import Tree"] : []),
    ...(hasOutputs ? ["from oss_lab.record.calls import append_outputs"] : []),
    "",
    'lab = oss_lab.load("nano", kernels="reference")',
    ...warnOfSampling(run.request),
    ...writeChats(line),
    ...(forks.length ? writeForks(line) : ["ids = [*reply.prompt_tokens, *reply.ids]"]),
    "",
  ].join("\n");
}

/** How many exchanges of a run in a line matter: those that the next fork keeps. */
function countExchanges(line, n) {
  return n + 1 < line.length ? line[n + 1].inherited : line[n].exchanges.length;
}

function warnOfSampling({ sampling = {} }) {
  if (!sampling.temperature) return [];
  return ["# Python draws other random numbers, so a sampled reply differs from that of the page."];
}

/** The first question, and the outputs of the calls that followed. */
function writeChats(line) {
  const [{ request, exchanges, interventions }] = line;
  const once = Object.entries({
    effort: request.effort,
    instructions: request.instructions ?? undefined,
    tools: request.tools?.length ? request.tools.map((each) => writeTool(each)) : undefined,
  }).filter(([, value]) => value !== undefined);
  const always = [
    ...listSampling(request),
    ...(interventions.length ? [`interventions=[${interventions.map(writeIntervention).join(", ")}]`] : []),
  ];
  return exchanges.slice(0, countExchanges(line, 0)).flatMap((exchange, n) => {
    const limit = findLimit(line, 0, n);
    const options = [...always, ...(limit === null ? [] : [`max_tokens=${limit}`])];
    if (n === 0) {
      const asked = [writeQuestion(request), ...once.map(([name, value]) => `${name}=${write(value)}`)];
      return [`reply = lab.chat(${[...asked, ...options].join(", ")})`];
    }
    const asked = "append_outputs(reply, lambda call: next(outputs))";
    return [
      `outputs = iter(${write(exchange.outcomes.map(({ output }) => output))})`,
      `reply = lab.chat(${[asked, ...options].join(", ")})`,
    ];
  });
}

/** The branches of a tree: `line` has the first run, then each fork of the one before it. */
function writeForks(line) {
  const lines = within(line[0].interventions, "tree = Tree(lab, reply)");
  let node = "tree.root";
  const branch = (run, at, ids, limit) => {
    const options = [`at=${at}`, ...(ids.length ? [`write=${write(ids)}`] : [])];
    options.push(...listBranchSampling(run.request));
    if (limit !== null) options.push(`max_tokens=${limit}`);
    lines.push(...within(run.interventions, `node = tree.branch(${[node, ...options].join(", ")})`));
    node = "node";
  };
  line.slice(1).forEach((run, n) => {
    const { at } = run.parent;
    const start = run.exchanges[run.inherited - 1].start;
    const first = findLimit(line, n + 1, run.inherited - 1);
    branch(run, at, run.written, first === null ? null : first - (at + run.written.length - start));
    for (let each = run.inherited; each < countExchanges(line, n + 1); each++) {
      const { kept, start: end } = run.exchanges[each];
      const ids = run.tokens.slice(kept, end).map(({ id }) => id);
      branch(run, kept, ids, findLimit(line, n + 1, each));
    }
  });
  return [...lines, "reply = tree.reply(node)", "ids = list(node.ids)"];
}

/** The largest number of tokens of a reply, or null for Python's default. */
function findLimit(line, n, exchange) {
  const { exchanges, stop, request } = line[n];
  const { length } = exchanges[exchange].reader.ids;
  const isPaused = n === line.length - 1 && exchange === exchanges.length - 1 && stop === null;
  if (isPaused && length > 0) return length;
  if (request.maxTokens !== undefined) return request.maxTokens;
  return length > MAX_TOKENS ? length : null;
}

/** A line inside `with lab.intervene(...)`, if there are interventions. */
function within(interventions, line) {
  if (!interventions.length) return [line];
  return [`with lab.intervene(${interventions.map(writeIntervention).join(", ")}):`, `    ${line}`];
}

function writeIntervention({ kind, ...fields }) {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return `${kind}(${given.map(([name, value]) => `${name}=${write(value)}`).join(", ")})`;
}

function writeQuestion({ question, history = [] }) {
  if (!history.length) return quote(question);
  const earlier = history.flatMap(([asked, answer]) => [
    { role: "user", content: asked },
    { role: "assistant", content: answer },
  ]);
  return write([...earlier, { role: "user", content: question }]);
}

function writeTool({ name, description, parameters }) {
  const described = { name, description: description ?? "", parameters: parameters ?? null };
  return { type: "function", function: described };
}

function listSampling({ sampling = {} }) {
  const given = Object.entries(sampling).filter(([, value]) => value !== undefined && value !== null);
  return given.map(([name, value]) => `${SAMPLING[name]}=${write(value)}`);
}

function listBranchSampling(request) {
  const given = listSampling(request);
  return given.length ? [`sampling=oss_lab.Sampling(${given.join(", ")})`] : [];
}

/** A value as a Python literal. */
function write(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return Number.isFinite(value) ? `${value}` : `float("${value}")`;
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return `[${value.map(write).join(", ")}]`;
  if (ArrayBuffer.isView(value)) return write([...value]);
  return `{${Object.entries(value).map(([name, each]) => `${quote(name)}: ${write(each)}`).join(", ")}}`;
}
