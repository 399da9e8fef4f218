/** Five fields that choose one MXFP4 block of the model. */

import { make } from "../elements.js";
import { WEIGHTS } from "./bits.js";

/**
 * @param {object} config  fields of config.json
 * @param {import("../selection.js").Selection} selection
 * @param {(place: import("../../source/source.js").Place) => void} change
 */
export function makePlaceForm(config, selection, change) {
  const { hidden_size: hidden, intermediate_size: width } = config;
  const limits = () => {
    const [rows, columns] = matrix.value === "gate_up" ? [2 * width, hidden] : [hidden, width];
    return { row: rows - 1, block: columns / WEIGHTS - 1 };
  };
  const number = (max, value) =>
    make("input", { type: "number", min: "0", max: String(max), step: "1", value: String(value ?? 0) });
  const layer = number(config.num_hidden_layers - 1, selection.layer);
  const expert = number(config.num_experts - 1, selection.expert);
  const option = (value, text) => make("option", { value }, text);
  const matrix = make("select", {}, option("gate_up", "gate and up"), option("down", "down"));
  const row = number(0, 0);
  const block = number(0, 0);
  const inputs = { layer, expert, row, block };

  /** Every number within its limits. */
  function place() {
    Object.entries(limits()).forEach(([name, max]) => (inputs[name].max = String(max)));
    for (const input of Object.values(inputs)) {
      const value = Math.round(Number(input.value)) || 0;
      input.value = String(Math.min(Math.max(value, 0), Number(input.max)));
    }
    const numbers = Object.entries(inputs).map(([name, input]) => [name, Number(input.value)]);
    return { ...Object.fromEntries(numbers), matrix: matrix.value };
  }

  /** The place after the selection has moved. */
  function follow() {
    if (selection.layer !== null) layer.value = String(selection.layer);
    if (selection.expert !== null) expert.value = String(selection.expert);
    return place();
  }

  const fields = { Layer: layer, Expert: expert, Matrix: matrix, Row: row, Block: block };
  const root = make(
    "form",
    { class: "oss-controls", onchange: () => change(place()), onsubmit: (event) => event.preventDefault() },
    Object.entries(fields).map(([text, input]) => make("label", {}, text, input)),
  );
  return { root, place, follow };
}
