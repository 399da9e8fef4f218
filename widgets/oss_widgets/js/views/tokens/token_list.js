/**
 * All tokens of a run as text: one button per token, grouped by message.
 *
 * One token is in the tab order; arrow keys, Home, End, Page Up and Page Down move to the others.
 * The tokens are in blocks of 100, each with the number of its first token. The browser lays out
 * only the blocks that are visible (`content-visibility`), which keeps 8,000 tokens usable.
 */

import { make } from "../elements.js";
import { nameMessage, startsMessage } from "./messages.js";
import { drawCell, removeCell } from "./token_cell.js";

const BLOCK = 100;
const SHARED = 4; // tokens that may share a character
const LOOKS = 5; // frames in which blocks near a token get their height

export class TokenList {
  /**
   * @param {HTMLElement} element
   * @param {(n: number) => void} select
   * @param {(n: number) => import("./token_cell.js").Look} look
   */
  constructor(element, select, look) {
    this.look = look;
    this.root = make("div", { class: "oss-token-list", role: "group", "aria-label": "Tokens" });
    element.append(this.root);
    /** @type {{button: HTMLButtonElement, id: number, starts: boolean, labels: string}[]} */
    this.cells = [];
    this.cursor = 0;
    this.selected = null;
    this.root.addEventListener("keydown", (event) => this.handleKey(event));
    this.root.addEventListener("focusin", (event) => this.moveTabStop(cellNumber(event)));
    this.root.addEventListener("click", (event) => {
      const n = cellNumber(event);
      if (n !== null) select(n);
    });
  }

  clear() {
    cancelAnimationFrame(this.pending);
    this.cells = [];
    this.cursor = 0;
    this.selected = null;
    this.root.replaceChildren();
  }

  /**
   * Show these tokens; cells that are the same stay.
   * @param {import("../../source/source.js").Token[]} tokens
   */
  update(tokens) {
    const { root } = this;
    const isAtEnd = root.scrollTop + root.clientHeight >= root.scrollHeight - 4;
    const isGrowing = this.cells.length > 0;
    const kept = this.countKept(tokens);
    while (this.cells.length > kept) removeCell(this.cells.pop().button);
    for (let n = kept; n < tokens.length; n++) this.append(tokens, n);
    this.nameGroups(tokens);
    this.drawChanged(tokens, kept);
    this.moveTabStop(Math.min(this.cursor, Math.max(tokens.length - 1, 0)));
    if (isGrowing && isAtEnd && kept < tokens.length) root.scrollTop = root.scrollHeight;
  }

  countKept(tokens) {
    const isSame = ({ id, starts }, n) => id === tokens[n]?.id && starts === startsMessage(tokens, n);
    const end = this.cells.findIndex((cell, n) => !isSame(cell, n));
    return end < 0 ? this.cells.length : end;
  }

  append(tokens, n) {
    const starts = startsMessage(tokens, n);
    const button = make(
      "button",
      { type: "button", class: "oss-token", tabindex: "-1", "aria-pressed": "false", "data-n": n },
    );
    if (starts) this.root.append(makeGroup());
    const group = this.root.lastChild;
    if (starts || n % BLOCK === 0) {
      group.append(make("div", { class: "oss-token-block", "data-from": n }));
    }
    group.lastChild.append(button);
    if (tokens[n].text.includes("\n")) group.lastChild.append(make("br"));
    this.cells.push({ button, starts, id: tokens[n].id, labels: "" });
  }

  nameGroups(tokens) {
    for (const group of this.root.children) {
      const from = Number(group.querySelector(".oss-token").dataset.n);
      const name = nameMessage(tokens, from);
      if (group.firstChild.textContent === name.text) continue;
      group.firstChild.textContent = name.text;
      group.setAttribute("aria-label", name.text);
      group.dataset.kind = name.kind;
    }
  }

  /** Draw the new cells, the ones before that may share a character with them, and new labels. */
  drawChanged(tokens, kept) {
    this.cells.forEach((cell, n) => {
      const labels = `${tokens[n].part} ${tokens[n].role} ${tokens[n].channel}`;
      if (n < kept - SHARED && labels === cell.labels) return;
      cell.labels = labels;
      drawCell(cell.button, this.look(n));
    });
  }

  /** Draw every cell again. */
  draw() {
    this.cells.forEach(({ button }, n) => drawCell(button, this.look(n)));
  }

  /** Outline a token; null for none. Scrolls there if `isShown`. */
  setSelected(n, isShown) {
    this.cells[this.selected]?.button.setAttribute("aria-pressed", "false");
    this.selected = n;
    const cell = this.cells[n];
    if (!cell) return;
    cell.button.setAttribute("aria-pressed", "true");
    this.moveTabStop(n);
    if (isShown) this.scrollTo(cell.button);
  }

  /** Scroll the list, not the page. Blocks get their height when they are near, so look again. */
  scrollTo(button, looks = LOOKS) {
    const { root } = this;
    const [own, seen] = [button.getBoundingClientRect(), root.getBoundingClientRect()];
    if (own.top < seen.top || own.bottom > seen.bottom) {
      root.scrollTop += own.top - seen.top - root.clientHeight / 2;
    }
    cancelAnimationFrame(this.pending);
    if (looks > 1) this.pending = requestAnimationFrame(() => this.scrollTo(button, looks - 1));
  }

  moveTabStop(n) {
    if (n === null) return;
    this.cells[this.cursor]?.button.setAttribute("tabindex", "-1");
    this.cursor = n;
    this.cells[n]?.button.setAttribute("tabindex", "0");
  }

  handleKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.cells.length) return;
    const target = this.findTarget(event.key);
    if (target === null) return;
    event.preventDefault();
    const { button } = this.cells[Math.min(Math.max(target, 0), this.cells.length - 1)];
    button.focus({ preventScroll: true });
    this.scrollTo(button);
  }

  findTarget(key) {
    const n = this.cursor;
    const moves = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: this.cells.length - 1,
      PageDown: n + BLOCK, PageUp: n - BLOCK }; // prettier-ignore
    if (key in moves) return moves[key];
    if (key === "ArrowDown") return this.findInLine(1);
    return key === "ArrowUp" ? this.findInLine(-1) : null;
  }

  /** The nearest token in the next line (1) or the one before (-1). */
  findInLine(step) {
    const box = (n) => this.cells[n].button.getBoundingClientRect();
    const own = box(this.cursor);
    let best = this.cursor;
    let line = null;
    for (let n = this.cursor + step; n >= 0 && n < this.cells.length; n += step) {
      const { top, left } = box(n);
      if (Math.abs(top - own.top) < own.height / 2) continue;
      line ??= top;
      if (Math.abs(top - line) > own.height / 2) break;
      const isNearer = Math.abs(left - own.left) < Math.abs(box(best).left - own.left);
      if (best === this.cursor || isNearer) best = n;
    }
    return best;
  }
}

function makeGroup() {
  return make("div", { class: "oss-token-message", role: "group" }, make("h4", {}));
}

function cellNumber(event) {
  const button = event.target.closest(".oss-token");
  return button ? Number(button.dataset.n) : null;
}
