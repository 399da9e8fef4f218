/**
 * The MXFP4 microscope: one block of 32 weights, as bits and as numbers. Flip a bit, and see how
 * far the layer's output and the next token move.
 */

import { make, makeTable, moveFocus, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { term } from "../glossary.js";
import { short } from "../numbers.js";
import { SvgPen } from "../pens.js";
import { inkOn, signedColor, toCss } from "../scale.js";
import { readColors } from "../theme.js";
import { nibbleOf, nibbleValue, roundingBounds, scaleValue, WEIGHT_BITS, WEIGHTS } from "./bits.js";
import { makeEffect } from "./effect.js";
import { makePlaceForm } from "./place_form.js";

const COLUMNS = 8;
const MOVES = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS };

/**
 * @param {HTMLElement} element
 * @param {import("../../source/source.js").Source} source
 * @param {import("../selection.js").Selection} selection
 * @returns {import("../frame.js").View}
 */
export function showMicroscope(element, source, selection) {
  const frame = makeFrame(element, "microscope", "MXFP4 microscope");
  const state = { block: null, weight: 0, place: null, wanted: null };
  frame.explain(
    term("MXFP4"), " Choose a weight to see its bits; press a bit to flip it for one forward pass.",
  ); // prettier-ignore
  if (!source.can.has("block")) {
    frame.report("This source has no stored weights, so there is no block to show.");
    return { close: frame.close, data: () => ({}), toSvg: () => null };
  }
  const grid = make("div", {
    class: "oss-microscope-grid", role: "radiogroup", "aria-label": "Weights", onkeydown: move,
  }); // prettier-ignore
  const detail = make("div", { class: "oss-microscope-detail" });
  const effect = makeEffect(source, selection, frame);
  const form = makePlaceForm(source.config, selection, (place) => load(place));
  frame.controls.append(form.root);
  frame.body.append(grid, detail, effect.root);
  frame.addExport(() => drawBlock(state.block, frame.root));
  frame.setTable(() => blockTable(state.block));

  async function load(place) {
    frame.clearError();
    state.wanted = place;
    try {
      const block = await source.analyze(source.shown, "block", place);
      if (state.wanted !== place) return; // another block was chosen since
      Object.assign(state, { block, place });
      paint();
    } catch (error) {
      frame.fail(error);
    }
  }

  function paint() {
    const { block, weight } = state;
    const { layer, expert, matrix, row, block: number } = state.place;
    const scale = scaleValue(block.scale);
    frame.say(
      `Layer ${layer}, expert ${expert}, ${matrix}, row ${row}, block ${number}: 32 weights, each ` +
        `one of 15 values times the shared scale 2^${block.scale - 127} = ${short(scale)}.`,
    );
    refill(grid, Array.from({ length: WEIGHTS }, (_, n) => makeWeight(block, n, weight, choose)));
    refill(detail, weightDetail(block, weight, flip), scaleDetail(block, flip));
    effect.clear();
  }

  function choose(weight) {
    state.weight = weight;
    paint();
    grid.children[weight].focus();
  }

  function move(event) {
    const weight = moveFocus(event, [...grid.children], MOVES);
    if (weight !== null) choose(weight);
  }

  function flip(bit) {
    effect.run(state.place, bit, state.block);
  }

  load(form.place());
  const stops = [
    selection.on((changed) => {
      if (changed.some((part) => part === "layer" || part === "expert")) load(form.follow());
    }),
    source.on("shown", () => effect.clear()), // it was about the tokens of another run
  ];
  return {
    close: () => {
      stops.forEach((stop) => stop());
      effect.clear();
      frame.close();
    },
    data: () => ({ ...state.place, scale: state.block?.scale, values: [...(state.block?.values ?? [])] }),
    toSvg: () => drawBlock(state.block, frame.root),
  };
}

