/**
 * Attention: what each head reads. An overview of a layer's heads with their share on tokens, one
 * query's weights as text, the pattern of one head as a map, and changes of a head.
 *
 * Follows `token` (the query), `layer` and `head` of the selection. Only what is visible is
 * requested from the source.
 */

import { make, makeTable, refill, tokenText } from "../elements.js";
import { makeFrame } from "../frame.js";
import { term } from "../glossary.js";
import { HeadActions } from "./head_actions.js";
import { HeadGrid } from "./head_grid.js";
import { ON, partOf } from "./head_shares.js";
import { PATTERN, readArray, readRun, SINKS } from "./numbers.js";
import { PatternMap } from "./pattern_map.js";
import { PatternRows } from "./pattern_rows.js";
import { RowText } from "./row_text.js";

const SETTLE = 300; // milliseconds without a new token until a growing run is drawn again

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @param {object} [options]
 * @param {import("../../source/source.js").Run} [options.run]  instead of `source.shown`
 * @param {{values: ArrayLike<number>, shape: number[], name: string, unit: string}} [options.array]
 *   the caller's own numbers [head, seq, seq] instead of attention weights
 * @returns {import("../frame.js").View}
 */
export function showAttention(element, source, selection, options = {}) {
  const view = new AttentionView(element, source, selection, options);
  return { close: () => view.close(), data: () => view.data(), toSvg: () => view.map.toSvg() };
}

class AttentionView {
  constructor(element, source, selection, options) {
    Object.assign(this, { source, selection, options, numbers: null, sinks: null });
    const frame = makeFrame(element, "attention", "Attention");
    this.frame = frame;
    this.layerChoice = make("select", {
      onchange: () => selection.set({ layer: Number(this.layerChoice.value) }),
    });
    this.layerLabel = make("label", {}, "Layer", this.layerChoice);
    frame.controls.append(this.layerLabel);
    frame.addExport(() => this.map.toSvg());
    const words = ["head", "KV head", "sink", "window"].flatMap((word) => [term(word), " · "]);
    frame.body.append(make("p", {}, "Words: ", words.slice(0, -1)));

    const choose = (token) => selection.set({ token });
    this.rows = new PatternRows({
      arrive: () => this.drawRow(),
      wait: (range) => frame.report(range ? `computing ${describeRange(this, range)} …` : ""),
      fail: (problem) => frame.fail(problem),
    });
    this.grid = new HeadGrid(frame.body, (head) => this.chooseHead(head));
    this.heading = make("h4", {});
    this.missing = make("p", { class: "oss-attention-missing" });
    this.query = make("input", { type: "range", min: 0, oninput: () => choose(Number(this.query.value)) });
    this.query.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab's commands
    this.queryName = make("span", {});
    const label = make("label", { class: "oss-attention-slider" }, "Query token", this.query);
    this.one = make("div", {}, label, this.queryName);
    frame.body.append(this.heading, this.missing, this.one);
    this.row = new RowText(this.one, choose);
    this.map = new PatternMap(frame.body, this.rows, choose);
    this.map.root.addEventListener("toggle", () => this.markExport());
    this.actions = new HeadActions(frame.body, source, frame);
    this.stops = [
      selection.on(() => this.follow()),
      source.on("shown", () => options.run || this.load()),
      source.on("tokens", (run) => run === this.run && this.waitForMore()),
    ];
    this.load();
  }

  get run() {
    return this.options.run ?? this.source.shown;
  }

  chooseHead(head) {
    this.selection.set(this.options.array ? { head } : { layer: this.layer, head });
  }

