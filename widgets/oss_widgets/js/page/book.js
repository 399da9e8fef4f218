/**
 * The live views of one page of the book. An element of class `oss-live` names a view, a source and
 * a question, and contains a stored copy. When the reader comes near, the view replaces the copy.
 * Views with the same source share its runs and its selection, as in a notebook.
 */

import { LiveSource } from "../source/live.js";
import { make } from "../views/elements.js";
import { VIEWS } from "../views/registry.js";
import { Selection } from "../views/selection.js";
import { unpack } from "./data.js";
import { repeatRun } from "./repeat_run.js";
import { findMissing } from "./support.js";

// Views up to this far below the window are opened. One above it stays a copy: a view has another
// height, which would move what the reader has come to read.
const NEAR = "0px 0px 400px 0px";

/**
 * @param {object} nano  config, vocabulary and gallery, for LiveSource
 * @param {string} packed  the weights, for `unpack`
 */
export function startBook(nano, packed) {
  followTheme();
  const places = [...document.querySelectorAll(".oss-live")];
  const missing = findMissing();
  if (missing) {
    for (const place of places) showNotice(place, `The live view needs ${missing}: use a newer browser.`);
    return;
  }
  const desks = new Map();
  const openDesk = (name) => {
    if (!desks.has(name)) desks.set(name, startDesk(nano, packed));
    return desks.get(name);
  };
  const watcher = new IntersectionObserver(
    (changes) => {
      for (const { target } of changes.filter((change) => change.isIntersecting)) {
        watcher.unobserve(target);
        openView(target, openDesk).catch((error) => showNotice(target, `The live view failed: ${error}`));
      }
    },
    { rootMargin: NEAR },
  );
  for (const place of places) watcher.observe(place);
}

/** A source with its selection. */
async function startDesk(nano, packed) {
  const source = new LiveSource({ ...nano, weights: await unpack(packed) });
  return { source, selection: new Selection(), isAsked: false };
}

/** @param {HTMLElement} place @param {(name: string) => Promise<object>} openDesk */
async function openView(place, openDesk) {
  const { view, source: name, request, selection } = JSON.parse(place.dataset.live);
  const desk = await openDesk(name);
  keepEnd(place, () => {
    for (const copy of place.children) copy.hidden = true;
    const root = make("div", {});
    place.append(root);
    VIEWS[view](root, desk.source, desk.selection, request);
  });
  if (request.question && !desk.isAsked) {
    desk.isAsked = true;
    await repeatRun(desk.source, { request, forks: [] }, new AbortController().signal);
  }
  if (selection) desk.selection.set(selection);
}

/** Change the height of a place. If it begins above the window, its end stays where it was seen. */
function keepEnd(place, change) {
  const { top, bottom } = place.getBoundingClientRect();
  change();
  if (top >= 0) return;
  const moved = place.getBoundingClientRect().bottom - Math.min(bottom, innerHeight);
  scrollBy({ top: moved, behavior: "instant" });
}

function showNotice(place, text) {
  place.prepend(make("p", { role: "alert" }, text));
}

/** The views read the theme from the root element; the book's theme keeps it on the body. */
function followTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const { theme } = document.body.dataset;
    const system = dark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = ["light", "dark"].includes(theme) ? theme : system;
  };
  new MutationObserver(apply).observe(document.body, { attributeFilter: ["data-theme"] });
  dark.addEventListener("change", apply);
  apply();
}
