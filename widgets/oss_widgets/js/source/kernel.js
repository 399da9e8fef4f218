/**
 * KernelSource: a Python kernel computes every number. `oss_widgets/sources/kernel.py` is its other
 * end, and describes the messages.
 *
 * All views of one Python source hear of the same runs. The source begins with the stored state, so
 * a view can show the last reply before Python answers, or if no kernel is there.
 */

import { LabError } from "../errors.js";
import { Listeners } from "./source.js";

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };
const PATIENCE = 5000; // milliseconds until a connection counts as silent
const SILENT =
  "Python does not answer: the kernel is busy, or no kernel is running, so this shows the stored state; " +
  "run the cell again to continue";

/** @implements {import("./source.js").Source} */
export class KernelSource {
  /**
   * @param {object} model  anywidget's: get, send, on, off
   * @param {{patience?: number}} [options]  milliseconds until a connection counts as silent
   */
  constructor(model, { patience = PATIENCE } = {}) {
    this.kind = "kernel";
    this.model = model;
    this.patience = patience;
    this.isAlive = true; // until it does not answer
    this.runs = [];
    this.shown = null;
    this.listeners = new Listeners();
    this.waiting = new Map(); // by id of the request
    this.prefix = Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("");
    this.count = 0;
    this.take(model.get("stored") ?? {});
    this.receive = this.receive.bind(this);
    model.on("msg:custom", this.receive);
  }

  on(change, call) {
    return this.listeners.on(change, call);
  }

  /** Ask Python for all runs. @returns {Promise<boolean>} whether it answers */
  async connect() {
    const before = describeShown(this);
    const hello = this.request("hello", {}).then((found) => {
      this.take(found);
      if (describeShown(this) !== before) this.listeners.notify("shown", this.shown);
    });
    try {
      await this.withinPatience(hello);
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      this.setAlive(false);
    }
    return this.isAlive;
  }

  /** The one sentence about a connection that is silent, or "" */
  get problem() {
    return this.isAlive ? "" : SILENT;
  }

  setAlive(isAlive) {
    const changed = isAlive !== this.isAlive;
    this.isAlive = isAlive;
    this.can = isAlive ? this.abilities : new Set();
    if (changed) this.listeners.notify("connection", this);
  }

  withinPatience(answer) {
    let timer;
    const silent = new Promise((_, fail) => {
      timer = setTimeout(() => fail(new LabError(SILENT)), this.patience);
    });
    return Promise.race([answer, silent]).finally(() => clearTimeout(timer));
  }

  /** Take over what Python says about itself and its runs. */
  take({ name = "", config = null, can = [], points = {}, runs = [], shown = null, ...offered }) {
    const { examples = [], tools = [] } = offered;
    Object.assign(this, { name, config, examples, tools, pointLayers: points, abilities: new Set(can) });
    this.can = this.isAlive ? this.abilities : new Set();
    for (const run of runs) this.keep(run);
    this.runs.sort((a, b) => numberOf(a) - numberOf(b));
    this.shown = this.runs.find(({ id }) => id === shown) ?? null;
  }

  /** Views keep the object of a run, so an event changes it in place. */
  keep(fields) {
    const known = this.runs.find(({ id }) => id === fields.id);
    if (known) return Object.assign(known, fields);
    this.runs.push(fields);
    return fields;
  }

  findRun(id) {
    return this.runs.find((run) => run.id === id);
  }

  // Messages

  /** Send a request. @returns {Promise<any>} its result; `id` is that of the message */
  request(method, args, id = this.newId()) {
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.send({ id, method, args });
    if (method !== "ping" && method !== "hello") this.watch(id);
    return answer;
  }

  newId() {
    return `${this.prefix}-${++this.count}`;
  }

  send(message) {
    try {
      this.model.send(message);
    } catch {
      this.setAlive(false);
      this.fail(message.id, new LabError(SILENT));
    }
  }

  /** While a request waits, check that somebody is there; work may take long, an answer to a ping not. */
  async watch(id) {
    const rest = () => new Promise((resolve) => setTimeout(resolve, this.patience));
    for (await rest(); this.waiting.has(id); await rest()) {
      try {
        await this.withinPatience(this.request("ping", {}));
        this.setAlive(true);
      } catch (error) {
        if (!(error instanceof LabError)) throw error;
        this.setAlive(false);
        this.fail(id, error);
      }
    }
  }

