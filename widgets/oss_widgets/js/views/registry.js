/** Every view by its name, for the page and for widgets in a notebook. */

import { showAttention } from "./attention/attention.js";
import { showAttribution } from "./attribution/attribution.js";
import { showBranches } from "./branches/branches.js";
import { showChat } from "./chat/chat.js";
import { showCommitment } from "./commitment/commitment.js";
import { showEffortLens } from "./effort_lens/effort_lens.js";
import { showExperts } from "./experts/experts.js";
import { showLens } from "./lens/lens.js";
import { showMicroscope } from "./microscope/microscope.js";
import { showTokens } from "./tokens/tokens.js";

/**
 * @typedef {(element: HTMLElement, source: import("../source/source.js").Source,
 *   selection: import("./selection.js").Selection, options?: object) => import("./frame.js").View} Show
 */

/** @type {Record<string, Show>} */
export const VIEWS = {
  chat: showChat,
  tokens: showTokens,
  experts: showExperts,
  attention: showAttention,
  lens: showLens,
  microscope: showMicroscope,
  attribution: showAttribution,
  commitment: showCommitment,
  effort_lens: showEffortLens,
  branches: showBranches,
};
