/**
 * Two pens with the same strokes: one draws on a canvas, one writes SVG. A picture is a function
 * that takes a pen, so what is exported is what is shown.
 */

import { makeSvg } from "./elements.js";

/** @typedef {{fill?: string, stroke?: string, width?: number, dash?: number[]}} Stroke */
/** @typedef {{fill: string, size?: number, anchor?: "start" | "middle" | "end", turn?: number,
 *   mono?: boolean, bold?: boolean}} Lettering  `turn` in degrees */

const SANS = "system-ui, 'DejaVu Sans', sans-serif";
const MONO = "'DejaVu Sans Mono', Menlo, Consolas, monospace";

const ALIGN = { start: "left", middle: "center", end: "right" };

export class CanvasPen {
  /** @param {CanvasRenderingContext2D} context */
  constructor(context) {
    this.context = context;
    this.font = null; // the font that the context has, if known
  }

  rect(x, y, width, height, { fill, stroke, width: line = 1, dash = [] }) {
    const { context } = this;
    if (fill) {
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
    }
    if (stroke) {
      context.strokeStyle = stroke;
      context.lineWidth = line;
      context.setLineDash(dash);
      context.strokeRect(x + line / 2, y + line / 2, width - line, height - line);
    }
  }

  line(x1, y1, x2, y2, { stroke, width = 1, dash = [] }) {
    const { context } = this;
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
    context.stroke();
  }

  text(x, y, text, { fill, size = 12, anchor = "start", turn = 0, mono = false, bold = false }) {
    const { context } = this;
    const font = `${bold ? "bold " : ""}${size}px ${mono ? MONO : SANS}`;
    if (font !== this.font) context.font = this.font = font; // slow, and maps have thousands of texts
    context.fillStyle = fill;
    context.textAlign = ALIGN[anchor];
    context.textBaseline = "middle";
    if (!turn) context.fillText(text, x, y);
    else {
      context.translate(x, y);
      context.rotate((turn * Math.PI) / 180);
      context.fillText(text, 0, 0);
      context.rotate((-turn * Math.PI) / 180);
      context.translate(-x, -y);
    }
  }

  /** Draw only inside a rectangle until `unclip`. */
  clip(x, y, width, height) {
    this.context.save();
    this.font = null;
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
  }

  unclip() {
    this.context.restore();
    this.font = null;
  }
}

let clips = 0; // names are unique, also if one picture is put into another

export class SvgPen {
  constructor(width, height, title) {
    this.root = makeSvg("svg", {
      xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    });
    this.root.append(makeSvg("title", {}, title));
    this.target = this.root;
  }

  rect(x, y, width, height, { fill = "none", stroke, width: line, dash }) {
    const style = { fill, stroke, "stroke-width": line, "stroke-dasharray": dash?.join(" ") };
    this.target.append(makeSvg("rect", { x, y, width, height, ...style }));
  }

  line(x1, y1, x2, y2, { stroke, width = 1, dash }) {
    const style = { stroke, "stroke-width": width, "stroke-dasharray": dash?.join(" ") };
    this.target.append(makeSvg("line", { x1, y1, x2, y2, ...style }));
  }

  text(x, y, text, { fill, size = 12, anchor = "start", turn = 0, mono = false, bold = false }) {
    const attributes = {
      x, y, fill, "font-size": size, "text-anchor": anchor, "dominant-baseline": "central",
      "font-family": mono ? MONO : SANS, "font-weight": bold ? "bold" : null,
      transform: turn ? `rotate(${turn} ${x} ${y})` : null, "xml:space": "preserve",
    };
    this.target.append(makeSvg("text", attributes, text));
  }

  clip(x, y, width, height) {
    const id = `oss-clip-${clips++}`;
    this.root.append(makeSvg("clipPath", { id }, makeSvg("rect", { x, y, width, height })));
    this.target = makeSvg("g", { "clip-path": `url(#${id})` });
    this.root.append(this.target);
  }

  unclip() {
    this.target = this.root;
  }

  toString() {
    return new XMLSerializer().serializeToString(this.root);
  }
}