function makeWeight(block, n, chosen, choose) {
  const nibble = nibbleOf(block.packed, n);
  const color = signedColor(nibbleValue(nibble) / 6);
  return make(
    "button",
    {
      type: "button", role: "radio", "aria-checked": String(n === chosen),
      tabindex: n === chosen ? "0" : "-1",
      style: `background: ${toCss(color)}; color: ${inkOn(color)}`,
      "aria-label": `weight ${n}: ${short(block.values[n])}, bits ${bitsOf(nibble)}`,
      onclick: () => choose(n),
    },
    make("span", { class: "oss-microscope-bits" }, bitsOf(nibble)), short(block.values[n]),
  ); // prettier-ignore
}

function bitsOf(nibble) {
  return nibble.toString(2).padStart(4, "0");
}

function weightDetail(block, weight, flip) {
  const nibble = nibbleOf(block.packed, weight);
  const scale = scaleValue(block.scale);
  const [low, high] = roundingBounds(nibble).map((bound) => bound * scale);
  const bits = [3, 2, 1, 0].map((bit) =>
    makeBit((nibble >> bit) & 1, `weight ${weight}, ${WEIGHT_BITS[bit]}`, () => flip(4 * weight + bit)),
  );
  return make(
    "div",
    { class: "oss-microscope-part" },
    make("h4", {}, `Weight ${weight}`),
    make("div", { class: "oss-microscope-row", role: "group", "aria-label": "Bits of the weight" }, bits),
    make("p", {}, `${short(nibbleValue(nibble))} × ${short(scale)} = ${short(block.values[weight])}`),
    make(
      "p",
      {},
      `Before rounding it was between ${short(low)} and ${short(high)}: ` +
        (Number.isFinite(high - low)
          ? `an error of at most ${short((high - low) / 2)}.`
          : "it may have been clipped."),
    ),
  );
}

function scaleDetail(block, flip) {
  const bits = [7, 6, 5, 4, 3, 2, 1, 0].map((bit) =>
    makeBit((block.scale >> bit) & 1, `scale, bit ${bit}`, () => flip(4 * WEIGHTS + bit)),
  );
  return make(
    "div",
    { class: "oss-microscope-part" },
    make("h4", {}, "Scale of the block"),
    make("div", { class: "oss-microscope-row", role: "group", "aria-label": "Bits of the scale" }, bits),
    make("p", {}, `byte ${block.scale}: 2^(${block.scale} − 127) = ${short(scaleValue(block.scale))}`),
    make("p", {}, "One flipped bit here changes all 32 weights."),
  );
}

function makeBit(value, label, flip) {
  const attributes = { type: "button", class: "oss-microscope-bit", onclick: flip };
  return make("button", { ...attributes, "aria-label": `Flip ${label}, now ${value}` }, String(value));
}

function blockTable(block) {
  if (!block) return make("p", {}, "No block is shown.");
  const rows = Array.from({ length: WEIGHTS }, (_, n) => {
    const nibble = nibbleOf(block.packed, n);
    const bounds = roundingBounds(nibble).map((bound) => short(bound * scaleValue(block.scale)));
    const numbers = [nibbleValue(nibble), block.values[n]].map(short);
    return [String(n), bitsOf(nibble), ...numbers, bounds.join(" to ")];
  });
  const heads = ["weight", "bits", "E2M1", "value", "before rounding"];
  return makeTable("The 32 weights of the block", heads, rows);
}

function drawBlock(block, root) {
  if (!block) return null;
  const colors = readColors(root);
  const pen = new SvgPen(640, 176, "An MXFP4 block");
  pen.rect(0, 0, 640, 176, { fill: colors.paper });
  for (let n = 0; n < WEIGHTS; n++) {
    const nibble = nibbleOf(block.packed, n);
    const color = signedColor(nibbleValue(nibble) / 6);
    const [x, y] = [(n % COLUMNS) * 80, Math.floor(n / COLUMNS) * 40];
    pen.rect(x + 1, y + 1, 78, 38, { fill: toCss(color) });
    pen.text(x + 40, y + 13, bitsOf(nibble), { fill: inkOn(color), anchor: "middle", mono: true });
    pen.text(x + 40, y + 28, short(block.values[n]), { fill: inkOn(color), anchor: "middle" });
  }
  pen.text(4, 168, `scale byte ${block.scale} = ${short(scaleValue(block.scale))}`, { fill: colors.ink });
  return pen.toString();
}
