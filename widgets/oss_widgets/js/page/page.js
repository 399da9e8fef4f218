/**
 * The page: nano and its views, along a guided path or freely; with a stored trace, that too.
 */

import { LabError } from "../errors.js";
import { LiveSource } from "../source/live.js";
import { TraceSource } from "../source/trace.js";
import { make, refill } from "../views/elements.js";
import { takeFile, takeJson } from "./data.js";
import { Front } from "./front.js";
import { findMissing } from "./support.js";

/** Called once, when the page has been read. */
export async function startPage() {
  const root = document.getElementById("oss-page");
  const missing = findMissing();
  if (missing) {
    root.textContent = `This browser does not have ${missing}, which this page needs: use a newer one.`;
    return;
  }
  try {
    const data = takeJson("oss-data");
    const weights = await takeFile("oss-weights");
    const live = new LiveSource({ ...data, weights });
    const { traceName: name, leftOut } = data;
    const bytes = await takeFile("oss-trace");
    const front = new Front(live, bytes && { source: new TraceSource({ name, bytes }), name, leftOut });
    refill(root, front.root);
    await front.restore();
  } catch (error) {
    refill(root, make("p", { role: "alert" }, describe(error)));
    if (!(error instanceof LabError)) throw error;
  }
}

function describe(error) {
  return error instanceof LabError ? error.message : `The page could not be started: ${error}`;
}
