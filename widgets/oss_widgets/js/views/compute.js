/** The button of a view that shows one analysis of the shown run. */

import { makeAction } from "./action.js";

/**
 * Adds the button, or says that the source does not have the analysis.
 * @param {ReturnType<import("./frame.js").makeFrame>} frame
 * @param {import("../source/source.js").Source} source
 * @param {object} analysis
 * @param {import("../source/source.js").Ability} analysis.name
 * @param {string} analysis.noun  such as "attributions"
 * @param {string} analysis.text  of the button
 * @param {(run: import("../source/source.js").Run) => object} [analysis.listOptions]
 * @param {(found: object, run: import("../source/source.js").Run, options: object) => void} show
 */
export function addCompute(frame, source, { name, noun, text, listOptions = () => ({}) }, show) {
  if (!source.can.has(name)) return frame.report(`This source cannot compute ${noun}.`);
  const button = makeAction(text, compute);
  frame.controls.append(button);

  async function compute() {
    const run = source.shown;
    if (!run) return frame.report("Ask a question first.");
    frame.clearError();
    frame.report("Computing …");
    button.setEnabled(false);
    try {
      const options = listOptions(run);
      show(await source.analyze(run, name, options), run, options);
    } catch (problem) {
      frame.fail(problem);
    } finally {
      frame.report("");
      button.setEnabled(true);
    }
  }
}
