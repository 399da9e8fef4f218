/**
 * The guided path: one step at a time, its text, and how far the reader is.
 *
 * Any step can be opened or skipped. A step that is done says so, and stays done.
 */

import { make, refill } from "../views/elements.js";
import { STEPS } from "./steps.js";
import { listViews } from "./view_list.js";

export class GuidedPath {
  /**
   * @param {import("../source/source.js").Source} source
   * @param {import("../views/selection.js").Selection} selection
   * @param {object} calls
   * @param {(views: string[]) => void} calls.open  shows these views
   * @param {(view: string) => void} calls.focus  moves the focus to a view
   * @param {() => void} calls.leave  the path is at its end
   */
  constructor(source, selection, { open, focus, leave }) {
    Object.assign(this, { source, selection, open, leave });
    this.titles = new Map(listViews(source).map(({ name, title }) => [name, title]));
    this.steps = STEPS.filter((step) => step.views.every((name) => this.titles.has(name)));
    /** @type {Set<number>} */
    this.done = new Set();
    this.marks = this.steps.map((_, n) => this.makeMark(n));
    this.heading = make("h2", { tabindex: "-1" });
    this.text = make("p", {});
    this.task = make("p", { class: "oss-page-task" });
    this.status = make("span", { class: "oss-page-done", role: "status" });
    this.jump = make("button", { type: "button", onclick: () => focus(this.steps[this.at].views.at(-1)) });
    this.back = make("button", { type: "button", onclick: () => this.go(this.at - 1) }, "Back");
    this.next = make("button", { type: "button", onclick: () => this.go(this.at + 1) });
    this.root = make(
      "section",
      { class: "oss-view oss-page-path", "aria-label": "Guided path" },
      make("nav", { "aria-label": "Steps" }, make("ol", {}, this.marks.map((mark) => make("li", {}, mark)))),
      this.heading,
      this.text,
      this.task,
    );
    /** Stays visible while the reader scrolls. */
    this.bar = make("div", { class: "oss-view oss-page-bar" }, this.back, this.next, this.jump, this.status);
  }

  setHidden(isHidden) {
    this.root.hidden = isHidden;
    this.bar.hidden = isHidden;
  }

  makeMark(n) {
    const { title } = this.steps[n];
    const name = make("span", { class: "oss-page-mark-name" }, title);
    return make("button", { type: "button", title, onclick: () => this.go(n) }, `${n + 1}`, " ", name);
  }

  /** Show a step, and begin to watch for it. */
  show(n) {
    this.at = n;
    const step = this.steps[n];
    this.isDone = step.watch();
    this.heading.textContent = `Step ${n + 1} of ${this.steps.length}: ${step.title}`;
    refill(this.text, step.text(this.source.config));
    this.task.textContent = step.task;
    this.back.disabled = n === 0;
    this.jump.hidden = step.views.length === 1; // it follows at once
    this.jump.textContent = `Go to ${this.titles.get(step.views.at(-1))}`;
    this.open(step.views);
    this.update();
  }

  /** The same, as somebody asks for it: the heading gets the focus. */
  go(n) {
    if (n === this.steps.length) {
      this.leave();
      return;
    }
    this.show(n);
    this.heading.focus();
  }

  /** @param {import("./steps.js").Happening} happening */
  handle(happening) {
    if (this.done.has(this.at) || !this.isDone(happening, this.source, this.selection)) return;
    this.done.add(this.at);
    this.update();
  }

  update() {
    const isDone = this.done.has(this.at);
    const isLast = this.at === this.steps.length - 1;
    this.next.textContent = isLast ? "Open the lab" : isDone ? "Next step" : "Skip this step";
    this.next.classList.toggle("oss-page-primary", isDone);
    this.status.textContent = isDone ? `✓ Done: ${this.steps[this.at].title}` : "";
    this.marks.forEach((mark, n) => {
      mark.setAttribute("aria-current", n === this.at ? "step" : "false");
      mark.classList.toggle("oss-page-mark-done", this.done.has(n));
      mark.firstChild.textContent = this.done.has(n) ? "✓" : `${n + 1}`;
      mark.setAttribute("aria-label", `${this.steps[n].title}${this.done.has(n) ? ", done" : ""}`);
    });
  }
}
