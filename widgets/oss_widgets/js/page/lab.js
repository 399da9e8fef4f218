/**
 * The free lab, also for a stored trace: choose which views are open, and return to pinned places.
 */

import { make } from "../views/elements.js";
import { showPins } from "../views/pins.js";
import { listViews } from "./view_list.js";

export class FreeLab {
  /**
   * @param {import("../source/source.js").Source} source
   * @param {import("../views/selection.js").Selection} selection
   * @param {(views: string[]) => void} open
   */
  constructor(source, selection, open) {
    this.open = open;
    this.boxes = listViews(source).map(({ name, title }) => {
      const box = make("input", { type: "checkbox", value: name, onchange: () => this.open(this.chosen) });
      return { box, label: make("label", {}, box, title) };
    });
    const pins = make("div", {});
    showPins(pins, source, selection);
    const title = source.kind === "trace" ? "Stored trace" : "Free lab";
    this.root = make(
      "section",
      { class: "oss-view oss-page-lab", "aria-label": title },
      make("h2", { tabindex: "-1" }, title),
      make("p", {}, "All views show the same run and share one selection: token, layer, head and expert."),
      make(
        "fieldset",
        { class: "oss-controls" },
        make("legend", {}, "Open views"),
        this.boxes.map(({ label }) => label),
      ),
      pins,
    );
  }

  get chosen() {
    return this.boxes.filter(({ box }) => box.checked).map(({ box }) => box.value);
  }

  show(views) {
    for (const { box } of this.boxes) box.checked = views.includes(box.value);
    this.open(this.chosen);
  }
}
