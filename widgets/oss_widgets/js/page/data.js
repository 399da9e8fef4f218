/**
 * The data in the page: JSON, and files as base64 of gzip. Each block is removed once it is read,
 * so its text takes no memory afterwards.
 */

/** @param {string} id  of the block @returns {string | null}  null if the page does not have it */
function takeText(id) {
  const block = document.getElementById(id);
  block?.remove();
  return block?.textContent ?? null;
}

/** @returns {object} */
export function takeJson(id) {
  return JSON.parse(takeText(id));
}

/** The bytes of a file; null if the page does not have it. @returns {Promise<Uint8Array | null>} */
export async function takeFile(id) {
  const text = takeText(id);
  return text === null ? null : unpack(text);
}

/** The bytes of a file. @param {string} text  base64 of gzip @returns {Promise<Uint8Array>} */
export async function unpack(text) {
  const stream = new Blob([decodeBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function decodeBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n);
  return bytes;
}
