/** The pinned places: each a button that goes there, and one that removes it. */

import { make, refill } from "./elements.js";
import { makeFrame } from "./frame.js";
import { isSamePlace, PARTS } from "./selection.js";
import { readableText } from "./token_bytes.js";

/**
 * @param {HTMLElement} element
 * @param {import("../source/source.js").Source} source
 * @param {import("./selection.js").Selection} selection
 * @returns {import("./frame.js").View}
 */
export function showPins(element, source, selection) {
  const frame = makeFrame(element, "pins", "Pinned places");
  const list = make("ol", { class: "oss-pin-list" });
  const pin = make("button", { type: "button", onclick: () => selection.togglePin() });
  frame.controls.append(pin);
  frame.body.append(list);

  const update = () => {
    const { place, pinned } = selection;
    const isPinned = pinned.some((each) => isSamePlace(each, place));
    pin.textContent = isPinned ? "Unpin this place" : "Pin this place";
    pin.disabled = isEmpty(place);
    const advice = "Select a token, layer, head or expert in a view to pin it.";
    frame.say(isEmpty(place) ? advice : `Selected: ${describe(place)}.`);
    refill(list, pinned.map(makePin));
  };
  const describe = (place) => describePlace(place, source.shown?.tokens ?? []);
  const remove = (n) => {
    const name = describe(selection.pinned[n]);
    selection.unpin(n);
    const next = list.children[Math.min(n, selection.pinned.length - 1)]; // the focus stays in the list
    (next?.firstChild ?? pin).focus();
    frame.report(`Removed: ${name}.`);
  };
  const makePin = (place, n) => {
    const name = describe(place);
    const go = make("button", { type: "button", onclick: () => selection.set(place) }, name);
    if (isSamePlace(place, selection.place)) go.setAttribute("aria-current", "true");
    const label = { type: "button", "aria-label": `Remove ${name}`, onclick: () => remove(n) };
    return make("li", {}, go, make("button", label, "Remove"));
  };

  const stops = [selection.on(update), source.on("shown", update)];
  update();
  return {
    data: () => ({ pinned: selection.pinned.map((place) => ({ ...place })) }),
    toSvg: () => null,
    close() {
      for (const stop of stops) stop();
      frame.close();
    },
  };
}

/**
 * A place as words, such as "token 93 “6”, layer 2".
 * @param {import("./selection.js").Place} place
 * @param {import("../source/source.js").Token[]} tokens
 */
function describePlace(place, tokens) {
  const words = PARTS.filter((part) => place[part] !== null).map((part) => `${part} ${place[part]}`);
  const token = tokens[place.token];
  if (token) words[0] += ` “${readableText(token.text)}”`;
  return words.join(", ");
}

function isEmpty(place) {
  return PARTS.every((part) => place[part] === null);
}
