/**
 * An intervention and its null: the same change at a random expert or head of the layer. Shows both
 * answers, and where each reply first differs from the unchanged one.
 */

import { RandomStream } from "../../engine/random.js";
import { make, makeTable, refill } from "../elements.js";
import { describeIntervention } from "./run_text.js";

/** @param {import("./session.js").Session} session */
export function makeNullTest(session) {
  const element = make("section", { class: "oss-chat-null", "aria-label": "Intervention and null" });
  let rows = [];

  /**
   * @param {import("../../hooks/interventions.js").Intervention} spec
   * @param {number | null} at  fork there; null asks again
   * @param {number} seed  of the random place
   */
  function run(spec, at, seed) {
    const base = session.run;
    const existing = base.interventions;
    const build = (interventions) =>
      at === null
        ? session.source.ask({ ...base.request, interventions })
        : session.source.fork(base, at, { interventions });
    return session.start(async (signal) => {
      const other = moveRandomly(spec, session.source.config, seed);
      const changed = await build([...existing, spec]);
      session.show(changed);
      refill(element);
      rows = [{ name: describeIntervention(spec), run: changed }];
      await session.generate(changed, signal);
      const random = await build([...existing, other]);
      rows.push({ name: `null: ${describeIntervention(other)} (seed ${seed})`, run: random });
      await session.generate(random, signal);
      const unchanged = isComplete(base, at) ? base : await build(existing);
      rows.unshift({ name: "unchanged", run: unchanged });
      await session.generate(unchanged, signal);
      draw();
    });
  }

  /** Only beside a run that it is about. */
  function update() {
    element.hidden = !element.firstChild || !rows.some((row) => row.run === session.run);
  }

  function draw() {
    const [{ run: unchanged }] = rows;
    const cells = rows.map(({ name, run: each }) => [
      make("span", {}, `${name} `, showButton(name, each)),
      make("bdi", {}, each.answer || "no answer"),
      describeDifference(unchanged, each),
    ]);
    const heads = ["Run", "Answer", "Against the unchanged reply"];
    refill(element, makeTable("The change, its null and the unchanged reply", heads, cells));
  }

  function showButton(name, each) {
    const onclick = () => session.show(each);
    return make("button", { type: "button", "aria-label": `Show ${name}`, onclick }, "Show");
  }

  return { element, run, update };
}

/** Whether a run is what the same step without the change would give. */
function isComplete(base, at) {
  const isGreedy = !(base.request?.sampling?.temperature > 0);
  return base.stop !== null && isGreedy && (at !== null || base.parent === null);
}

/** The same change at another expert or head, chosen by a seed. */
function moveRandomly(spec, config, seed) {
  const name = "expert" in spec ? "expert" : "head";
  const count = name === "expert" ? config.num_experts : config.num_attention_heads;
  const others = Array.from({ length: count }, (_, n) => n).filter((n) => n !== spec[name]);
  return { ...spec, [name]: others[Math.floor(new RandomStream(seed).uniform() * others.length)] };
}

function describeDifference(unchanged, run) {
  if (run === unchanged) return "";
  const ids = run.tokens.map(({ id }) => id);
  const first = unchanged.tokens.findIndex(({ id }, n) => id !== ids[n]);
  if (first < 0 && ids.length === unchanged.tokens.length) return "the same reply";
  const at = first < 0 ? unchanged.tokens.length : first;
  const answers = run.answer === unchanged.answer ? "same answer" : "another answer";
  return `${answers}; first differs at token ${at}${describeMargin(unchanged.tokens[at])}`;
}

function describeMargin(token) {
  const rival = token?.alternatives.find(({ id }) => id !== token.id);
  return rival ? `, where the logit margin was ${(token.logprob - rival.logprob).toFixed(2)}` : "";
}
