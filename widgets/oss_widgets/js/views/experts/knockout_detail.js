/**
 * What each expert slot of a token does to the prediction of the token that followed.
 */

import { make, makeTable, tokenText } from "../elements.js";
import { term } from "../glossary.js";
import { short, signed } from "../numbers.js";

/** A change of a log-probability that is worth a look, in nats. */
const NOTABLE = 0.1;

/**
 * @param {import("../../analysis/knockout.js").KnockOut} found
 * @param {import("./recordings.js").Recordings} recordings
 * @param {number} position  of the token whose slots were knocked out
 * @returns {HTMLElement}
 */
export function makeKnockOutDetail(found, recordings, position) {
  const { run, slots } = recordings;
  const rows = listEffects(found, recordings, position);
  const largest = rows.reduce((most, row) => Math.max(most, Math.abs(row.logprobChange)), 0);
  const sentence =
    largest <= NOTABLE
      ? `No single expert slot changes this prediction by more than ${NOTABLE} nats.`
      : `${rows.filter((row) => Math.abs(row.logprobChange) > NOTABLE).length} of ${rows.length} expert` +
        ` slots change this prediction by more than ${NOTABLE} nats.`;
  const cells = rows.map(({ layer, slot, expert, logprobChange, marginChange }) => [
    `layer ${layer}, slot ${slot}`, `${expert ?? "–"}`, signed(logprobChange), signed(marginChange),
  ]);
  const heads = ["place", "expert", "log-probability", "logit margin"];
  return make(
    "div",
    {},
    make(
      "p", {}, term("knock-out", "Knock-outs"), ` of this token's ${rows.length} slots, one at a time.`,
      " The token that followed: ", tokenText(run.tokens[position + 1].text),
      `, log-probability ${short(found.logprob)} nats, `, term("logit margin"),
      ` ${short(found.margin)}.`,
    ), // prettier-ignore
    make("p", { class: "oss-experts-verdict" }, sentence),
    makeTable(`Change after each knock-out, largest first (${slots} slots a layer)`, heads, cells),
  );
}

/** Every slot with its changes, the largest change of the log-probability first. */
function listEffects(found, recordings, position) {
  const { slots } = recordings;
  const effects = Array.from(found.logprobChanges, (logprobChange, n) => {
    const [layer, slot] = [Math.floor(n / slots), n % slots];
    const expert = found.expertIds?.[n] ?? recordings.chosen(layer, position)[slot]?.expert;
    return { layer, slot, expert, logprobChange, marginChange: found.marginChanges[n] };
  });
  return effects.sort((a, b) => Math.abs(b.logprobChange) - Math.abs(a.logprobChange));
}
