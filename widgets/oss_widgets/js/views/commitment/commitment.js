/**
 * Commitment: what the answer would be if the thinking ended earlier, and how likely the answer of
 * the whole reply is there.
 */

import { make, makeTable, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { percent } from "../numbers.js";
import { SvgPen } from "../pens.js";
import { readColors } from "../theme.js";
import { makeVisible } from "../visible.js";

/** @returns {import("../frame.js").View} */
export function showCommitment(element, source) {
  const frame = makeFrame(element, "commitment", "When does the answer become certain?");
  const list = make("ol", { class: "oss-commitment-steps" });
  let steps = [];
  frame.body.append(list);
  const compute = make("button", { type: "button", onclick: () => update() }, "Compute for this reply");
  if (source.can.has("commitment")) frame.controls.append(compute);
  else frame.report("This source cannot compute commitment.");
  frame.addExport(() => draw(steps, frame.root));

  async function update() {
    if (!source.shown) return frame.report("Ask a question first.");
    frame.clearError();
    frame.report("computing …");
    compute.disabled = true;
    try {
      ({ steps } = await source.analyze(source.shown, "commitment", {}));
      show();
    } catch (error) {
      frame.fail(error);
    } finally {
      frame.report("");
      compute.disabled = false;
    }
  }

  function show() {
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
        String(kept), makeVisible(thought, 60), answer, percent(Math.exp(logprob)),
      ]),
    )); // prettier-ignore
  }

  return { close: frame.close, data: () => ({ steps }), toSvg: () => draw(steps, frame.root) };
}

function makeStep({ kept, thought, answer, logprob }) {
  const share = Math.exp(logprob);
  return make(
    "li",
    {},
    make("span", { class: "oss-commitment-kept" }, `${kept} tokens`),
    make("bdi", { class: "oss-token-text" }, makeVisible(thought, 40)),
    make("meter", { min: "0", max: "1", value: String(share), "aria-label": "probability of the final answer" }),
    make("span", {}, `${percent(share)}, answer `, make("bdi", {}, answer || "(none)")),
  );
}

function draw(steps, root) {
  const colors = readColors(root);
  const [width, height] = [640, 24 * steps.length + 24];
  const pen = new SvgPen(width, height, "Probability of the final answer if the thinking ended earlier");
  pen.rect(0, 0, width, height, { fill: colors.paper });
  steps.forEach(({ kept, answer, logprob }, n) => {
    const y = 24 * n + 12;
    pen.text(90, y + 10, `${kept} tokens`, { fill: colors.ink, anchor: "end" });
    pen.rect(100, y, 300 * Math.exp(logprob), 18, { fill: colors.cursor });
    pen.text(410, y + 10, `${percent(Math.exp(logprob))}, answer ${answer}`, { fill: colors.ink });
  });
  return pen.toString();
}
