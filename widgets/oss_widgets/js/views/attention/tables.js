/**
 * The same numbers as tables: the heads of the layer, and the row of the query.
 */

import { make, makeTable } from "../elements.js";

/**
 * @param {object} shown
 * @param {string} shown.layerName
 * @param {ReturnType<import("./head_shares.js").averageShares> | null} shown.shares
 * @param {string} shown.rowTitle
 * @param {string} shown.unit
 * @param {string[][]} shown.rows  key, token, weight; empty if there is no row
 */
export function makeTables({ layerName, shares, rowTitle, unit, rows }) {
  const tables = [];
  if (shares) {
    const parts = Object.keys(shares[0].byChannel);
    const write = (share) => share?.toFixed(4) ?? "not recorded";
    const heads = shares.map(({ all, isOn, byChannel }, head) => [
      `head ${head}`, isOn ? "on" : "off", write(all), ...parts.map((part) => write(byChannel[part])),
    ]); // prettier-ignore
    tables.push(makeTable(`Share on tokens, layer ${layerName}`, ["head", "on?", "all", ...parts], heads));
  }
  if (rows.length) tables.push(makeTable(rowTitle, ["key", "token", unit], rows));
  return make("div", {}, tables);
}
