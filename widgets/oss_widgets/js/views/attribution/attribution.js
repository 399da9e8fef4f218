/**
 * Attribution: how much each attention head and each expert slot adds to the logit of a token.
 *
 * Two maps, layers by heads and layers by slots, with one scale for both.
 */

import { addCompute } from "../compute.js";
import { make, makeTable, tokenText } from "../elements.js";
import { makeFrame } from "../frame.js";
import { HeatMap } from "../heat_map.js";
import { short, signed } from "../numbers.js";
import { SvgPen } from "../pens.js";
import { signedColor } from "../scale.js";

const CLIPPED = 0.98; // the scale ends at this quantile, so that one large part does not hide the rest

/** @returns {import("../frame.js").View} */
export function showAttribution(element, source, selection) {
  const frame = makeFrame(element, "attribution", "What a logit is made of");
  let shown = null;
  let maps = [];
  const analysis = {
    name: "attribution",
    noun: "attributions",
    text: "Compute for the selected token",
    listOptions: (run) => ({ at: Math.max(1, selection.token ?? run.tokens.length - 1) }),
  };
  const forget = addCompute(frame, source, analysis, show, () => {
    maps.forEach((map) => map.close());
    shown = null;
    maps = [];
    frame.body.replaceChildren();
  });
  frame.addExport(() => drawMaps(maps));

  function show(found, run, { at }) {
    shown = { ...found, at, token: run.tokens[at] };
    const { heads, slots, embedding, bias, logit } = found;
    const biases = bias.reduce((sum, part) => sum + part, 0);
    frame.say(
      `The logit ${short(logit)} of token ${at} is the sum of ${short(embedding)} from the embedding, ` +
        `${short(sumAll(heads))} from the heads, ${short(biases)} from attention biases and ` +
        `${short(sumAll(slots))} from the experts. Effects through later layers are not included.`,
    );
    maps.forEach((map) => map.close());
    frame.body.replaceChildren(make("p", {}, "token ", tokenText(run.tokens[at].text)));
    const limit = scaleLimit([...heads.flat(), ...slots.flat()]);
    const expertName = (layer, slot) => `expert ${found.expertIds[layer][slot]}`;
    maps = [
      addMap("attention heads", heads, limit, (layer, head) => `head ${head}`, (layer, head) =>
        selection.set({ layer, head })),
      addMap("expert slots", slots, limit, expertName, (layer, slot) =>
        selection.set({ layer, expert: found.expertIds[layer][slot] })),
    ];
    frame.setTable(() => partsTable(shown));
  }

  function addMap(label, parts, limit, nameOf, select) {
    frame.body.append(make("h4", {}, label));
    return new HeatMap(frame.body, {
      label, header: 60, rows: parts.length, columns: parts[0].length,
      rowName: (layer) => `layer ${layer}`,
      columnName: (column) => `${label.split(" ")[1].slice(0, -1)} ${column}`,
      size: { width: 46, height: 22 },
      cell: (layer, column) => ({
        color: signedColor(parts[layer][column] / limit), text: signed(parts[layer][column], 1),
      }),
      describe: (layer, column) =>
        `Layer ${layer}, ${nameOf(layer, column)}: ${signed(parts[layer][column])} of the logit.`,
      select,
    }); // prettier-ignore
  }

  return {
    close: () => {
      forget();
      frame.close();
    },
    data: () => shown ?? {},
    toSvg: () => drawMaps(maps),
  };
}

/** The visible parts of both maps, one below the other. */
function drawMaps(maps) {
  if (!maps.length) return null;
  const pictures = maps.map((map) => map.drawSvg().root);
  const sizes = pictures.map((picture) => ["width", "height"].map((name) => Number(picture.getAttribute(name))));
  const width = Math.max(...sizes.map(([each]) => each));
  const pen = new SvgPen(width, sizes[0][1] + sizes[1][1], "Parts of the logit");
  pictures[1].setAttribute("y", sizes[0][1]);
  pen.root.append(...pictures);
  return pen.toString();
}

function sumAll(rows) {
  return rows.flat().reduce((sum, part) => sum + part, 0);
}

function scaleLimit(parts) {
  const sizes = parts.map(Math.abs).sort((a, b) => a - b);
  return sizes[Math.floor(CLIPPED * (sizes.length - 1))] || 1;
}

function partsTable({ heads, slots, expertIds }) {
  const rows = heads.flatMap((row, layer) => [
    ...row.map((part, head) => [`layer ${layer}, head ${head}`, signed(part)]),
    ...slots[layer].map((part, slot) => [`layer ${layer}, expert ${expertIds[layer][slot]}`, signed(part)]),
  ]);
  return makeTable("Parts of the logit", ["part", "logit"], rows);
}
