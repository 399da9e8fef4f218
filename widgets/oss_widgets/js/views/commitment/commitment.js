/**
 * Commitment: what the answer would be if the thinking ended earlier, and how likely the answer of
 * the whole reply is there.
 */

import { addCompute } from "../compute.js";
import { make, makeTable, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { probability } from "../numbers.js";
import { SvgPen } from "../pens.js";
import { readColors } from "../theme.js";
import { makeVisible } from "../visible.js";

const PROBABILITY = "Probability of the final answer";

/** @returns {import("../frame.js").View} */
export function showCommitment(element, source) {
  const frame = makeFrame(element, "commitment", "When does the answer become certain?");
  const list = make("ol", { class: "oss-commitment-steps" });
  let steps = [];
  frame.body.append(list);
  const text = "Compute for this reply";
  const analysis = { name: "commitment", noun: "commitment", text };
  const forget = addCompute(frame, source, analysis, show, () => {
    steps = [];
    refill(list);
  });
  frame.addExport(() => draw(steps, frame.root));

  function show(found) {
    ({ steps } = found);
    const last = steps.at(-1);
    const first = steps.findIndex((_, n) => steps.slice(n).every(({ answer }) => answer === last.answer));
    frame.say(
      `If the thinking ended after ${steps[first].kept} of ${last.kept} tokens or later, the answer ` +
        `would be “${last.answer}”.`,
    );
    refill(list, steps.map(makeStep));
    frame.setTable(() => makeTable(
      "The answer after each step", ["tokens kept", "thought", "answer", "probability of the final answer"],
      steps.map(({ kept, thought, answer, logprob }) => [
        String(kept), makeVisible(thought, 60), answer, probability(logprob),
      ]),
    )); // prettier-ignore
  }

  function close() {
    forget();
    frame.close();
  }
  return { close, data: () => ({ steps }), toSvg: () => draw(steps, frame.root) };
}

function makeStep({ kept, thought, answer, logprob }) {
  return make(
    "li",
    {},
    make("span", { class: "oss-commitment-kept" }, `${kept} tokens`),
    make("bdi", { class: "oss-token-text" }, makeVisible(thought, 40)),
    make("meter", { min: 0, max: 1, value: Math.exp(logprob), "aria-label": PROBABILITY }),
    make("span", {}, `${probability(logprob)}, answer `, make("bdi", {}, answer || "(no answer)")),
  );
}

function draw(steps, root) {
  if (!steps.length) return null;
  const colors = readColors(root);
  const [width, height] = [640, 24 * steps.length + 24];
  const pen = new SvgPen(width, height, `${PROBABILITY} if the thinking ended earlier`);
  pen.rect(0, 0, width, height, { fill: colors.paper });
  steps.forEach(({ kept, answer, logprob }, n) => {
    const y = 24 * n + 12;
    pen.text(90, y + 10, `${kept} tokens`, { fill: colors.ink, anchor: "end" });
    pen.rect(100, y, 300 * Math.exp(logprob), 18, { fill: colors.cursor });
    pen.text(410, y + 10, `${probability(logprob)}, answer ${answer}`, { fill: colors.ink });
  });
  return pen.toString();
}
