/**
 * The button of a view that shows one analysis of the shown run. When another run is shown, the
 * numbers of the earlier one go, and an answer that comes too late is not shown.
 */

import { makeAction } from "./action.js";
import { make } from "./elements.js";

/**
 * Adds the button, or says that the source does not have the analysis.
 * @param {ReturnType<import("./frame.js").makeFrame>} frame
 * @param {import("../source/source.js").Source} source
 * @param {object} analysis
 * @param {import("../source/source.js").Ability} analysis.name
 * @param {string} analysis.noun  such as "attributions"
 * @param {string} analysis.text  of the button
 * @param {(run: import("../source/source.js").Run) => object} [analysis.listOptions]
 * @param {(run: import("../source/source.js").Run) => unknown} [analysis.subject]  what the numbers
 *   belong to; by default the run
 * @param {(found: object, run: import("../source/source.js").Run, options: object) => void} show
 * @param {() => void} clear  removes what `show` drew
 * @returns {() => void} forgets the analysis, for `close`
 */
export function addCompute(frame, source, analysis, show, clear) {
  const { name, noun, text, listOptions = () => ({}), subject = (run) => run } = analysis;
  let asked = null; // the run that is computed or shown
  if (!source.can.has(name)) {
    frame.report(`This source cannot compute ${noun}.`);
    return () => {};
  }
  const button = makeAction(text, compute);
  frame.controls.append(button);

  async function compute() {
    const run = source.shown;
    if (!run) return frame.report("Ask a question first.");
    frame.clearError();
    frame.report("Computing …");
    button.setEnabled(false);
    asked = run;
    try {
      const options = listOptions(run);
      const found = await source.analyze(run, name, options);
      if (asked === run) show(found, run, options);
    } catch (problem) {
      if (asked === run) frame.fail(problem);
    } finally {
      frame.report("");
      button.setEnabled(true);
    }
  }

  function forget() {
    if (asked === null) return;
    asked = null;
    frame.say("");
    frame.setTable(() => make("p", {}, "Nothing was computed yet."));
    clear();
  }

  const stop = source.on("shown", (run) => {
    if (asked !== null && subject(run) !== subject(asked)) forget();
  });
  return () => {
    stop();
    forget();
  };
}
