/**
 * An intervention and its null: the same change at a random expert or head of the layer. Shows both
 * answers, and where each reply first differs from the unchanged one.
 */

import { make, makeTable, refill } from "../elements.js";
import { describeIntervention } from "../run_names.js";
import { describeDifference, drawNull, listOthers, startChanged, startUnchanged } from "../trial.js";

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
    return session.start(async (signal) => {
      const { source } = session;
      const other = moveRandomly(spec, source.config, seed);
      const changed = await startChanged(source, base, at, [spec]);
      session.show(changed);
      refill(element);
      rows = [{ name: describeIntervention(spec), run: changed }];
      await session.generate(changed, signal);
      const random = await startChanged(source, base, at, [other]);
      rows.push({ name: `null: ${describeIntervention(other)} (seed ${seed})`, run: random });
      await session.generate(random, signal);
      const unchanged = await startUnchanged(source, base, at);
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
      make("bdi", {}, each.answer || "(no answer)"),
      describeDifference(each, unchanged),
    ]);
    const heads = ["run", "answer", "compared with the unchanged reply"];
    refill(element, makeTable("The change, its null and the unchanged reply", heads, cells));
  }

  function showButton(name, each) {
    const onclick = () => session.show(each);
    return make("button", { type: "button", "aria-label": `Show ${name}`, onclick }, "Show");
  }

  return { element, run, update };
}

/** The same change at another expert or head, chosen by a seed. */
function moveRandomly(spec, config, seed) {
  const name = "expert" in spec ? "expert" : "head";
  const count = name === "expert" ? config.num_experts : config.num_attention_heads;
  return { ...spec, [name]: drawNull(listOthers(count, spec[name]), seed) };
}
