/**
 * What a browser must have to run nano.
 */

/** What this browser lacks, for the end of a sentence; null if nothing. */
export function findMissing() {
  if (typeof DecompressionStream === "undefined") return "DecompressionStream";
  try {
    new RegExp("\\p{L}", "u");
    return null;
  } catch {
    return "regular expressions with \\p";
  }
}
