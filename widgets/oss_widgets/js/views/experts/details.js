/**
 * Beside the map: the selected token, the selected expert and what can be changed about it, and the
 * load of the layer.
 */

import { make, refill } from "../elements.js";
import { Actions } from "./actions.js";
import { refillBars } from "./bars.js";
import { makeExpertDetail, makeLoadBars } from "./expert_detail.js";
import { KnockOuts } from "./knockouts.js";
import { ENTROPY, MARGIN } from "./recordings.js";
import { makeTokenDetail } from "./token_detail.js";

export class Details {
  /** @param {(run: object) => void} compare  overlays a run */
  constructor(source, selection, frame, compare) {
    Object.assign(this, { source, selection, frame, recordings: null });
    this.token = make("div");
    this.knockOuts = new KnockOuts(source, frame);
    this.expert = make("div");
    this.actions = new Actions(source, frame, compare);
    this.load = make("div");
    const left = make("div", {}, this.token, this.knockOuts.element);
    const right = make("div", {}, this.expert, this.actions.element);
    const columns = make("div", { class: "oss-experts-columns" }, left, right);
    this.element = make("div", { class: "oss-experts-details" }, columns, this.load);
  }

  /** Shows the selected place, as far as it is in this run. */
  show(recordings) {
    this.recordings = recordings;
    this.element.hidden = !recordings.layers.length;
    if (this.element.hidden) return;
    const place = this.place();
    const { token, layer, expert } = place;
    const select = (chosen) => this.selection.set({ layer, expert: chosen });
    this.drawToken(place, select);
    if (token !== null) this.addRouterNumbers(place, select);
    this.knockOuts.show(recordings, token);
    refill(this.expert, expert === null ? null : makeExpertDetail(recordings, layer, expert));
    refillBars(this.load, makeLoadBars(recordings, layer, expert, select));
    this.actions.show(recordings, place);
  }

  /** The selected place; the first recorded layer if none is selected. */
  place() {
    const { layers, seq } = this.recordings;
    const { token, layer, expert } = this.selection;
    const { num_experts: experts } = this.source.config;
    return {
      token: token !== null && token < seq ? token : null,
      layer: layers.includes(layer) ? layer : layers[0],
      expert: expert !== null && expert < experts ? expert : null,
    };
  }

  drawToken(place, select) {
    const hint = () => make("p", {}, "Select a cell of the map to see a token's experts.");
    refillBars(this.token, place.token === null ? hint() : makeTokenDetail(this.recordings, place, select));
  }

  /** The margin and the entropy of one layer arrive after the experts are shown. */
  async addRouterNumbers(place, select) {
    const { recordings } = this;
    const isMissing = (name) => recordings.has(name) && !recordings.get(name, place.layer);
    const names = [MARGIN, ENTROPY].filter(isMissing);
    if (!names.length) return;
    try {
      await Promise.all(names.map((name) => recordings.request(name, place.layer)));
      if (this.recordings !== recordings) return;
      const now = this.place();
      if (now.token === place.token && now.layer === place.layer) this.drawToken(now, select);
    } catch (problem) {
      this.frame.fail(problem);
    }
  }

  close() {
    this.recordings = null;
    this.knockOuts.close();
    this.actions.close();
  }
}
