/**
 * The calculator: a tool that evaluates +, -, * and / on whole numbers, exactly.
 *
 * It reads the arguments of a call as nano writes them: {"expression":"4815*884"}. Only division
 * without remainder has a result.
 */

import { LabError } from "../errors.js";

/** The output of a call, as text. Throws a LabError if there is none. */
export function runCalculator(callArguments) {
  let expression;
  try {
    ({ expression } = JSON.parse(callArguments));
  } catch {
    throw new LabError(`the arguments ${callArguments} are not JSON`);
  }
  if (typeof expression !== "string") {
    throw new LabError(`the arguments ${callArguments} have no text "expression"`);
  }
  return String(evaluate(expression));
}

/** The value of an expression such as `2 * (3 - 5)`. @returns {bigint} */
export function evaluate(expression) {
  const tokens = expression.match(/\d+|\S/g) ?? [];
  let at = 0;
  const refuse = () => {
    const found = at < tokens.length ? `"${tokens[at]}"` : "the end";
    throw new LabError(`expected a number in ${JSON.stringify(expression)}, got ${found}`);
  };

  function readSum() {
    let value = readProduct();
    while (["+", "-"].includes(tokens[at])) {
      value = tokens[at++] === "+" ? value + readProduct() : value - readProduct();
    }
    return value;
  }

  function readProduct() {
    let value = readFactor();
    while (["*", "/"].includes(tokens[at])) {
      value = tokens[at++] === "*" ? value * readFactor() : divide(value, readFactor());
    }
    return value;
  }

  function readFactor() {
    if (/^\d/.test(tokens[at] ?? "")) return BigInt(tokens[at++]);
    if (tokens[at] === "-") {
      at += 1;
      return -readFactor();
    }
    if (tokens[at] !== "(") refuse();
    at += 1;
    const value = readSum();
    if (tokens[at] !== ")") throw new LabError(`a ")" is missing in ${JSON.stringify(expression)}`);
    at += 1;
    return value;
  }

  const value = readSum();
  if (at < tokens.length) {
    throw new LabError(`cannot read "${tokens[at]}" in ${JSON.stringify(expression)}`);
  }
  return value;
}

function divide(value, divisor) {
  if (divisor === 0n) throw new LabError(`${value}/0 is not defined`);
  if (value % divisor !== 0n) throw new LabError(`${value}/${divisor} is not a whole number`);
  return value / divisor;
}
