/**
 * One run of the model in the page: its tokens, its cache, and how it is continued and forked.
 */

import { KVCache } from "../engine/cache.js";
import { contextLength, generate } from "../engine/generate.js";
import { RandomStream } from "../engine/random.js";
import { LabError } from "../errors.js";
import { render } from "../harmony/render.js";
import { samplingStops } from "../harmony/specials.js";
import { makeHooks } from "../hooks/interventions.js";
import { chainHooks } from "../model/hook.js";
import { messageText } from "../harmony/messages.js";
import { appendOutputs, findOpenCalls, ReplyReader } from "../record/reply.js";
import { labelTokenIds } from "../record/token_labels.js";
import { listCalls } from "./call.js";
import { LiveRecording } from "./live_recording.js";

const ALTERNATIVES = 5;
const ROUNDS = 8; // replies to one question; calls in the last one get no output

export class LiveRun {
  /**
   * @param {import("./live.js").LiveSource} source
   * @param {string} id
   * @param {import("./source.js").Request} request
   */
  constructor(source, id, request) {
    Object.assign(this, { source, id, request, parent: null, stop: null });
    Object.assign(this, { seconds: 0, generated: 0 }); // `generated`: tokens that were not inherited
    this.isStepping = false;
    this.interventions = request.interventions ?? [];
    makeHooks(source.config, this.interventions); // throws for a wrong one
    /** Since which position which interventions apply. */
    this.changes = [{ from: 0, interventions: this.interventions }];
    this.random = new RandomStream(request.sampling?.seed ?? null);
    this.cache = new KVCache(source.config);
    this.recording = new LiveRecording(source.model);
    /** The largest effect of a knock-out at each token, where it was computed. @type {number[]} */
    this.marks = [];
    /**
     * Each prompt and its reply; a tool's output begins another. `outcomes`: of the calls before it.
     * `kept`: the first token that differs from what was there.
     */
    this.exchanges = [];
    /** Of a fork: the exchanges that it began with, and the ids that it wrote. */
    this.inherited = 0;
    this.written = [];
    /** @type {import("./source.js").Token[]} */
    this.tokens = [];
  }

  /** Begin an exchange: the rendered messages replace what differs from them. */
  begin(messages, outcomes = []) {
    const { ids } = render(messages, this.source.tokenizer);
    const kept = countEqual(ids, this.tokens);
    this.cache.truncate(Math.min(this.cache.length, kept));
    this.recording.truncate(this.cache.length);
    this.marks.length = Math.min(this.marks.length, kept);
    const labels = labelTokenIds(this.source.tokenizer, ids);
    const unknown = { logprob: null, alternatives: [] };
    this.tokens = labels.map((label, n) => ({ ...(this.tokens[n] ?? unknown), ...label }));
    for (const token of this.tokens.slice(kept)) Object.assign(token, unknown);
    const reader = new ReplyReader(this.source.tokenizer, messages);
    this.exchanges.push({ start: ids.length, reader, outcomes, kept });
    this.stop = null;
    this.reply = null;
  }

  /** Take over what an earlier run has read of the same prompt: with another effort, its beginning. */
  reuse(runs) {
    const mine = JSON.stringify(this.changes);
    const ids = this.tokens.slice(0, -1).map(({ id }) => id); // the last one is read for its logits
    for (const { cache, changes, tokens, recording } of runs) {
      const shared = Math.min(countEqual(ids, tokens), cache.length);
      if (shared <= this.cache.length || JSON.stringify(changes) !== mine) continue;
      this.cache = cache.fork(shared);
      this.recording = recording.fork(shared);
    }
  }

  get promptLength() {
    return this.exchanges[0].start;
  }

  get reader() {
    return this.exchanges.at(-1).reader;
  }

  /** Of the replies, the tools and the open message, oldest first. */
  get messages() {
    const opening = this.exchanges[0].reader.prompt.length;
    const earlier = this.reader.prompt.slice(opening);
    const { parser } = this.reader;
    const all = [...earlier, ...parser.messages].map((message) => describeMessage(message, false));
    return parser.open ? [...all, describeMessage(parser.open.build(), true)] : all;
  }

  get answer() {
    return this.messages.filter((each) => each.channel === "final").map(({ text }) => text).join("\n");
  }

  get diagnostics() {
    return this.exchanges.flatMap(({ start, reader }) =>
      reader.parser.diagnostics.map(({ kind, position, message }) => ({
        code: kind, sentence: message, token: start + position,
      })),
    );
  }

  get openCalls() {
    const calls = this.reply ? findOpenCalls(this.reply) : [];
    return calls.map((call) => ({ name: call.recipient, text: messageText(call) }));
  }

  /** Every call and what became of it, in the order of the messages. */
  get calls() {
    return listCalls(this.exchanges);
  }

  /** The interventions in force at each position. @returns {import("../model/hook.js").Hooks} */
  makeHooks() {
    const { config } = this.source;
    const applied = this.changes.map(({ from, interventions }) => [from, makeHooks(config, interventions)]);
    return (point, layer, x, here) => {
      const [, { hooks }] = applied.findLast(([from]) => from <= here.position);
      hooks(point, layer, x, here);
    };
  }

