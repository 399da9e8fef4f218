/**
 * The gallery: questions that show what the model can do, with the setting that each needs.
 */

import { make, refill } from "../elements.js";

/**
 * @param {import("../../nano/gallery.js").Example[]} examples  may be empty
 * @param {(example: object | null) => void} use  null: the setting of an example no longer applies
 */
export function makeExamples(examples, use) {
  const own = make("option", { value: "" }, "a question of your own");
  const groups = [
    ["Answered correctly", examples.filter(({ reached }) => reached === true)],
    ["Shows a mistake", examples.filter(({ reached }) => reached === false)],
    ["Examples", examples.filter(({ reached }) => reached === undefined)],
  ];
  const optgroups = groups
    .filter(([, members]) => members.length)
    .map(([label, members]) => make("optgroup", { label }, members.map(makeOption)));
  const select = make("select", { onchange: choose }, own, optgroups);
  const caption = make("div", { class: "oss-chat-caption", role: "status" });

  function makeOption(example) {
    return make("option", { value: String(examples.indexOf(example)) }, example.name);
  }

  function choose() {
    const example = select.value === "" ? null : examples[Number(select.value)];
    refill(caption, ...(example ? describe(example) : []));
    use(example);
  }

  function clear() {
    select.value = "";
    refill(caption);
  }

  /** After the question was changed by hand. */
  function forget() {
    clear();
    refill(caption, make("p", {}, "Your own question: the setting of the example was removed."));
  }

  const element = make("div", { class: "oss-chat-examples" }, make("label", {}, "Example", select), caption);
  element.hidden = examples.length === 0;
  return { element, clear, forget };
}

function describe({ shows, instructions, tools = [], history = [], reached, answer }) {
  const line = (name, text) => make("p", {}, make("strong", {}, `${name}: `), make("bdi", {}, text));
  return [
    make("p", {}, shows),
    reached === false ? line("The right answer", answer) : null,
    instructions ? line("Instructions", instructions) : null,
    tools.length ? line("Tools", tools.map(({ name }) => name).join(", ")) : null,
    ...history.flatMap(([asked, said]) => [line("Earlier question", asked), line("Earlier answer", said)]),
  ].filter(Boolean);
}
