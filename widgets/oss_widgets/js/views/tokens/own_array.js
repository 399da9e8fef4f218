/** A caller's own number for each token, such as a score: colors, and the numbers as text. */

import { LabError } from "../../errors.js";
import { makeColorLegend } from "../color_legend.js";
import { sequentialColor, signedColor } from "../scale.js";

export class OwnArray {
  /** @param {{values: ArrayLike<number>, shape: number[], name: string, unit: string}} array  [seq] */
  constructor({ values, shape, name, unit }) {
    if (shape.length !== 1) {
      throw new LabError(`${name} has shape [${shape.join(", ")}]; expected [seq], one number per token`);
    }
    Object.assign(this, { values, name, unit });
    const finite = Array.from(values).filter(Number.isFinite);
    [this.low, this.high] = [minimum(finite), -minimum(finite.map((value) => -value))];
    this.isSigned = this.low < 0;
  }

  /** @throws {LabError} if there is not one number per token */
  check(count) {
    const { name, values } = this;
    if (values.length === count) return;
    throw new LabError(`${name} has ${values.length} numbers, but the run has ${count} tokens; pass one per token`);
  }

  /** Signed numbers have a color on each side of zero. */
  color(n) {
    const value = this.values[n];
    if (!Number.isFinite(value)) return null;
    const { low, high, isSigned } = this;
    if (isSigned) return signedColor(value / Math.max(-low, high));
    return sequentialColor(high > low ? (value - low) / (high - low) : 0.5);
  }

  text(n) {
    const value = this.values[n];
    return Number.isFinite(value) ? `${Number(value.toPrecision(4))} ${this.unit}`.trim() : `${value}`;
  }

  makeLegend() {
    const { name, unit, low, high, isSigned } = this;
    const label = unit ? `${name}, ${unit}` : name;
    const end = Math.max(-low, high);
    const [from, to] = isSigned ? [-end, end] : [low, high];
    const color = (share) => (isSigned ? signedColor(2 * share - 1) : sequentialColor(share));
    return makeColorLegend(label, `${Number(from.toPrecision(4))}`, `${Number(to.toPrecision(4))}`, color);
  }
}

function minimum(values) {
  return values.reduce((least, value) => Math.min(least, value), Infinity);
}
