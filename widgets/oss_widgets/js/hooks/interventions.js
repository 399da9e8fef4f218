/**
 * Interventions: small objects that name a place in the forward pass and a change to it.
 *
 *     { kind: "AblateExpert", layer: 2, expert: 7 }
 *
 * Kinds and fields are those of `oss_lab/hooks/interventions`. `layer`, `head` and `expert` are an
 * integer, a list or "all". `positions` limits a change to some tokens; it does not apply to sinks.
 */

import { LabError } from "../errors.js";

const REMOVED = -1e4; // a sink so low that its share is 0, but no NaN if no key is visible

/** @typedef {{kind: string, layer: number | number[] | "all"} & object} Intervention */

/**
 * For each kind, the point that it changes, the fields that it needs, and the change of one token's
 * value `x`, in place. `earlier` has the values of earlier points of the layer.
 */
const KINDS = {
  AblateHead: head((x, begin, end) => x.fill(0, begin, end)),
  ScaleHead: head(scale, "by"),
  RemoveSink: sink(() => REMOVED),
  SetSink: sink((logit, { to }) => Math.max(to, REMOVED), "to"),
  ShiftSink: sink((logit, { by }) => Math.max(logit + by, REMOVED), "by"),
  AblateExpert: chosenExpert(() => 0),
  ScaleExpert: chosenExpert((weight, { by }) => weight * by, "by"),
  AblateSlot: slot("moe.expert_weights", () => 0),
  ScaleSlot: slot("moe.expert_weights", (weight, { by }) => weight * by, "by"),
  BanExpert: router(() => -Infinity),
  BiasExpert: router((logit, { by }) => logit + by, "by"),
  ForceExpert: slot("moe.expert_ids", forceExpert, "expert"),
  UseNextBest: slot("moe.expert_ids", (id, _, x, earlier) => findNextBest(earlier, x) ?? id),
};

function head(change, ...more) {
  const apply = (x, spec, { heads }) => {
    const width = x.length / heads;
    for (const n of listNumbers(spec.head, heads)) change(x, n * width, (n + 1) * width, spec);
  };
  return { writes: "attn.z", needs: ["head", ...more], apply };
}

function scale(x, begin, end, { by }) {
  for (let n = begin; n < end; n++) x[n] *= by;
}

function sink(change, ...more) {
  const apply = (x, spec) => {
    for (const n of listNumbers(spec.head, x.length)) x[n] = change(x[n], spec);
  };
  return { writes: "attn.sink", needs: ["head", ...more], apply, isForEveryToken: true };
}

function chosenExpert(change, ...more) {
  const apply = (x, spec, { earlier, experts }) => {
    const changed = listNumbers(spec.expert, experts);
    earlier["moe.expert_ids"].forEach((expert, n) => {
      if (changed.includes(expert)) x[n] = change(x[n], spec);
    });
  };
  return { writes: "moe.expert_weights", needs: ["expert", ...more], apply };
}

function router(change, ...more) {
  const apply = (x, spec) => {
    for (const n of listNumbers(spec.expert, x.length)) x[n] = change(x[n], spec);
  };
  return { writes: "moe.router_logits", needs: ["expert", ...more], apply };
}

function slot(writes, change, ...more) {
  const apply = (x, spec, { earlier }) => {
    x[spec.slot] = change(x[spec.slot], spec, x, earlier);
  };
  return { writes, needs: ["slot", ...more], apply };
}

/** Nothing changes at a token that already chose the expert. */
function forceExpert(id, { expert }, chosen) {
  return chosen.includes(expert) ? id : expert;
}

/** The best expert that is not chosen, or null if every other one is banned. */
function findNextBest(earlier, chosen) {
  const logits = earlier["moe.router_logits"];
  let best = null;
  logits.forEach((logit, expert) => {
    if (chosen.includes(expert) || logit === -Infinity) return;
    if (best === null || logit > logits[best]) best = expert;
  });
  return best;
}

/** The numbers that a field names. */
function listNumbers(which, count) {
  if (which === "all") return Array.from({ length: count }, (_, n) => n);
  return Array.isArray(which) ? which : [which];
}

/**
 * Hooks that apply interventions, in order, and count at how many values each changed something.
 * Throws LabError for an unknown kind, a missing field, or a number that the model does not have.
 * @param {import("../model/config.js").ModelConfig} config
 * @param {Intervention[]} interventions
 * @returns {{hooks: import("../model/hook.js").Hooks, changed: number[]}}
 */
export function makeHooks(config, interventions) {
  interventions.forEach((spec) => checkIntervention(config, spec));
  const changed = interventions.map(() => 0);
  const place = { heads: config.num_attention_heads, experts: config.num_experts, earlier: {} };
  const hooks = (point, layer, x, here) => {
    interventions.forEach((spec, n) => {
      const { writes, apply } = KINDS[spec.kind];
      if (point !== writes) return;
      if (!listNumbers(spec.layer, config.num_hidden_layers).includes(layer)) return;
      if (spec.positions && !spec.positions.includes(here.position)) return;
      const before = x.slice();
      apply(x, spec, place);
      if (x.some((value, at) => value !== before[at])) changed[n] += 1;
    });
    place.earlier[point] = x;
  };
  return { hooks, changed };
}

/** Throws LabError that explains what is wrong with an intervention. */
export function checkIntervention(config, spec) {
  if (!Object.hasOwn(KINDS, spec.kind)) throw new LabError(`unknown intervention ${spec.kind}`);
  const { needs, isForEveryToken } = KINDS[spec.kind];
  const known = ["layer", ...needs, ...(isForEveryToken ? [] : ["positions"])];
  for (const name of Object.keys(spec)) {
    if (name !== "kind" && !known.includes(name)) {
      throw new LabError(`${spec.kind} has no ${name}; it takes ${known.join(", ")}`);
    }
  }
  for (const name of ["layer", ...needs]) {
    if (spec[name] === undefined) throw new LabError(`${spec.kind} needs ${name}`);
    if (name === "by" || name === "to") checkNumber(spec, name);
    else checkIndices(config, spec, name);
  }
  if (spec.kind === "BanExpert") checkBanned(config, spec);
}

function checkBanned({ num_experts: experts, experts_per_token: needed }, { expert }) {
  const left = experts - new Set(listNumbers(expert, experts)).size;
  if (left < needed) {
    const what = `${left} experts, but every token needs ${needed}`;
    throw new LabError(`BanExpert leaves ${what}; ban fewer`);
  }
}

function checkNumber(spec, name) {
  const isRemoval = spec[name] === -Infinity && spec.kind.endsWith("Sink");
  if (!Number.isFinite(spec[name]) && !isRemoval) {
    throw new LabError(`${spec.kind}: ${name} is ${spec[name]}; it must be a finite number`);
  }
}

function checkIndices(config, spec, name) {
  const count = {
    layer: config.num_hidden_layers,
    head: config.num_attention_heads,
    expert: config.num_experts,
    slot: config.experts_per_token,
  }[name];
  const isSingle = name === "slot" || spec.kind === "ForceExpert";
  const numbers = isSingle && name !== "layer" ? [spec[name]] : listNumbers(spec[name], count);
  for (const n of numbers) {
    if (!(Number.isInteger(n) && 0 <= n && n < count)) {
      const there = `this model has ${name}s 0 to ${count - 1}`;
      throw new LabError(`${spec.kind}: ${name} ${n} is out of range; ${there}`);
    }
  }
}
