/** Numbers as text, with as many digits as a reader needs. */

/** Three significant digits; very small and very large numbers with a power of ten. */
export function short(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "not a number" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : value.toPrecision(3);
  return fixMinus(text.includes("e") || !text.includes(".") ? text : text.replace(/\.?0+$/, ""));
}

/** With its sign, for changes: +0.25, −1.5. */
export function signed(value, digits = 2) {
  const text = fixMinus(value.toFixed(digits));
  return /[1-9]/.test(text) && value > 0 ? `+${text}` : text.replace(/^−(?=[0.]*$)/, "");
}

/** A share or a probability: 97%, 12.5%, <0.1%, >99.9%. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1%";
  if (share > 0.999 && share < 1) return ">99.9%";
  return `${Number((100 * share).toFixed(1))}%`;
}

/** @param {number} logprob  nats */
export function probability(logprob) {
  return percent(Math.exp(logprob));
}

/** A real minus sign, which is as wide as a plus. */
function fixMinus(text) {
  return text.replace(/^-/, "−").replace(/e-/, "e−");
}
