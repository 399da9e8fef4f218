/**
 * The effort lens: one question at low, medium and high effort. Tokens by channel, the answer, and
 * how differently the layers use their experts, compared with what chance gives.
 */

import { addCompute } from "../compute.js";
import { make, makeTable, refill } from "../elements.js";
import { makeFrame } from "../frame.js";
import { short } from "../numbers.js";
import { SvgPen } from "../pens.js";
import { readColors } from "../theme.js";

const CHANNELS = ["analysis", "commentary", "final", "format"];

/** @returns {import("../frame.js").View} */
export function showEffortLens(element, source) {
  const frame = makeFrame(element, "effort-lens", "What effort changes");
  let found = null;
  const text = "Compare the three efforts";
  const subject = (run) => run?.request?.question; // the efforts of one question
  const analysis = { name: "effortLens", noun: "the effort lens", text, subject };
  const forget = addCompute(frame, source, analysis, show, () => {
    found = null;
    refill(frame.body);
  });
  frame.addExport(() => draw(found, frame.root));

  function show(result) {
    found = result;
    const longest = Math.max(...found.efforts.map(countTokens));
    const describe = (each) => `${each.effort}: ${countTokens(each)} tokens, “${each.answer}”`;
    frame.say(`${found.efforts.map(describe).join("; ")}.`);
    refill(frame.body, found.efforts.map((each) => makeBar(each, longest)), divergenceTable(found.pairs));
    frame.setTable(() => makeTable(
      "Tokens by channel", ["effort", ...CHANNELS, "answer"],
      found.efforts.map(({ effort, tokens, answer }) => [
        effort, ...CHANNELS.map((channel) => String(tokens[channel] ?? 0)), answer,
      ]),
    )); // prettier-ignore
  }

  function close() {
    forget();
    frame.close();
  }
  return { close, data: () => found ?? {}, toSvg: () => draw(found, frame.root) };
}

function countTokens({ tokens }) {
  return Object.values(tokens).reduce((sum, count) => sum + count, 0);
}

function makeBar({ effort, tokens, answer }, longest) {
  const used = CHANNELS.filter((channel) => tokens[channel]);
  const parts = used.map((channel) =>
    make("span", { class: `oss-on-${channel}`, style: `flex: ${tokens[channel]} 0 0` }),
  );
  const width = `${(100 * countTokens({ tokens })) / longest}%`;
  return make(
    "div",
    { class: "oss-effort-lens-row" },
    make("div", {}, make("strong", {}, effort), ": answer ", make("bdi", {}, answer || "(no answer)")),
    make("div", { class: "oss-effort-lens-bar", style: `width: ${width}`, "aria-hidden": "true" }, parts),
    make("div", {}, used.map((channel) => `${tokens[channel]} ${channel}`).join(", ")),
  );
}

function divergenceTable(pairs) {
  const layers = pairs[0]?.divergence.map((_, layer) => `layer ${layer}`) ?? [];
  const rows = pairs.map(({ efforts, divergence, byChance }) => [
    efforts.join(" and "),
    ...divergence.map((value, layer) => `${short(value)} (chance ${short(byChance[layer])})`),
  ]);
  const caption = "How differently two efforts use the experts (Jensen-Shannon divergence, bits)";
  return makeTable(caption, ["efforts", ...layers], rows);
}

function draw(found, root) {
  if (!found) return null;
  const colors = readColors(root);
  const longest = Math.max(...found.efforts.map(countTokens));
  const pen = new SvgPen(720, 40 * found.efforts.length, "Tokens at each effort");
  pen.rect(0, 0, 720, 40 * found.efforts.length, { fill: colors.paper });
  found.efforts.forEach((each, n) => {
    pen.text(70, 40 * n + 20, each.effort, { fill: colors.ink, anchor: "end" });
    pen.rect(80, 40 * n + 6, (400 * countTokens(each)) / longest, 28, { fill: colors.cursor });
    pen.text(490, 40 * n + 20, `${countTokens(each)} tokens, ${each.answer}`, { fill: colors.ink });
  });
  return pen.toString();
}
