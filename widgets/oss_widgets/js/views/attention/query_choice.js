/**
 * The query: which token's row is shown. A slider, so arrow keys, a mouse and a finger move it.
 */

import { make, refill, tokenText } from "../elements.js";
import { partOf } from "./head_shares.js";

export class QueryChoice {
  /** @param {HTMLElement} element @param {(query: number) => void} choose */
  constructor(element, choose) {
    this.slider = make("input", {
      type: "range", min: 0,
      oninput: () => choose(Number(this.slider.value)),
    }); // prettier-ignore
    this.name = make("span", {});
    element.append(make("label", { class: "oss-attention-slider" }, "Query token", this.slider), this.name);
  }

  /** @param {import("./patterns.js").Patterns} patterns @param {number} query */
  update({ tokens, run, length }, query) {
    const text = tokens?.[query].text;
    const part = run ? (partOf(run, query) ?? "between channels") : "";
    this.slider.max = length - 1;
    this.slider.value = query;
    this.slider.setAttribute("aria-valuetext", `token ${query} ${text ?? ""} ${part}`);
    const shown = text === undefined ? null : tokenText(text);
    refill(this.name, `Token ${query} (the last is ${length - 1})`, shown && ": ", shown, part && `, ${part}`);
  }
}
