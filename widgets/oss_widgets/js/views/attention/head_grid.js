/**
 * All heads of a layer, grouped by KV head, each with its share on tokens as numbers and bars.
 *
 * The heads are a radio group: one tab stop, arrow keys move and choose.
 */

import { make, moveFocus, refill } from "../elements.js";
import { averageShares } from "./head_shares.js";

export class HeadGrid {
  /** @param {HTMLElement} element @param {(head: number) => void} choose */
  constructor(element, choose) {
    this.choose = choose;
    this.root = make("div", {
      class: "oss-attention-heads", role: "radiogroup", onkeydown: (event) => this.handleKey(event),
    }); // prettier-ignore
    element.append(this.root);
  }

  /**
   * Show other heads.
   * @param {import("./patterns.js").Patterns} patterns
   * @param {number} layer
   * @param {import("../../source/source.js").Recording | null} sinks  [seq head]; null: without numbers
   */
  update(patterns, layer, sinks) {
    const { heads, run } = patterns;
    const kvHeads = patterns.kvHeads ?? 1;
    this.shares = sinks ? averageShares(sinks, run) : null;
    this.hasFocus = this.root.contains(document.activeElement);
    this.root.setAttribute("aria-label", `Heads of layer ${layer}`);
    this.buttons = Array.from({ length: heads }, (_, head) => this.makeButton(head));
    const size = heads / kvHeads;
    const groups = Array.from({ length: kvHeads }, (_, group) => {
      const [first, last] = [group * size, (group + 1) * size - 1];
      const range = first === last ? `head ${first}` : `heads ${first}–${last}`;
      const name = patterns.kvHeads === null ? range : `KV head ${group}: ${range}`;
      const members = make("div", { class: "oss-attention-group" }, this.buttons.slice(first, last + 1));
      const heading = make("div", { class: "oss-attention-group-name", "aria-hidden": "true" }, name);
      return make("div", { role: "group", "aria-label": name }, heading, members);
    });
    refill(this.root, groups);
  }

  makeButton(head) {
    const share = this.shares?.[head];
    const lines = share ? [["all", share.all], ...Object.entries(share.byChannel)] : [];
    return make(
      "button",
      { type: "button", role: "radio", class: "oss-attention-head", onclick: () => this.choose(head) },
      make("span", { class: "oss-attention-name" }, `head ${head}`),
      share ? make("span", { class: "oss-attention-on" }, nameState(share)) : null,
      lines.map(([name, value]) => makeBar(name, value)),
    );
  }

  /** Mark the head that is shown. */
  mark(head) {
    this.buttons.forEach((button, n) => {
      const isChecked = String(n === head);
      if (button.getAttribute("aria-checked") === isChecked) return;
      button.setAttribute("aria-checked", isChecked);
      button.tabIndex = n === head ? 0 : -1;
      if (n === head) this.scrollTo(button);
    });
    if (this.hasFocus) this.buttons[head].focus({ preventScroll: true }); // `update` made it again
    this.hasFocus = false;
  }

  /** Scroll the grid, not the page. */
  scrollTo({ offsetTop: top, offsetHeight: height }) {
    const { scrollTop, clientHeight } = this.root;
    if (top < scrollTop || top + height > scrollTop + clientHeight) this.root.scrollTop = top - 40;
  }

  handleKey(event) {
    const head = moveFocus(event, this.buttons);
    if (head !== null) this.choose(head);
  }
}

function nameState({ all, isOn }) {
  if (all === null) return "not recorded";
  return isOn ? "● on" : "○ off";
}

/** A share from 0 to 1 as a name, a number and a bar; null was not recorded. */
export function makeBar(name, value) {
  const bar = make("span", { class: "oss-attention-bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", value ?? 0);
  const number = value === null ? "–" : value.toFixed(2);
  const children = [make("span", {}, name), make("span", {}, number), bar];
  return make("span", { class: "oss-attention-line" }, children);
}
