/**
 * The form of an intervention, and the list of those in force.
 */

import { make, refill } from "../elements.js";
import { term } from "../glossary.js";
import { describeIntervention } from "../run_names.js";
import { makeAction } from "../action.js";
import { makeNullTest } from "./null_test.js";

const KINDS = [
  { kind: "AblateExpert", text: "Ablate an expert", needs: ["expert"] },
  { kind: "ScaleExpert", text: "Scale an expert", needs: ["expert", "by"] },
  { kind: "BanExpert", text: "Ban an expert", needs: ["expert"] },
  { kind: "ForceExpert", text: "Force an expert", needs: ["slot", "expert"] },
  { kind: "AblateHead", text: "Ablate a head", needs: ["head"] },
  { kind: "ScaleHead", text: "Scale a head", needs: ["head", "by"] },
  { kind: "RemoveSink", text: "Remove a head's sink", needs: ["head"] },
];

/** @param {import("./session.js").Session} session */
export function makeIntervene(session) {
  const { config } = session.source;
  const options = KINDS.map(({ kind, text }) => make("option", { value: kind }, text));
  const select = make("select", { onchange: showFields }, options);
  const field = (text, max, value = 0) => {
    const input = make("input", { type: "number", min: 0, max, step: 1, value });
    return { input, label: make("label", {}, text, input) };
  };
  const fields = {
    layer: field("Layer", config.num_hidden_layers - 1),
    expert: field("Expert", config.num_experts - 1),
    head: field("Head", config.num_attention_heads - 1),
    slot: field("Slot", config.experts_per_token - 1),
    by: field("Factor", null, 2),
  };
  fields.by.input.step = "any";
  fields.by.input.removeAttribute("min");
  const seed = field("Seed of the null", null);
  const here = makeAction("", () => test.run(read(), session.place + 1, readSeed()));
  const again = makeAction("Ask again with it", () => test.run(read(), null, readSeed()));
  const active = make("ul", { class: "oss-chat-active" });
  const none = make("p", {}, "No intervention is in force.");
  const test = makeNullTest(session);
  const form = make(
    "details", { class: "oss-chat-intervene" },
    make("summary", {}, "Intervene"),
    make("p", {}, "Each change is also made at another expert or head of the layer, drawn at random, its ",
      term("null"), ". Both answers are shown beside the unchanged one."),
    make("div", { class: "oss-chat-row" }, make("label", {}, "Change", select),
      Object.values(fields).map(({ label }) => label), seed.label),
    make("div", { class: "oss-chat-row" }, here, again),
  ); // prettier-ignore
  const list = make("section", { "aria-label": "Interventions in force" }, none, active);
  const element = make("div", {}, form, list, test.element);
  let drawn = null;
  showFields();

  function showFields() {
    const { needs } = KINDS.find(({ kind }) => kind === select.value);
    for (const [name, { label }] of Object.entries(fields)) {
      label.hidden = name !== "layer" && !needs.includes(name);
    }
  }

  function read() {
    const { kind, needs } = KINDS.find((each) => each.kind === select.value);
    const numbers = ["layer", ...needs].map((name) => [name, fields[name].input.valueAsNumber]);
    return { kind, ...Object.fromEntries(numbers) };
  }

  function readSeed() {
    return seed.input.valueAsNumber;
  }

  /** Another view has selected a place: offer it. */
  function followSelection(changed) {
    for (const name of ["layer", "head", "expert"]) {
      const number = session.selection[name];
      if (changed.includes(name) && number !== null) fields[name].input.value = number;
    }
  }
  followSelection(["layer", "head", "expert"]);

  function remove(number) {
    const { run } = session;
    const interventions = run.interventions.filter((_, n) => n !== number);
    form.firstChild.focus(); // the button goes away
    session.ask({ ...run.request, interventions });
  }

  function update() {
    const { run, source } = session;
    element.hidden = !source.can.has("fork") || !run;
    if (element.hidden) return;
    const isBusy = session.job !== null;
    const at = session.place;
    here.textContent = `Continue after token ${at} with it`;
    here.setEnabled(!isBusy && (at < run.tokens.length - 1 || run.stop === null));
    again.setEnabled(!isBusy && run.request !== null);
    test.update();
    none.hidden = run.interventions.length > 0;
    const key = JSON.stringify([run.id, run.interventions]);
    if (key === drawn) return;
    drawn = key;
    refill(active, ...run.interventions.map(makeActive));
  }

  function makeActive(spec, number) {
    const text = describeIntervention(spec);
    const label = `Remove ${text} and ask again`;
    const button = makeAction("Remove and ask again", () => remove(number), { "aria-label": label });
    button.setEnabled(session.run.request !== null);
    return make("li", {}, text, " ", button);
  }

  return { element, update, followSelection };
}
