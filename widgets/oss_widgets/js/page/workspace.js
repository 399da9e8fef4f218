/**
 * The open views of one source, the chat in a column of its own where there is room for two. A view
 * that stays open keeps its state when others open or close.
 */

import { make } from "../views/elements.js";
import { VIEWS } from "../views/registry.js";
import { listViews } from "./view_list.js";

export class Workspace {
  /**
   * @param {HTMLElement} element
   * @param {import("../source/source.js").Source} source
   * @param {import("../views/selection.js").Selection} selection
   */
  constructor(element, source, selection) {
    Object.assign(this, { element, source, selection });
    const chat = make("div", { class: "oss-page-column" });
    const others = make("div", { class: "oss-page-column" });
    element.append(chat, others);
    this.columns = [chat, others];
    this.places = listViews(source).map(({ name }) => {
      const place = make("div", {});
      (name === "chat" ? chat : others).append(place);
      return { name, place, view: null };
    });
  }

  get openNames() {
    return this.places.filter(({ view }) => view).map(({ name }) => name);
  }

  /** Open these views and close the others; names that the source cannot serve are left out. */
  show(names) {
    for (const each of this.places) {
      const isWanted = names.includes(each.name);
      if (isWanted && !each.view) {
        each.view = VIEWS[each.name](each.place, this.source, this.selection);
      } else if (!isWanted && each.view) {
        each.view.close();
        each.view = null;
      }
      each.place.hidden = !isWanted;
    }
    for (const column of this.columns) column.hidden = !column.querySelector(".oss-view");
  }

  /** Move the focus to a view, and scroll there. */
  focus(name) {
    const { place } = this.places.find((each) => each.name === name);
    const target = place.querySelector("h3");
    target.tabIndex = -1;
    target.focus();
    target.scrollIntoView();
  }
}
