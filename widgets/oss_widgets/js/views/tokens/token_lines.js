/** The tokens as lines of text in an SVG picture, with their bars, marks and messages. */

import { SvgPen } from "../pens.js";
import { inkOn, toCss } from "../scale.js";
import { nameMessage, startsMessage } from "./messages.js";

const WIDTH = 900;
const MARGIN = 12;
const LINE = 26;
const SIZE = 14;

/**
 * @param {import("../../source/source.js").Token[]} tokens
 * @param {(n: number) => import("./token_cell.js").Look} look
 * @param {Record<string, string>} colors  of `readColors`
 * @param {string} title
 */
export function drawTokenLines(tokens, look, colors, title) {
  const places = placeTokens(tokens, look);
  const height = (places.at(-1)?.y ?? 0) + LINE + MARGIN;
  const pen = new SvgPen(WIDTH, height, title);
  pen.rect(0, 0, WIDTH, height, { fill: colors.paper });
  for (const place of places) {
    const lettering = { fill: colors.ink, size: 12, bold: true };
    if (place.heading) pen.text(MARGIN, place.y - LINE, place.heading, lettering);
    drawToken(pen, place, colors);
  }
  return pen.toString();
}

function placeTokens(tokens, look) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${SIZE}px 'DejaVu Sans Mono', Menlo, Consolas, monospace`;
  let x = MARGIN;
  let y = MARGIN + LINE / 2;
  return tokens.map((token, n) => {
    const shown = look(n);
    const width = context.measureText(shown.text + shown.part).width + 6;
    const starts = startsMessage(tokens, n);
    const isNewLine = starts || x + width > WIDTH - MARGIN || (n > 0 && tokens[n - 1].text.includes("\n"));
    if (isNewLine && n > 0) y += LINE;
    if (starts) y += LINE;
    if (isNewLine) x = MARGIN;
    const place = { ...shown, x, y, width, heading: starts ? nameMessage(tokens, n).text : null };
    x += width + 2;
    return place;
  });
}

function drawToken(pen, { x, y, width, text, part, share, color, isMarked, isFormat }, colors) {
  const fill = color ? inkOn(color) : isFormat ? colors.faint : colors.ink;
  if (color) pen.rect(x, y - 9, width, 18, { fill: toCss(color) });
  pen.text(x + 3, y, text, { fill, size: SIZE, mono: true });
  if (part) pen.text(x + width - 3, y, part, { fill, size: 11, mono: true, anchor: "end" });
  if (share !== null) {
    pen.rect(x, y + 9, width, 3, { fill: colors.line });
    pen.rect(x, y + 9, width * share, 3, { fill: colors.cursor });
  }
  if (isMarked) pen.text(x + width - 4, y - 10, "◆", { fill: colors.mark, size: 9, anchor: "middle" });
}
