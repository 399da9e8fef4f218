/**
 * What the page says about each view, in the order in which they are shown.
 */

import { VIEWS } from "../views/registry.js";

/** `needs`: the ability without which the view would be empty. */
const DESCRIPTIONS = [
  { name: "chat", title: "Chat" },
  { name: "tokens", title: "Tokens" },
  { name: "experts", title: "Experts" },
  { name: "attention", title: "Attention" },
  { name: "lens", title: "Logit lens", needs: "lens" },
  { name: "attribution", title: "Attribution", needs: "attribution" },
  { name: "branches", title: "Branches", needs: "fork" },
  { name: "commitment", title: "Commitment", needs: "commitment" },
  { name: "effort_lens", title: "Effort lens", needs: "effortLens" },
  { name: "microscope", title: "MXFP4 microscope", needs: "block" },
];

/** The views that can show something of a source. */
export function listViews(source) {
  return DESCRIPTIONS.filter(({ name, needs }) => {
    return name in VIEWS && (needs === undefined || source.can.has(needs));
  });
}
