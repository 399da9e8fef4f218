/**
 * What is around the work: the choice between the guided path, the free lab and a stored trace, the
 * theme, and the address, which keeps the state of the page.
 */

import { LabError } from "../errors.js";
import { make, makeChoice } from "../views/elements.js";
import { decode, encode } from "../views/permalink.js";
import { Desk } from "./desk.js";
import { describeRun, repeatRun } from "./repeat_run.js";
import { makeThemeChoice } from "./theme_choice.js";

const TRACE = { value: "trace", text: "Stored trace" };
const MODES = [
  { value: "path", text: "Guided path" },
  { value: "lab", text: "Free lab" },
];
const FOOTER = "Everything is computed in this page and nothing is sent. The address keeps what you see.";
const SOON = 300; // milliseconds until the address follows a change

export class Front {
  /**
   * @param {import("../source/source.js").Source} live
   * @param {{source: import("../source/source.js").Source, name: string, leftOut: string[]} | null} trace
   */
  constructor(live, trace) {
    const calls = { changed: () => this.keepSoon(), leavePath: () => this.setMode("lab", true) };
    this.live = new Desk(live, calls);
    this.stored = trace && new Desk(trace.source, calls);
    this.stored?.root.prepend(describeTrace(trace));
    const modes = trace ? [TRACE, ...MODES] : MODES;
    this.modes = modes;
    this.firstMode = modes[0].value;
    this.mode = makeChoice("What to show", modes, this.firstMode, (mode) => this.setMode(mode));
    this.theme = makeThemeChoice(() => this.keepSoon());
    this.error = make("div", { class: "oss-error", role: "alert" });
    this.root = make(
      "div",
      {},
      make(
        "header",
        { class: "oss-view oss-page-header" },
        make("h1", {}, "Inside a language model"),
        this.mode,
      ),
      make("main", {}, this.error, this.stored?.root, this.live.root),
      make(
        "footer",
        { class: "oss-view oss-page-footer" },
        make("p", {}, FOOTER),
        make("span", { class: "oss-page-theme" }, "Theme", this.theme),
      ),
    );
    addEventListener("hashchange", () => this.restore());
  }

  get desk() {
    return this.mode.value === "trace" ? this.stored : this.live;
  }

  /** Show the path, the lab or the trace. */
  setMode(mode, isFocused = false) {
    this.mode.mark(mode);
    for (const desk of [this.live, this.stored]) if (desk) desk.root.hidden = desk !== this.desk;
    if (mode === "path") this.desk.showPath(this.desk.path.at ?? 0);
    else this.desk.showLab();
    if (isFocused) this.root.querySelector("h2:not([hidden] *)")?.focus();
    this.keepSoon();
  }

  keepSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keep(), SOON);
  }

  /** Write the state into the address. */
  keep() {
    const { desk } = this;
    const state = {
      mode: this.mode.value,
      step: this.live.path.at ?? 0,
      views: desk.workspace.openNames,
      theme: this.theme.value,
      selection: desk.selection.toJSON(),
      run: desk === this.live ? describeRun(desk.source, desk.source.shown) : null,
    };
    history.replaceState(null, "", `#${encode(state)}`);
  }

  /** Show the state that the address has; without one, the beginning. */
  async restore() {
    this.restoring?.abort(); // the link before
    this.restoring = new AbortController();
    const { signal } = this.restoring;
    this.error.textContent = "";
    const read = () => (location.hash.length > 1 ? decode(location.hash.slice(1)) : {});
    const state = await this.attempt(read);
    await this.attempt(() => this.read(state ?? {}, signal));
  }

  /** Call; a mistake is shown, and the result is undefined. */
  async attempt(call) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      this.error.textContent = `This link cannot be shown completely: ${error.message}`;
    }
  }

  /** @param {object} state  what `keep` wrote; any part may be missing @param {AbortSignal} signal */
  async read({ mode, step, views, theme, selection, run }, signal) {
    const isMode = this.modes.some(({ value }) => value === mode);
    this.theme.choose(theme);
    this.live.path.at = clampStep(step, this.live.path.steps.length);
    this.mode.mark(isMode ? mode : this.firstMode);
    if (Array.isArray(views)) this.desk.labViews = views;
    this.setMode(this.mode.value);
    const { desk } = this;
    const isRepeated = run && desk === this.live;
    if (isRepeated && !(await repeatRun(desk.source, run, signal))) return;
    if (selection) desk.selection.read(selection);
  }
}

function clampStep(step, count) {
  return Number.isInteger(step) ? Math.min(Math.max(step, 0), count - 1) : 0;
}

function describeTrace({ name, leftOut }) {
  const about = `This page shows the stored trace ${name}. `;
  const size = "Left out, since a page with a trace has at most 5 MB: ";
  return make(
    "div",
    { class: "oss-view oss-page-trace" },
    make("p", {}, about, "To ask questions, choose the guided path or the free lab, where nano runs."),
    leftOut.length ? make("p", {}, `${size}${leftOut.join("; ")}.`) : null,
  );
}
