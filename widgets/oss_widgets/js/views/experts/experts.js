/**
 * Experts: which experts each token chose in each layer, what an expert is used for, and what
 * changes without it.
 *
 * The map needs the point `moe.expert_ids`; `moe.expert_weights`, `moe.margin` and `moe.entropy` add
 * to it. Actions need a source that can `ask` or `fork`.
 */

import { LabError } from "../../errors.js";
import { make, makeChoice, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { HeatMap } from "../heat_map.js";
import { Details } from "./details.js";
import { listMeasures, loadMeasure } from "./measures.js";
import { Overlay } from "./overlay.js";
import { IDS, readArray, Recordings, WEIGHTS } from "./recordings.js";
import { makeRoutingMap } from "./routing_map.js";
import { listSections, positionsOf } from "./sections.js";
import { makeRoutingTable } from "./table.js";

const GROWTH_PAUSE = 250; // ms without a new token before a growing run is read again

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @param {{run?: import("../../source/source.js").Run, array?: {values: Float32Array, shape: number[],
 *   name?: string, unit?: string}}} [options]  `array` is [layer, seq] or [layer, seq, slot]
 * @returns {import("../frame.js").View}
 */
export function showExperts(element, source, selection, options = {}) {
  const view = new ExpertsView(element, source, selection, options);
  view.read();
  return {
    close: () => view.close(),
    data: () => view.data(),
    toSvg: () => view.map?.toSvg() ?? null,
  };
}

class ExpertsView {
  constructor(element, source, selection, options) {
    Object.assign(this, { source, selection, options, measureName: null, section: "all", map: null });
    this.frame = makeFrame(element, "experts", "Experts");
    this.measures = make("span");
    this.sections = make("span");
    const compare = (run) => this.compare(run);
    this.overlay = new Overlay(source, compare);
    this.flips = null;
    this.frame.controls.append(this.measures, this.sections, this.overlay.control);
    this.frame.addExport(() => this.map.toSvg());
    this.mapPlace = make("div");
    this.details = new Details(source, selection, this.frame, compare);
    this.frame.body.append(this.mapPlace, this.overlay.result, this.details.element);
    this.stops = [
      source.on("shown", () => options.run || this.read()),
      source.on("tokens", (run) => run === this.run && this.readSoon()),
      source.on("runs", () => this.recordings && this.overlay.list(this.run)),
      selection.on((changed) => this.follow(changed)),
    ];
    this.hide(source.can.has("ask") ? "Ask a question first." : "No run is shown; choose one first.");
  }

  get run() {
    return this.options.run ?? this.source.shown;
  }

  hide(sentence) {
    this.frame.say(sentence);
    this.frame.body.hidden = true;
    this.frame.controls.hidden = true;
  }

  readSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), GROWTH_PAUSE);
  }

  /** Request the numbers of the run and draw them, unless another run is shown by then. */
  async read() {
    const { run } = this;
    if (!run) return;
    const recordings = new Recordings(this.source, run);
    this.reading = recordings;
    try {
      const given = this.options.array ?? this.source.array;
      const array = given ? readArray(given, run) : null;
      if (!recordings.layers.length && !array) {
        throw new LabError(`no experts are recorded in this run; record ${IDS}`);
      }
      await recordings.load(IDS, WEIGHTS);
      const choices = listMeasures(recordings, array);
      const names = choices.map(({ value }) => value);
      const name = names.includes(this.measureName) ? this.measureName : (names[0] ?? null);
      const measure = name ? await loadMeasure(recordings, name, array) : null;
      if (this.reading !== recordings) return;
      this.overlay.list(run);
      const { flips } = await this.overlay.compare(recordings, this.overlay.other);
      if (this.reading !== recordings) return;
      Object.assign(this, { recordings, array, measure, measureName: name, flips });
      this.frame.clearError();
      this.draw(choices);
    } catch (problem) {
      if (this.reading === recordings) this.failToRead(problem);
    }
  }

  /** Nothing of an earlier run stays. */
  failToRead(problem) {
    this.hide("");
    this.recordings = null;
    this.frame.setTable(() => make("p", {}, "There is nothing to list."));
    this.frame.fail(problem);
  }

  draw(choices) {
    const { recordings } = this;
    this.seq = recordings.seq || this.array.seq;
    this.layers = this.array
      ? Array.from({ length: this.array.layers }, (_, layer) => layer)
      : recordings.layers;
    this.frame.body.hidden = false;
    this.frame.controls.hidden = false;
    this.frame.say(
      recordings.layers.length
        ? `Each cell names the first of the ${recordings.slots} experts that a token chose in a layer.`
        : `Each cell is ${this.array.name} of a token in a layer.`,
    );
    const found = listSections(recordings.run, this.seq);
    if (!found.includes(this.section)) this.section = "all";
    this.drawControls(choices, found);
    this.drawMap();
    this.drawPlace();
  }

  /** Made again only if the choices change, so that they keep the focus. */
  drawControls(choices, found) {
    const names = [...choices.map(({ value }) => value), ...found].join(" ");
    if (names === this.drawnChoices) return;
    this.drawnChoices = names;
    const takeMeasure = (value) => {
      this.measureName = value;
      this.read();
    };
    const takeSection = (value) => {
      this.section = value;
      this.drawMap();
    };
    const sections = ["all", ...found].map((value) => ({ value, text: value }));
    const isChoice = choices.length > 1;
    refill(this.measures, isChoice ? makeChoice("Color", choices, this.measureName, takeMeasure) : null);
    refill(this.sections, makeChoice("Tokens", sections, this.section, takeSection));
  }

  /** What the map and the table show. */
  shown() {
    const { recordings, layers, positions, measure, flips, selection } = this;
    const { run } = recordings;
    return { run, recordings, layers, positions, measure, flips, place: selection.place };
  }

  /** Mark where another run chose other experts; null ends it. */
  async compare(other) {
    const { recordings } = this;
    try {
      const { flips } = await this.overlay.compare(recordings, other);
      if (this.recordings !== recordings || this.overlay.other !== other) return;
      this.flips = flips;
      this.updateMap();
    } catch (problem) {
      this.frame.fail(problem);
    }
  }

  drawMap() {
    this.positions = positionsOf(this.recordings.run, this.seq, this.section);
    this.updateMap();
    this.followInMap(true);
  }

  updateMap() {
    const select = (row, column) => this.choose(this.layers[row], this.positions[column]);
    const options = { ...makeRoutingMap(this.shown()), select };
    if (this.map) this.map.update(options);
    else this.map = new HeatMap(this.mapPlace, options);
  }

  choose(layer, token) {
    const [first] = this.recordings.chosen(layer, token);
    this.selection.set({ layer, token, ...(first ? { expert: first.expert } : {}) });
  }

  follow(changed) {
    if (!this.recordings || changed.every((part) => part === "head" || part === "pinned")) return;
    this.followInMap(changed.includes("token") || changed.includes("layer"));
    this.drawPlace();
  }

  /** What depends on the selected place: the details, and the layer that the table shows. */
  drawPlace() {
    this.details.show(this.recordings);
    this.frame.setTable(() => makeRoutingTable(this.shown()));
  }

  followInMap(isShown) {
    const { layer, token } = this.selection;
    const [row, column] = [this.layers.indexOf(layer), this.positions.indexOf(token)];
    this.map.setSelected(row < 0 ? null : row, column < 0 ? null : column, isShown);
  }

  data() {
    if (!this.recordings) return { layers: [], positions: [], experts: [], values: [] };
    const { layers, positions, measure, recordings } = this;
    const perCell = (read) => layers.map((layer) => positions.map((position) => read(layer, position)));
    return {
      layers,
      positions,
      tokens: positions.map((position) => recordings.run.tokens[position].text),
      measure: measure && { name: measure.name, unit: measure.unit },
      values: measure ? perCell(measure.at) : [],
      flips: this.flips && perCell((layer, position) => this.flips[layer]?.[position] ?? 0),
      experts: perCell((layer, position) => recordings.chosen(layer, position).map(({ expert }) => expert)),
    };
  }

  close() {
    clearTimeout(this.timer);
    this.reading = null;
    this.stops.forEach((stop) => stop());
    this.details.close();
    this.map?.close();
    this.frame.close();
  }
}
