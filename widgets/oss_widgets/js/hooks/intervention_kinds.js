/**
 * The kinds of interventions: for each one, the point that it changes, the fields that it needs, and
 * the change. Their meaning is that of the classes in `oss_lab/hooks/interventions`.
 */

const REMOVED = -1e4; // a sink so low that its share is 0, but no NaN if no key is visible

/**
 * @typedef {object} Kind
 * @property {string | ((spec: object) => string)} writes  the point that it changes
 * @property {string[]} needs  fields, besides `layer`
 * @property {string[]} [optional]  fields that may be absent
 * @property {boolean} [isForEveryToken]  whether `positions` cannot limit it
 * @property {(x: Float32Array | Int32Array, spec: object, place: Place) => void} apply  changes the
 *   value of one token, in place
 *
 * @typedef {object} Place
 * @property {number} heads  of the model
 * @property {number} experts  of the model
 * @property {Record<string, Float32Array | Int32Array>} earlier  values of earlier points of the layer
 * @property {import("../model/hook.js").Here} here
 */

/** @type {Record<string, Kind>} */
export const KINDS = {
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
  HideKeys: keys((position, key, { keys, first_query: first }) => {
    return position >= first && listNumbers(keys).includes(key);
  }, "keys", "first_query"),
  NarrowWindow: keys((position, key, { keys }) => position - key >= keys, "keys"),
  AddVector: {
    writes: ({ point }) => point,
    needs: ["point", "vector"],
    optional: ["by"],
    apply: (x, { vector, by = 1 }) => vector.forEach((value, n) => (x[n] += by * value)),
  },
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

/** Hide the keys that a token must not see; `attn.scores` has only those of the layer's window. */
function keys(isHidden, ...needs) {
  const apply = (x, spec, { heads, here }) => {
    const count = x.length / heads;
    for (let n = 0; n < x.length; n++) {
      const key = here.firstKey + (n % count);
      if (isHidden(here.position, key, spec)) x[n] = -Infinity;
    }
  };
  return { writes: "attn.scores", needs, apply, isForEveryToken: true };
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

/** The numbers that a field names; `count` is needed for "all". */
export function listNumbers(which, count) {
  if (which === "all") return Array.from({ length: count }, (_, n) => n);
  return Array.isArray(which) ? which : [which];
}
