/**
 * A view in a notebook: anywidget calls `render` with the model of the Python object and an element.
 */

import { KernelSource } from "./source/kernel.js";
import { make } from "./views/elements.js";
import { VIEWS } from "./views/registry.js";
import { Selection } from "./views/selection.js";

/**
 * @param {{model: object, el: HTMLElement}} place
 * @param {object} [views]  by name, as in `views/registry.js`
 * @returns {() => void} closes it
 */
export function render({ model, el }, views = VIEWS) {
  hearAtOnce(model);
  const source = new KernelSource(model);
  const [selection, stopLinking] = linkSelection(model);
  const notice = make("p", { class: "oss-error oss-connection", role: "status" });
  const place = make("div");
  el.classList.add("oss-widget");
  el.addEventListener("keydown", keepKey);
  el.append(make("div", { class: "oss-view" }, notice), place);
  notice.parentElement.hidden = true;
  const show = () => views[model.get("view")](place, source, selection, readOptions(model));
  let view = show();
  let isStored = false; // whether nobody answered at the start, so the view only shows its state
  const showAgain = () => {
    view.close();
    view = show();
  };
  const stopHearing = source.on("connection", () => {
    notice.textContent = source.problem;
    notice.parentElement.hidden = !source.problem;
    if (!isStored || !source.isAlive) return;
    isStored = false;
    showAgain();
  });
  let isOpen = true;
  source.connect().then((isAlive) => {
    if (isAlive || !isOpen) return;
    isStored = true;
    showAgain();
  });
  return () => {
    isOpen = false;
    stopHearing();
    stopLinking();
    view.close();
    source.close();
  };
}

/**
 * Let Python's messages reach a model whose script took long to load.
 *
 * anywidget holds messages back until the script is loaded. If that takes more than two seconds, as on
 * a busy page, it never passes one on: the view can ask, and hears no answer. Once there is a view,
 * the script is loaded, so messages can go to the handler below anywidget's.
 */
async function hearAtOnce(model) {
  const own = await model.widget_manager?.get_model(model.get("own_id"));
  const handle = own && Object.getPrototypeOf(own.constructor.prototype)._handle_comm_msg;
  if (handle) own.comm?.on_msg?.((message) => handle.call(own, message));
}

/**
 * JupyterLab has commands on plain keys: an arrow hides a section, Enter edits the cell, and dd deletes
 * it. So a view keeps such keys, except Shift + Enter, which runs the next cell.
 */
function keepKey(event) {
  const isCommand = event.ctrlKey || event.metaKey || event.altKey;
  if (!isCommand && !(event.shiftKey && event.key === "Enter")) event.stopPropagation();
}

/** A selection that follows the trait `selection`, and the trait it. */
function linkSelection(model) {
  const selection = new Selection();
  const write = () => {
    const now = selection.toJSON();
    if (JSON.stringify(now) === JSON.stringify(model.get("selection"))) return;
    model.set("selection", now);
    model.save_changes();
  };
  const read = () => {
    const given = model.get("selection") ?? {};
    const now = new Selection();
    now.read(given);
    if (JSON.stringify(now) !== JSON.stringify(selection)) selection.read(given);
  };
  read();
  const stop = selection.on(write);
  model.on("change:selection", read);
  return [
    selection,
    () => {
      stop();
      model.off("change:selection", read);
    },
  ];
}

/** The options of the view; the numbers of the caller's array are binary. */
function readOptions(model) {
  const { array, ...others } = model.get("options") ?? {};
  if (!array) return others;
  const { buffer, byteOffset, byteLength } = array.values;
  const values = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  return { ...others, array: { ...array, values } };
}
