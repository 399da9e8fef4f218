/**
 * The work on one source: the guided path or the free lab, and the open views. The trace of another
 * model has no guided path, since its steps ask questions.
 */

import { make } from "../views/elements.js";
import { Selection } from "../views/selection.js";
import { watchHappenings } from "./happenings.js";
import { FreeLab } from "./lab.js";
import { GuidedPath } from "./path.js";
import { Workspace } from "./workspace.js";

/** Open at first in the lab. */
const USUAL_VIEWS = ["chat", "tokens", "experts"];

export class Desk {
  /**
   * @param {import("../source/source.js").Source} source
   * @param {{changed: () => void, leavePath: () => void}} calls
   */
  constructor(source, { changed, leavePath }) {
    this.source = source;
    this.selection = new Selection();
    const views = make("div", { class: "oss-page-views" });
    this.workspace = new Workspace(views, source, this.selection);
    this.labViews = USUAL_VIEWS;
    const open = (names) => {
      this.workspace.show(names);
      changed();
    };
    const openInLab = (names) => {
      this.labViews = names;
      open(names);
    };
    this.lab = new FreeLab(source, this.selection, openInLab);
    const focus = (name) => this.workspace.focus(name);
    this.path = source.can.has("ask")
      ? new GuidedPath(source, this.selection, { open, focus, leave: leavePath })
      : null;
    this.root = make(
      "div",
      { class: "oss-page-desk" },
      this.lab.root,
      this.path?.root,
      this.path?.bar,
      views,
    );
    watchHappenings(source, this.selection, (happening) => {
      if (this.path && !this.path.root.hidden) this.path.handle(happening);
      changed();
    });
  }

  showPath(step) {
    this.lab.root.hidden = true;
    this.path.setHidden(false);
    this.path.show(step);
  }

  showLab(views = this.labViews) {
    this.path?.setHidden(true);
    this.lab.root.hidden = false;
    this.lab.show(views);
  }
}
