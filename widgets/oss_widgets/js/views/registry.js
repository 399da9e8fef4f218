/** Every view by its name, for the page and for widgets in a notebook. */

import { showAttribution } from "./attribution/attribution.js";
import { showBranches } from "./branches/branches.js";
import { showCommitment } from "./commitment/commitment.js";
import { showEffortLens } from "./effort_lens/effort_lens.js";
import { showMicroscope } from "./microscope/microscope.js";

/** @type {Record<string, (element: HTMLElement, source: object, selection: object, options?: object) => object>} */
export const VIEWS = {
  microscope: showMicroscope,
  attribution: showAttribution,
  commitment: showCommitment,
  effort_lens: showEffortLens,
  branches: showBranches,
};