  fail(id, error) {
    this.waiting.get(id)?.reject(error);
    this.waiting.delete(id);
  }

  /** @param {object} content @param {DataView[]} buffers */
  receive(content, buffers = []) {
    if (content.event) return this.hear(content);
    const waiting = this.waiting.get(content.id);
    if (!waiting) return;
    this.waiting.delete(content.id);
    this.setAlive(true);
    if (content.error !== undefined) waiting.reject(new LabError(content.error));
    else waiting.resolve(unpack(content.result ?? null, buffers));
  }

  hear(content) {
    this.setAlive(true);
    const run = content.event === "runs" ? this.keep(content.run) : this.findRun(content.run);
    if (!run) return;
    if (content.event === "shown") this.shown = run;
    if (content.event === "tokens") this.grow(run, content);
    this.listeners.notify(content.event, run);
  }

  grow(run, { event, run: _, start, tokens, by, fresh, ...state }) {
    run.tokens.splice(start, Infinity, ...tokens);
    Object.assign(run, state);
    const reader = this.waiting.get(by);
    if (reader?.written && fresh) {
      reader.written.push(...run.tokens.slice(run.tokens.length - fresh));
      reader.wake();
    }
  }

  // What a source does

  async ask(request) {
    return this.findRun(await this.request("ask", { request }));
  }

  async *step(run, { count = null, signal } = {}) {
    if (signal?.aborted) return;
    const id = this.newId();
    const limit = Number.isFinite(count) ? count : null;
    const written = [];
    let wake = () => {};
    let end = null;
    const answer = this.request("step", { run: run.id, count: limit }, id);
    Object.assign(this.waiting.get(id) ?? {}, { written, wake: () => wake() });
    answer.then(
      () => (end = { error: null }),
      (error) => (end = { error }),
    ).then(() => wake()); // prettier-ignore
    const cancel = () => this.send({ id: this.newId(), method: "cancel", args: { id } });
    signal?.addEventListener("abort", cancel);
    try {
      while (true) {
        while (written.length) yield written.shift();
        if (end) break;
        await new Promise((resolve) => {
          wake = resolve;
          if (written.length || end) resolve();
        });
      }
      if (end.error) throw end.error;
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (!end) cancel();
    }
  }

  async fork(run, at, change = {}) {
    return this.findRun(await this.request("fork", { run: run.id, at, change }));
  }

  async answerCalls(run, outputs) {
    await this.request("answerCalls", { run: run.id, outputs });
  }

  estimate(run) {
    return this.request("estimate", { run: run.id });
  }

  toPython(run) {
    return this.request("toPython", { run: run.id });
  }

  /** Shows it here at once, and then in the other views of the same Python source. */
  show(run) {
    this.shown = run;
    this.listeners.notify("shown", run);
    this.request("show", { run: run.id }).catch((error) => {
      if (!(error instanceof LabError)) throw error;
    });
  }

  hasPoint(name, layer) {
    if (!this.isAlive || !Object.hasOwn(this.pointLayers, name)) return false;
    const layers = this.pointLayers[name];
    return layers === null || layer === undefined || layer === null || layers.includes(layer);
  }

  async points(run, name, layer, range = null) {
    return this.request("points", { run: run.id, name, layer, range });
  }

  async analyze(run, name, options = {}) {
    if (!this.can.has(name)) throw new LabError(this.problem || `Python cannot compute ${name} here`);
    return this.request("analyze", { run: run?.id ?? null, name, options }); // a block needs no run
  }

  close() {
    this.model.off("msg:custom", this.receive);
    this.waiting.clear(); // nobody is left who would show an answer
  }
}

function describeShown({ shown }) {
  return shown && `${shown.id} ${shown.tokens.length} ${shown.stop}`;
}

function numberOf({ id }) {
  return Number(id.split("-").at(-1));
}

/** A result with its arrays. A buffer may begin at any byte, so its bytes are copied first. */
function unpack(value, buffers) {
  if (Array.isArray(value)) return value.map((each) => unpack(each, buffers));
  if (value === null || typeof value !== "object") return value;
  if (typeof value.buffer === "number" && value.dtype in ARRAYS) {
    const { buffer, byteOffset, byteLength } = buffers[value.buffer];
    return new ARRAYS[value.dtype](buffer.slice(byteOffset, byteOffset + byteLength));
  }
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, unpack(each, buffers)]));
}
