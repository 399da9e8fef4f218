/** Saves a text as a file, as a link to it would. */

import { make } from "./elements.js";

const KEPT = 1000; // milliseconds until the browser has read the file

/** @param {string} name  of the file @param {string} text @param {string} type  such as "text/plain" */
export function saveFile(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), KEPT);
}
