/** A caller's own number for each token, such as a score: colors, and the numbers as text. */

import { LabError } from "../../errors.js";
import { short } from "../numbers.js";
import { fitScale } from "../scale.js";

export class OwnArray {
  /** @param {{values: ArrayLike<number>, shape: number[], name: string, unit?: string}} array  [seq] */
  constructor({ values, shape, name, unit = "" }) {
    if (shape.length !== 1) {
      throw new LabError(`${name} has shape [${shape.join(", ")}]; expected [seq], one number per token`);
    }
    Object.assign(this, { values, name, unit });
    this.legend = { name, unit, scale: fitScale(values) };
  }

  /** @throws {LabError} if there is not one number per token */
  check(count) {
    const { name, values } = this;
    if (values.length === count) return;
    const lengths = `${values.length} numbers, but the run has ${count} tokens`;
    throw new LabError(`${name} has ${lengths}; pass one number per token`);
  }

  color(n) {
    return Number.isFinite(this.values[n]) ? this.legend.scale.color(this.values[n]) : null;
  }

  text(n) {
    if (!(n < this.values.length)) return "not given";
    return `${short(this.values[n])} ${this.unit}`.trim();
  }
}