  /** Generate up to `count` tokens of this reply. @returns {AsyncGenerator<Token>} */
  async *write(count, signal) {
    const { model, tokenizer } = this.source;
    const written = this.tokens.length - this.exchanges.at(-1).start;
    const left = (this.request.maxTokens ?? Infinity) - written;
    const options = {
      stop: samplingStops(tokenizer),
      isUsable: (id) => tokenizer.isUsable(id),
      maxTokens: Math.min(count, left),
      sampling: { temperature: 0, ...this.request.sampling },
      random: this.random,
      alternatives: ALTERNATIVES,
      hooks: chainHooks(this.makeHooks(), this.recording.hooksFrom(this.cache.length)),
      signal,
    };
    const unread = this.tokens.slice(this.cache.length).map(({ id }) => id);
    let started = performance.now();
    for await (const generated of generate(model, this.cache, unread, options)) {
      const token = this.addToken(generated);
      if (this.isComplete) this.finish();
      this.generated += 1;
      this.seconds += (performance.now() - started) / 1000;
      yield token;
      started = performance.now();
      if (this.stop !== null) return;
    }
    if (this.cache.length >= contextLength(model.config)) this.finish();
  }

  /** Whether the reply ends with its last token. */
  get isComplete() {
    const written = this.tokens.length - this.exchanges.at(-1).start;
    if (written === 0) return false;
    const stops = samplingStops(this.source.tokenizer);
    const isFull = written >= (this.request.maxTokens ?? Infinity);
    return isFull || this.reader.isInvented || stops.includes(this.tokens.at(-1).id);
  }

  /** @param {import("../engine/generate.js").Generated} generated */
  addToken({ id, logprob = null, alternatives = [] }) {
    const { tokenizer } = this.source;
    const events = this.reader.add(id);
    const { open } = this.reader.parser;
    const header = open?.header ?? events.findLast(({ event }) => event === "end")?.message;
    const token = {
      id,
      text: tokenizer.decode([id]),
      message: this.tokens.at(-1).message, // `finish` labels all tokens exactly
      role: "assistant",
      channel: header?.channel ?? null,
      recipient: header?.recipient ?? null,
      part: open && events.every(({ event }) => event === "delta") ? "content" : "format",
      logprob,
      alternatives: alternatives.map((each) => ({ ...each, text: tokenizer.decode([each.id]) })),
    };
    this.tokens.push(token);
    return token;
  }

  /** The reply is complete: parse it to its end and label every token. */
  finish() {
    const [, reply] = this.reader.finish();
    this.reply = reply;
    this.stop = reply.stop;
    this.label();
  }

  label() {
    const labels = labelTokenIds(this.source.tokenizer, this.tokens.map(({ id }) => id));
    this.tokens.forEach((token, n) => Object.assign(token, labels[n]));
  }

  /** Why the open calls are not run, as a sentence, or null. */
  get note() {
    const isLast = this.openCalls.length > 0 && this.exchanges.length === ROUNDS;
    return isLast ? `A question gets ${ROUNDS} replies.` : null;
  }

  /** Outcomes of the open calls; null if one of them is unknown. @returns {import("./call.js").Outcome[] | null} */
  findOutputs() {
    if (!this.openCalls.length || this.exchanges.length === ROUNDS) return null;
    const outcomes = this.openCalls.map((call) => this.source.runTool(this.request, call));
    return outcomes.every((outcome) => outcome !== null) ? outcomes : null;
  }

  /** @param {import("./call.js").Outcome[]} outcomes  of the open calls, in their order */
  appendOutputs(outcomes) {
    if (outcomes.length !== this.openCalls.length) {
      const count = this.openCalls.length;
      throw new LabError(`expected the outputs of ${count} open calls, got ${outcomes.length}`);
    }
    this.begin(appendOutputs(this.reply, outcomes.map(({ output }) => output)), outcomes);
  }

  /** A run with the tokens before `at`, then `ids`, under other interventions from `at - 1` on. */
  fork(id, at, ids, interventions) {
    if (!(Number.isInteger(at) && this.promptLength <= at && at <= this.tokens.length)) {
      const range = `${this.promptLength} to ${this.tokens.length}`;
      throw new LabError(`position ${at} is not in the reply; choose one from ${range}`);
    }
    checkIds(ids, this.source.tokenizer);
    const used = interventions ?? this.interventions;
    const child = new LiveRun(this.source, id, { ...this.request, interventions: used });
    child.parent = { run: this.id, at };
    const last = at - 1; // reading it again predicts the token at `at`
    const earlier = this.changes.filter(({ from }) => from < last);
    child.changes = [...earlier, { from: last, interventions: child.interventions }];
    child.random = this.random.fork();
    const read = Math.min(last, this.cache.length);
    child.cache = this.cache.fork(read);
    child.recording = this.recording.fork(read);
    child.marks = this.marks.slice(0, at);
    child.tokens = this.tokens.slice(0, at).map((token) => ({ ...token }));
    child.exchanges = this.exchanges.filter(({ start }) => start <= at);
    child.inherited = child.exchanges.length;
    child.written = ids;
    const { reader, ...exchange } = child.exchanges.pop();
    const fresh = new ReplyReader(this.source.tokenizer, reader.prompt);
    child.tokens.slice(exchange.start).forEach((token) => fresh.add(token.id));
    child.exchanges.push({ ...exchange, reader: fresh });
    ids.forEach((each) => child.addToken({ id: each }));
    if (child.isComplete) child.finish();
    return child;
  }

  /** @returns {Promise<import("./source.js").Recording>} */
  points(name, layer, range) {
    return this.recording.get(this, name, layer, range);
  }
}

function checkIds(ids, tokenizer) {
  const wrong = ids.find((id) => !tokenizer.isUsable(id));
  if (wrong !== undefined) throw new LabError(`${wrong} is not the id of a token that can be written`);
}

function describeMessage(message, isOpen) {
  const { role, channel = null, recipient = null } = message;
  return { role, channel, recipient, text: messageText(message), isOpen };
}

function countEqual(ids, tokens) {
  const end = tokens.findIndex((token, n) => token.id !== ids[n]);
  return end < 0 ? Math.min(tokens.length, ids.length) : end;
}
