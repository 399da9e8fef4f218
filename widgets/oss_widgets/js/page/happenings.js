/**
 * What happens in a source and a selection, as the guided path and the permalink need it.
 */

/**
 * @param {import("../source/source.js").Source} source
 * @param {import("../views/selection.js").Selection} selection
 * @param {(happening: import("./steps.js").Happening) => void} call
 */
export function watchHappenings(source, selection, call) {
  const finished = new WeakSet();
  source.on("tokens", (run) => {
    if (run.stop === null || run.stop === "call" || finished.has(run)) return;
    finished.add(run);
    call({ kind: "finished", run });
  });
  selection.on(() => call({ kind: "selected" }));
  const analyze = source.analyze.bind(source);
  source.analyze = async (run, name, options) => {
    const result = await analyze(run, name, options);
    call({ kind: "analyzed", name });
    return result;
  };
}
