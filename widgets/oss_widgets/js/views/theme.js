/**
 * The theme of what surrounds a view: colors for pictures, and a call when the theme changes.
 *
 * Elements follow the theme through the variables of `theme.css`. A canvas does not, so it reads
 * the variables when it is painted, and is painted again after a change.
 */

const NAMES = [
  "paper", "raised", "ink", "faint", "line", "mark", "cursor",
  "analysis-line", "commentary-line", "final-line", "format-line",
]; // prettier-ignore

/** The current colors, by the names of the variables in `theme.css`. */
export function readColors(element) {
  const style = getComputedStyle(element);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--oss-${name}`).trim()]));
}

/** @returns {() => void} stops it */
export function onThemeChange(call) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", call);
  const observer = new MutationObserver(call);
  const attributeFilter = ["data-theme", "data-jp-theme-light", "data-jp-theme-name", "class"];
  observer.observe(document.documentElement, { attributes: true, attributeFilter });
  observer.observe(document.body, { attributes: true, attributeFilter });
  return () => {
    system.removeEventListener("change", call);
    observer.disconnect();
  };
}
