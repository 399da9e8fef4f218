/**
 * Branches: every run of this source as a tree. A fork is listed below the run that it came from,
 * with the position, the token that is written there, and its interventions.
 */

import { make, makeTable, refill, tokenText } from "../elements.js";
import { makeFrame } from "../frame.js";
import { SvgPen } from "../pens.js";
import { describeIntervention } from "../run_names.js";
import { readColors } from "../theme.js";

const WIDTH = 900; // pixels of the saved picture
const LINE = 24;

/** @returns {import("../frame.js").View} */
export function showBranches(element, source, selection) {
  const frame = makeFrame(element, "branches", "Branches");
  const tree = make("div", {});
  frame.body.append(tree);
  frame.setTable(() => runsTable(source.runs));
  const toSvg = () => drawTree(source, readColors(frame.root));
  frame.addExport(toSvg);

  function paint() {
    const roots = source.runs.filter(({ parent }) => parent === null);
    const forks = source.runs.length - roots.length;
    frame.say(
      roots.length
        ? `Questions: ${roots.length}, forks: ${forks}. The shown run is marked; select one to show it.`
        : "Ask a question first; edits and interventions then appear as branches.",
    );
    const focused = document.activeElement?.dataset?.run;
    refill(tree, roots.length ? makeList(roots) : []);
    if (focused) tree.querySelector(`[data-run="${focused}"]`)?.focus();
  }

  function makeList(runs) {
    return make("ul", { class: "oss-branches-list" }, runs.map((run) => {
      const children = source.runs.filter(({ parent }) => parent?.run === run.id);
      return make("li", {}, makeButton(run), children.length ? makeList(children) : null);
    })); // prettier-ignore
  }

  function makeButton(run) {
    const choose = () => {
      source.show(run);
      if (run.parent) selection.set({ token: run.parent.at });
    };
    const attributes = { type: "button", "data-run": run.id, onclick: choose };
    const isShown = run === source.shown;
    return make("button", { ...attributes, "aria-current": isShown ? "true" : null }, ...describeRun(run));
  }

  const stops = ["runs", "shown", "tokens"].map((change) => source.on(change, () => {
    if (change !== "tokens" || source.shown?.stop !== null) paint();
  })); // prettier-ignore
  paint();
  return {
    close: () => {
      stops.forEach((stop) => stop());
      frame.close();
    },
    data: () => ({ runs: source.runs.map(summarize) }),
    toSvg,
  };
}

function describeRun(run) {
  const answer = run.stop === null ? "not finished" : `answers “${run.answer}”`;
  const effects = run.interventions.map(describeIntervention).join("; ");
  const made = effects ? `, with ${effects}` : "";
  if (!run.parent) {
    const { question = run.id, effort = "stored" } = run.request ?? {};
    return [`${question} (${effort})${made}: ${answer}`];
  }
  const token = run.tokens[run.parent.at];
  return [`from token ${run.parent.at} `, token ? tokenText(token.text) : "", `${made}: ${answer}`];
}

/** The runs as lines of text, each fork further to the right than the run that it came from. */
function drawTree({ runs, shown }, colors) {
  if (!runs.length) return null;
  const pen = new SvgPen(WIDTH, LINE * runs.length + LINE, "Branches");
  pen.rect(0, 0, WIDTH, LINE * runs.length + LINE, { fill: colors.paper });
  let line = 0;
  const write = (run, depth) => {
    const text = describeRun(run).map((part) => part.textContent ?? part).join("");
    pen.text(16 + 20 * depth, LINE * ++line, text, { fill: colors.ink, bold: run === shown });
    runs.filter(({ parent }) => parent?.run === run.id).forEach((child) => write(child, depth + 1));
  };
  runs.filter(({ parent }) => parent === null).forEach((run) => write(run, 0));
  return pen.toString();
}

function summarize({ id, parent, interventions, answer, stop }) {
  return { id, parent, interventions, answer, stop };
}

function runsTable(runs) {
  const rows = runs.map((run) => [
    run.id, run.parent ? `${run.parent.run}, token ${run.parent.at}` : "",
    run.interventions.map(describeIntervention).join("; "), run.answer,
  ]); // prettier-ignore
  return makeTable("All runs", ["run", "forked from", "interventions", "answer"], rows);
}
