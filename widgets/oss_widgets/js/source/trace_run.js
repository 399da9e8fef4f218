/** A run whose tokens come from the header of a trace. It is complete: nothing can be generated. */

import { isCall } from "../harmony/exchanges.js";
import { joinTexts } from "../record/token_texts.js";
import { describeCall, writeOutcome } from "./call.js";

const STOPS = { "<|return|>": "return", "<|call|>": "call", "<|endoftext|>": "endoftext" };

export class TraceRun {
  /**
   * @param {import("./trace_file.js").TraceFile} file
   * @param {string} id
   */
  constructor(file, id) {
    Object.assign(this, { file, id, request: null, interventions: [], parent: null });
    Object.assign(this, { diagnostics: [], openCalls: [], note: null, seconds: 0 });
    this.tokens = file.head.tokens.map((token, n) => {
      const [text, message, role, channel, recipient, part] = file.head.labels[n];
      return { id: token, text, message, role, channel, recipient, part, logprob: null, alternatives: [] };
    });
    this.promptLength = findReply(this.tokens);
    this.readAlternatives();
    this.stop = STOPS[this.tokens.at(-1)?.text] ?? null;
  }

  /** One sentence about what the file does not contain, or null. */
  get missing() {
    return this.file.missing;
  }

  /** The interventions as text: a trace keeps no more of them. */
  get applied() {
    return this.file.head.origin.interventions;
  }

  get messages() {
    const messages = [];
    for (const token of this.tokens.slice(this.promptLength)) {
      if (token.message < 0) continue;
      const { role, channel, recipient, message } = token;
      const isNew = messages.at(-1)?.message !== message;
      if (isNew) messages.push({ role, channel, recipient, message, texts: [] });
      if (token.part === "content") messages.at(-1).texts.push(token.text);
    }
    return messages.map(({ role, channel, recipient, texts }) => ({
      role, channel, recipient, text: joinTexts(texts), isOpen: false,
    }));
  }

  get calls() {
    const { messages } = this;
    const outputs = messages.filter(({ role }) => role === "tool").map(({ text }) => writeOutcome(text));
    return messages.filter(isCall).map(({ recipient, text }) => describeCall(recipient, text, outputs.shift()));
  }

  get answer() {
    return this.messages.filter((each) => each.channel === "final").map(({ text }) => text).join("\n");
  }

  /** Log-probabilities of the generated tokens, if the likeliest tokens were recorded. */
  readAlternatives() {
    if (!this.file.has("out.top_ids", null) || !this.file.has("out.top_logprobs", null)) return;
    const ids = this.file.points("out.top_ids", null);
    const logprobs = this.file.points("out.top_logprobs", null);
    const ranks = ids.shape[1];
    const texts = new Map(Object.entries(this.file.head.texts ?? {}));
    this.tokens.forEach((token, n) => {
      const begin = (n - 1) * ranks; // the token before it predicts it
      const isGenerated = token.role === "assistant" || token.role === null;
      if (n === 0 || n < this.promptLength || !isGenerated || ids.data[begin] < 0) return;
      token.alternatives = Array.from({ length: ranks }, (_, rank) => {
        const id = ids.data[begin + rank];
        return { id, text: texts.get(`${id}`) ?? `<token ${id}>`, logprob: logprobs.data[begin + rank] };
      });
      token.logprob = token.alternatives.find(({ id }) => id === token.id)?.logprob ?? null;
    });
  }
}

/** Position of the first token that the model generated: after the header's author. */
function findReply(tokens) {
  const first = tokens.findLastIndex(({ role }) => role === "user") + 1;
  const start = tokens.findIndex(({ role }, n) => n >= first && role === "assistant");
  if (start < 0) return first === 0 ? 0 : tokens.length;
  const isSpecial = ({ text }) => /^<\|.*\|>$/s.test(text);
  const end = tokens.findIndex((token, n) => n > start && isSpecial(token));
  return end < 0 ? tokens.length : end;
}
