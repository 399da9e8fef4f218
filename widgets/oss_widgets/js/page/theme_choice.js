/**
 * Light, dark, or as the system; the choice is kept on the root element.
 */

import { makeChoice } from "../views/elements.js";

const CHOICES = [
  { value: "system", text: "System" },
  { value: "light", text: "Light" },
  { value: "dark", text: "Dark" },
];

/**
 * @param {() => void} changed
 * @returns {HTMLElement & {value: string, choose: (theme: string) => void}}
 */
export function makeThemeChoice(changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const system = dark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = choice.value === "system" ? system : choice.value;
  };
  const choice = makeChoice("Theme", CHOICES, "system", () => {
    apply();
    changed();
  });
  choice.choose = (theme) => {
    choice.mark(CHOICES.some(({ value }) => value === theme) ? theme : "system");
    apply();
  };
  dark.addEventListener("change", apply);
  apply();
  return choice;
}
