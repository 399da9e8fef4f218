/**
 * What one flipped bit does: to the weight, to the layer's output, and to the next token. Its null is
 * the same bit of another weight of the block.
 */

import { make, makeTable, refill, tokenText } from "../elements.js";
import { percent, short, signed } from "../numbers.js";
import { WEIGHTS } from "./bits.js";

export function makeEffect(source, selection, frame) {
  const root = make("div", { class: "oss-microscope-effect", role: "status" });

  let turn = 0; // an answer to an earlier press is ignored

  function clear() {
    turn += 1;
    refill(root);
  }

  async function run(place, bit, block) {
    clear();
    const mine = turn;
    const shown = source.shown;
    if (!source.can.has("flipBit") || !shown) {
      return refill(root, make("p", {}, "Ask a question first: a flipped bit acts on its tokens."));
    }
    // The experts of a token act on the prediction of the next one.
    const at = Math.min((selection.token ?? Infinity) + 1, shown.tokens.length - 1);
    refill(root, make("p", {}, "Computing …"));
    try {
      const flipped = await source.analyze(shown, "flipBit", { place, bit, at });
      const other = otherBit(bit);
      const compared = await source.analyze(shown, "flipBit", { place, bit: other, at });
      if (mine !== turn) return;
      const table = compareTable(bit, other, flipped, compared);
      refill(root, describeFlip(bit, block, flipped, shown.tokens, at), table);
    } catch (error) {
      if (mine !== turn) return;
      refill(root);
      frame.fail(error);
    }
  }

  return { root, run, clear };
}

/** The same bit of the weight that is half a block away; of the scale, the neighboring bit. */
function otherBit(bit) {
  return bit < 4 * WEIGHTS ? (bit + 2 * WEIGHTS) % (4 * WEIGHTS) : bit === 4 * WEIGHTS ? bit + 1 : bit - 1;
}

function nameBit(bit) {
  return bit < 4 * WEIGHTS ? `bit ${bit % 4} of weight ${bit >> 2}` : `bit ${bit - 4 * WEIGHTS} of the scale`;
}

function describeFlip(bit, block, { block: changed, outputChange, before, after }, tokens, at) {
  const weight = bit < 4 * WEIGHTS ? bit >> 2 : 0;
  const isSame = before[0].id === after[0].id;
  return make(
    "p",
    {},
    `Flipping ${nameBit(bit)} turns weight ${weight} from ${short(block.values[weight])} into `,
    `${short(changed.values[weight])}. At token ${at - 1} (`, tokenText(tokens[at - 1].text),
    `) the layer's output changes by ${percent(outputChange)} of its size` +
      (outputChange === 0 ? ": this token did not choose the expert. " : ". "),
    "The next token ", isSame ? "stays " : "changes from ", tokenText(before[0].text),
    isSame ? "." : " to ", isSame ? "" : tokenText(after[0].text), isSame ? "" : ".",
  ); // prettier-ignore
}

function compareTable(bit, other, flipped, compared) {
  const row = (name, { outputChange, before, after }) => {
    const kept = after.find(({ id }) => id === before[0].id);
    const change = kept ? signed(kept.logprob - before[0].logprob, 3) : "below the listed tokens";
    return [name, percent(outputChange), change, tokenText(after[0].text)];
  };
  const change = "change of the token's log-probability, nats";
  const heads = ["flipped", "change of the layer's output", change, "next token"];
  const rows = [row(nameBit(bit), flipped), row(`null: ${nameBit(other)}`, compared)];
  return makeTable("The flip and its null, at another place of the block", heads, rows);
}