  /** Draw again when a run that is being written pauses: every new token changes all averages. */
  waitForMore() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), SETTLE);
  }

  load() {
    const { array } = this.options;
    clearTimeout(this.timer);
    this.frame.clearError();
    this.frame.body.hidden = !array && !this.run?.tokens.length;
    this.frame.controls.hidden = this.frame.body.hidden;
    if (this.frame.body.hidden) return this.frame.say("Ask a question first.");
    try {
      this.numbers = array ? readArray(array, this.run) : readRun(this.source, this.run);
    } catch (problem) {
      this.frame.body.hidden = true;
      return this.frame.fail(problem);
    }
    const names = Array.from({ length: this.numbers.layers }, (_, n) => make("option", { value: n }, this.nameLayer(n)));
    refill(this.layerChoice, names);
    this.layerLabel.hidden = Boolean(array);
    this.query.max = this.numbers.length - 1;
    this.pick();
    this.drawLayer();
  }

  /** What the selection names, or a default where it names nothing that exists. */
  pick() {
    const { layers, heads, length, hasPattern, hasSinks } = this.numbers;
    const all = Array.from({ length: layers }, (_, n) => n);
    const recorded = all.find(hasPattern) ?? all.find(hasSinks) ?? 0;
    const within = (n, count, otherwise) => (n !== null && 0 <= n && n < count ? n : otherwise);
    const { layer, head, token } = this.selection;
    this.layer = this.options.array ? 0 : within(layer, layers, recorded);
    this.head = within(head, heads, 0);
    this.token = within(token, length, length - 1);
  }

  follow() {
    if (!this.numbers) return;
    const { layer } = this;
    this.pick();
    if (layer !== this.layer) this.drawLayer();
    else this.drawHead();
  }

  nameLayer(layer) {
    const { windowOf, hasPattern, hasSinks } = this.numbers;
    const window = windowOf(layer);
    const kind = window === null ? "full" : `sliding, window ${window}`;
    if (hasPattern(layer)) return `${layer}: ${kind}`;
    return `${layer}: ${kind}, ${hasSinks(layer) ? "only sink shares" : "not recorded"}`;
  }

  /** Draws at once what is known, and the sink shares when they come. */
  async drawLayer() {
    const { numbers, layer, frame } = this;
    this.sinks = null;
    frame.clearError();
    this.drawGrid();
    this.drawHead();
    if (!numbers.hasSinks(layer)) return;
    try {
      const sinks = await numbers.sinks(layer);
      if (numbers !== this.numbers || layer !== this.layer) return; // something else was selected
      this.sinks = sinks;
      this.drawGrid();
      this.drawHead();
    } catch (problem) {
      frame.fail(problem);
    }
  }

  drawGrid() {
    const { numbers, layer, sinks, frame } = this;
    this.grid.update(numbers, layer, sinks);
    if (numbers.unit !== null) return frame.say(`${numbers.name}, in ${numbers.unit}: ${numbers.heads} heads.`);
    const count = this.grid.shares?.filter(({ isOn }) => isOn).length;
    const isOn = `A head is on if it gives tokens more than ${ON} of its attention (1 − mean sink share)`;
    frame.say(`Layer ${this.nameLayer(layer)}. ${isOn}: ${count ?? "?"} of ${numbers.heads} are on.`);
  }

  drawHead() {
    const { numbers, layer, head, token, sinks } = this;
    const hasPattern = numbers.hasPattern(layer);
    this.layerChoice.value = layer;
    this.grid.mark(head);
    this.heading.textContent = this.nameHead();
    this.one.hidden = this.map.root.hidden = !hasPattern;
    refill(this.missing, hasPattern ? null : this.explainMissing());
    this.missing.hidden = hasPattern;
    this.rows.reset(numbers, layer, head);
    if (hasPattern) {
      this.query.value = token;
      this.query.setAttribute("aria-valuetext", this.nameQuery());
      const name = numbers.tokens ? tokenText(numbers.tokens[token].text) : null;
      refill(this.queryName, `${token} of 0 to ${numbers.length - 1} `, name, ` ${this.partName()}`);
      this.rows.want("row", token, token + 1);
      this.drawRow();
      this.map.update({ numbers, layer, head, query: token, sinks });
    }
    this.markExport();
    this.actions.update(numbers, layer, head);
  }

  /** The row of the query, or nothing until it has come. */
  drawRow() {
    const { numbers, layer, head, token, sinks } = this;
    const weights = this.rows.get(token);
    this.row.root.classList.toggle("oss-attention-waits", weights === null);
    this.frame.setTable(() => this.makeTables());
    this.map.requestPaint();
    if (weights === null) return;
    const window = numbers.windowOf(layer);
    const first = window === null ? 0 : Math.max(0, token + 1 - window);
    const sink = sinks ? sinks.data[token * numbers.heads + head] : null;
    const missing = numbers.hasSinks(layer)
      ? "The sink's share is being computed."
      : `Without ${SINKS} of this layer the sink's share is unknown.`;
    this.row.update({ numbers, layer, query: token, first, weights, sink, missing });
  }

  nameHead() {
    const { numbers, layer, head } = this;
    if (numbers.kvHeads === null) return `Head ${head}`;
    return `Head ${head} of layer ${layer}, KV head ${this.kvHead}`;
  }

  get kvHead() {
    const { kvHeads, heads } = this.numbers;
    return kvHeads === null ? null : Math.floor(this.head / (heads / kvHeads));
  }

  nameQuery() {
    const text = this.numbers.tokens?.[this.token].text ?? "";
    return `token ${this.token} ${text} ${this.partName()}`;
  }

  partName() {
    const { run } = this.numbers;
    return run ? (partOf(run, this.token) ?? "between channels") : "";
  }

  explainMissing() {
    const { layer, numbers } = this;
    const call = (points) => `lab.trace(reply, [${points}], layers=[${layer}])`;
    const both = numbers.hasSinks(layer) ? `"${PATTERN}"` : `"${PATTERN}", "${SINKS}"`;
    const what = numbers.hasSinks(layer) ? PATTERN : `${PATTERN} and ${SINKS}`;
    return [`${this.source.name} has no ${what} of layer ${layer}. Record it with `, make("code", {}, call(both)), "."];
  }

  /** Only an open map can be saved. */
  markExport() {
    this.frame.controls.querySelector(".oss-save").hidden = !this.map.root.open || this.map.root.hidden;
  }

  makeTables() {
    const { numbers, layer, token } = this;
    const tables = [];
    const { shares } = this.grid;
    if (shares) {
      const parts = Object.keys(shares[0].byChannel);
      const rows = shares.map(({ all, isOn, byChannel }, head) => [
        `head ${head}`, isOn ? "on" : "off", all.toFixed(4), ...parts.map((part) => byChannel[part].toFixed(4)),
      ]); // prettier-ignore
      tables.push(makeTable(`Share on tokens, layer ${layer}`, ["head", "on?", "all", ...parts], rows));
    }
    if (this.rows.get(token)) {
      const title = `${this.nameHead()}: weights of query token ${token}, the tokens of this page`;
      tables.push(makeTable(title, ["key", "token", numbers.unit ?? "weight"], this.row.toRows()));
    }
    return make("div", {}, tables);
  }

  data() {
    if (!this.numbers) return null;
    const { numbers, layer, head, token, sinks, kvHead } = this;
    const weights = this.rows.get(token);
    return {
      name: numbers.name,
      unit: numbers.unit,
      run: numbers.run?.id ?? null,
      window: numbers.windowOf(layer),
      layer, head, kvHead, token,
      weights: weights && Array.from(weights),
      sink: sinks ? sinks.data[token * numbers.heads + head] : null,
      threshold: ON,
      heads: this.grid.shares,
    }; // prettier-ignore
  }

  close() {
    clearTimeout(this.timer);
    for (const stop of this.stops) stop();
    this.rows.reset(null, null, null);
    this.actions.close();
    this.map.close();
    this.frame.close();
  }
}

function describeRange({ numbers, layer }, { from, to }) {
  return `${numbers.name} of layer ${layer}, queries ${from} to ${to - 1}`;
}
