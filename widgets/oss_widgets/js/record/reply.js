/**
 * Build a reply from its tokens, one at a time, while they are generated.
 *
 * The reader turns tokens into events, ends an analysis that exceeds its budget with the header of
 * `final`, and stops where the model begins a message of another author.
 */

import { findDeclaredTools, findDemandedChannels } from "../harmony/demands.js";
import { isCall, isFinal } from "../harmony/exchanges.js";
import { makeMessage, messageText } from "../harmony/messages.js";
import { StreamParser } from "../harmony/parse.js";
import { CALL, CHANNEL, END, ENDOFTEXT, MESSAGE, RETURN, START } from "../harmony/specials.js";

const STOP_OF_TOKEN = { [RETURN]: "return", [CALL]: "call", [ENDOFTEXT]: "endoftext" };

export class ReplyReader {
  /**
   * @param {import("../tokenizer.js").Tokenizer} tokenizer
   * @param {import("./messages.js").Message[]} prompt the conversation that is continued
   * @param {number} analysisBudget tokens that the analysis may take
   */
  constructor(tokenizer, prompt, analysisBudget = Infinity) {
    this.tokenizer = tokenizer;
    this.prompt = prompt;
    this.analysisBudget = analysisBudget;
    this.analysisTokens = 0;
    this.isInvented = false; // whether the model has begun a message of another author
    this.ids = [];
    const recipients = findDeclaredTools(prompt);
    const channels = findDemandedChannels(prompt);
    this.parser = new StreamParser(tokenizer, "assistant", { recipients, channels });
  }

  /** Add the next token; returns the events that it causes. */
  add(id) {
    this.ids.push(id);
    if (this.isThinking()) this.analysisTokens += 1;
    return this.cutInvented(this.parser.feed(id));
  }

  /** The ids to force next if the analysis has used up its budget, else none. */
  nextForcedIds() {
    if (this.analysisTokens < this.analysisBudget || !this.isThinking()) return [];
    const special = (name) => this.tokenizer.specialIds.get(name);
    const author = this.tokenizer.encode("assistant");
    const header = [special(CHANNEL), ...this.tokenizer.encode("final"), special(MESSAGE)];
    return [special(END), special(START), ...author, ...header];
  }

  /** Close what is open; returns the last events and the reply. */
  finish() {
    const complete = this.parser.messages.length;
    const events = this.cutInvented(this.parser.finish());
    const end = this.parser.messages.findIndex((message) => message.role !== "assistant");
    const messages = end < 0 ? this.parser.messages : this.parser.messages.slice(0, end);
    const isCut = messages.length > complete;
    const { prompt, ids } = this;
    const { diagnostics } = this.parser;
    return [events, { prompt, ids, messages, stop: this.stopReason(messages), isCut, diagnostics }];
  }

  isThinking() {
    const { open } = this.parser; // a tool call on this channel does not count
    return open !== null && open.header.channel === "analysis" && !open.header.recipient;
  }

  /** The events that belong to the reply; after an invented message only diagnostics do. */
  cutInvented(events) {
    return events.filter((event) => {
      if (event.event === "start" && event.role !== "assistant") this.isInvented = true;
      return event.event === "diagnostic" || !this.isInvented;
    });
  }

  stopReason(messages) {
    const last = this.tokenizer.specialNames.get(this.ids.at(-1));
    if (this.isInvented) return "invented";
    // Nothing was called, so the reply waits for nothing.
    if (last === CALL && !messages.some((message) => message.recipient)) return "return";
    return STOP_OF_TOKEN[last] ?? "length";
  }
}

/** What the assistant wrote on a channel, without calls. */
export function textOn(messages, channel) {
  const said = messages.filter((each) => each.role === "assistant" && !isCall(each));
  return said.filter((each) => each.channel === channel).map(messageText).join("\n");
}

/** The calls of a reply that wait for an output. A call before an answer does not wait. */
export function findOpenCalls(reply) {
  if (reply.isCut) return [];
  return reply.messages.slice(reply.messages.findLastIndex(isFinal) + 1).filter(isCall);
}

/**
 * The conversation with the outputs of a reply's open calls, to continue from. The nth text is the
 * output of the nth call.
 */
export function appendOutputs(reply, outputs) {
  const added = findOpenCalls(reply).map((call, n) => {
    const fields = { channel: call.channel || "commentary", recipient: "assistant" };
    return makeMessage("tool", outputs[n], { name: call.recipient, ...fields });
  });
  const own = reply.messages.filter((each, n) => {
    const isEmpty = reply.isCut && n === reply.messages.length - 1 && !messageText(each);
    return each.role === "assistant" && !isEmpty;
  });
  return [...reply.prompt, ...own, ...added];
}
