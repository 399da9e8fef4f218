/**
 * The words of the field, each explained in place: a button that opens one sentence.
 */

import { make } from "./elements.js";

/** One sentence for each word. */
const TERMS = {
  token: "A piece of text, from a single byte to a word; models read and write tokens.",
  channel: "Labels what a part of a reply is for: analysis is the chain of thought, final is the answer.",
  effort: "Low, medium or high: how much the model is asked to think before it answers.",
  expert: "One of many small networks in a layer; each token passes through four of them.",
  router: "The part of a layer that scores every expert and picks the best four for each token.",
  weight: "How much a chosen expert counts in the layer's output; the weights of a token sum to 1.",
  margin: "How far the last chosen expert's router score is above the best expert that was not chosen.",
  entropy: "How evenly the router spreads over all experts, in nats; 0 means all on one.",
  lift: "How many times as often an expert takes this token as it takes tokens in general.",
  "logit margin": "How far a token's score is above the best other token's; below 0, another is likelier.",
  logprob: "Natural logarithm of a probability, in nats; 0 is certain.",
  head: "One of several parts of a layer's attention, each with its own weights over earlier tokens.",
  "KV head": "Keys and values that a group of query heads shares.",
  sink: "A learned score that competes with the tokens for a head's attention and contributes nothing.",
  window: "In sliding layers, a token attends only to this many tokens, itself included.",
  "logit lens": "What the model would predict if it ended after a layer.",
  "knock-out": "Sets one expert's contribution at one token to zero and measures the change.",
  null: "The same change at a random place; an effect counts only if it is larger than this one.",
  MXFP4: "Four bits per weight: blocks of 32 weights that share one scale, a power of two.",
};

/** The word as a button that opens its explanation after it. */
export function term(word, text = word) {
  const note = make("span", { class: "oss-note", role: "note", hidden: true }, ` ${TERMS[word]}`);
  const toggle = () => {
    note.hidden = !note.hidden;
    button.setAttribute("aria-expanded", String(!note.hidden));
  };
  const button = make(
    "button",
    { type: "button", class: "oss-term", "aria-expanded": "false", onclick: toggle },
    text,
  );
  return make("span", {}, button, note);
}
