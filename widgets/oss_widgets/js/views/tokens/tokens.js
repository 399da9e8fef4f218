/**
 * Tokens: every token of a run in reading order, with its probability, and the selected one in
 * detail. Writes an alternative instead, and finds the tokens where an expert matters.
 */

import { make, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { makeLegend } from "../legend.js";
import { probability, short } from "../numbers.js";
import { readColors } from "../theme.js";
import { findCharacter, readableText } from "../token_bytes.js";
import { makeTokenDetail } from "./token_detail.js";
import { KnockOutMarks } from "./knock_out_marks.js";
import { OwnArray } from "./own_array.js";
import { drawTokenLines } from "./token_lines.js";
import { TokenList } from "./token_list.js";
import { makeTokenTable } from "./token_table.js";

/** @typedef {import("../../source/source.js").Run} Run */

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @param {{run?: Run, array?: {values: ArrayLike<number>, shape: number[], name: string,
 *   unit?: string}}} [options]  `array` has one number per token, [seq]
 * @returns {import("../frame.js").View}
 */
export function showTokens(element, source, selection, options = {}) {
  return new TokensView(element, source, selection, options);
}

class TokensView {
  constructor(element, source, selection, { run = null, array = ownArray(source) }) {
    Object.assign(this, { source, selection, isFixed: run !== null });
    this.frame = makeFrame(element, "tokens", "Tokens");
    this.array = array && this.attempt(() => new OwnArray(array));
    this.marks = new KnockOutMarks(this.frame, source, () => this.redraw());
    this.addStop();
    this.addLegend();
    this.list = new TokenList(this.frame.body, (n) => this.select(n), (n) => this.look(n));
    const label = { role: "group", "aria-label": "Selected token" };
    this.detail = make("div", { class: "oss-token-detail", ...label });
    this.frame.body.append(this.detail);
    this.frame.addExport(() => this.toSvg());
    this.save = this.frame.controls.lastChild;
    this.stops = [
      source.on("shown", (shown) => this.isFixed || this.show(shown)),
      source.on("tokens", (grown) => grown === this.run && this.requestUpdate()),
      selection.on((changed) => changed.includes("token") && this.showSelected(true)),
    ];
    this.show(run ?? source.shown);
  }

  addStop() {
    const onclick = () => this.abort.abort();
    this.stop = make("button", { type: "button", hidden: true, onclick }, "Stop");
    this.frame.controls.append(this.stop);
  }

  addLegend() {
    const classes = "oss-token oss-token-known oss-token-sample";
    const bar = make("span", { class: classes }, "bar");
    bar.style.setProperty("--share", 0.5);
    const words = "its length is the token's probability; no bar: not recorded. Fainter: format.";
    this.sample = make("span", { class: "oss-token-words" }, bar, words);
    const colors = this.array && makeLegend(this.array.legend);
    const legend = make("div", { class: "oss-token-legend" }, this.sample, colors);
    this.frame.body.before(legend);
  }

  /** Run `call`; a mistake is shown as its sentence, and the result is null. */
  attempt(call) {
    try {
      return call();
    } catch (problem) {
      this.frame.fail(problem);
      return null;
    }
  }

  /** @param {Run | null} run */
  show(run) {
    this.run = run;
    if (this.array) this.frame.clearError();
    this.list.clear();
    this.update();
  }

  get tokens() {
    return this.run?.tokens ?? [];
  }

  /** Tokens may come faster than the screen is drawn; update once per frame. */
  requestUpdate() {
    this.pending ??= requestAnimationFrame(() => this.update());
  }

  update() {
    cancelAnimationFrame(this.pending);
    this.pending = null;
    const { run, tokens, frame } = this;
    if (run && this.array) this.attempt(() => this.array.check(tokens.length));
    frame.say(describeRun(run));
    this.save.hidden = tokens.length === 0;
    this.sample.hidden = tokens.every(({ logprob, part }) => logprob === null && part === "content");
    this.marks.show(run);
    this.list.update(tokens);
    frame.setTable(() => [makeTokenTable(tokens, this.array)]);
    this.showSelected(false);
  }

  redraw() {
    this.list.draw();
    this.showSelected(false);
  }

  /** @returns {import("./token_cell.js").Look} */
  look(n) {
    const token = this.tokens[n];
    const found = token.text.includes("\\x") ? findCharacter(this.tokens, n) : null;
    const text = found?.character ?? readableText(token.text);
    const part = found?.character ? `${found.part}/${found.parts}` : "";
    const isMarked = this.marks.isMarked(n);
    const share = token.logprob === null ? null : Number(Math.exp(token.logprob).toFixed(4));
    const words = [
      [text, part, `token ${n}`].filter(Boolean).join(" "),
      token.channel ?? token.role,
      token.part === "format" && "format",
      token.logprob !== null && `probability ${probability(token.logprob)}`,
      this.array && `${this.array.name} ${this.array.text(n)}`,
      isMarked && "an expert matters here",
    ];
    return {
      text,
      name: words.filter(Boolean).join(", "),
      share,
      color: this.array?.color(n) ?? null,
      isMarked,
      part,
      isFormat: token.part === "format",
    };
  }

  select(n) {
    this.isOwn = true; // the token was chosen here: do not scroll to it
    this.selection.set({ token: n });
    this.isOwn = false;
  }

  showSelected(isMoved) {
    const { tokens, detail, selection, marks, array } = this;
    const at = tokens[selection.token] ? selection.token : null;
    if (isMoved || at !== this.list.selected) this.list.setSelected(at, isMoved && !this.isOwn);
    if (at === null) {
      refill(detail, make("p", {}, tokens.length ? "Select a token to see more about it." : ""));
      this.drawn = null;
      return;
    }
    const change = marks.at(at);
    const values = [];
    if (array) values.push([array.name, array.text(at)]);
    if (change !== null) values.push(["Largest change by one expert", `${short(change)} nats`]);
    const canWrite = this.source.can.has("fork") && at >= this.run.promptLength;
    const write = canWrite ? (id) => this.writeInstead(at, id) : null;
    const drawn = JSON.stringify([this.run.id, at, tokens[at], values, canWrite, findCharacter(tokens, at)]);
    if (drawn === this.drawn) return; // keeps the focus on its buttons while the run grows
    this.drawn = drawn;
    refill(detail, makeTokenDetail(tokens, at, { values, write }));
  }

  /** Fork with another token at `at`, show the new run, and continue it to its end. */
  async writeInstead(at, id) {
    const { source, frame } = this;
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    frame.clearError();
    try {
      const child = await source.fork(this.run, at, { ids: [id] });
      source.show(child);
      if (this.isFixed) this.show(child);
      this.stop.hidden = false;
      frame.report("Generating the rest …");
      for await (const _ of source.step(child, { signal: abort.signal }));
      const count = child.tokens.length - at;
      frame.report(child.stop === null ? "Stopped." : `The new reply has ${count} tokens from here.`);
    } catch (problem) {
      frame.report("");
      frame.fail(problem);
    } finally {
      if (this.abort === abort) this.stop.hidden = true;
    }
  }

  data() {
    const { run, tokens, marks, array } = this;
    return {
      run: run?.id ?? null,
      promptLength: run?.promptLength ?? 0,
      tokens: tokens.map((token, position) => ({ position, ...token })),
      array: array && { name: array.name, unit: array.unit, values: [...array.values] },
      marks: marks.data(),
    };
  }

  toSvg() {
    if (!this.tokens.length) return null;
    const colors = readColors(this.frame.root);
    return drawTokenLines(this.tokens, (n) => this.look(n), colors, describeRun(this.run));
  }

  close() {
    this.abort?.abort();
    cancelAnimationFrame(this.pending);
    for (const stop of this.stops) stop();
    this.list.clear();
    this.frame.close();
  }
}

/** The array that a source without a model has, if it has one number per token. */
function ownArray({ array }) {
  return array?.axes === "seq" ? array : null;
}

function describeRun(run) {
  if (!run) return "There are no tokens yet. Ask a question first.";
  const count = run.tokens.length;
  if (!count) return "This run has no tokens.";
  const reply = count - run.promptLength;
  if (!run.promptLength) return `${count} tokens.`;
  return reply > 0
    ? `${count} tokens: ${run.promptLength} of the prompt and ${reply} of the reply.`
    : `${count} tokens, all of the prompt: there is no reply yet.`;
}
