"""The Experts view, with nano in the page; its counts and flips are compared with Python."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from oss_lab import AblateExpert
from oss_lab.analysis.routing.atlas import atlas
from oss_lab.analysis.routing.corpus import build_routing_corpus

QUESTION = "What is 347 * 62?"
IDS, WEIGHTS, MARGIN = "moe.expert_ids", "moe.expert_weights", "moe.margin"
NOISE = 1e-5  # NOISE_MARGIN of routing.js
FEWEST = 5
ABLATED = {"kind": "AblateExpert", "layer": 0, "expert": 27}

# A live source with one reply, which is generated once, and a new view of it.
OPEN = """async (question) => {
  window.shown?.close();
  if (!window.source) {
    window.source = newSource();
    window.run = await finish(source, await source.ask({ question, effort: "high" }));
    source.show(run);
  }
  source.runs.length = 1;
  delete source.step; // of a test that replaced it
  window.selection = newSelection();
  const element = document.querySelector("#view");
  window.shown = modules["views/registry.js"].VIEWS.experts(element, source, selection);
  window.until = async (isTrue) => {
    while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  window.openBig = (run, points, config) => {
    const known = Object.fromEntries(
      points.map(({ name, layer, ...each }) => [`${name} ${layer}`, each]));
    return {
      kind: "trace", name: "made", config, can: new Set(), examples: [], runs: [run], shown: run,
      on: () => () => {}, hasPoint: (name, layer) => `${name} ${layer}` in known,
      points: async (_, name, layer) => known[`${name} ${layer}`],
    };
  };
  await until(() => shown.data().layers.length);
  return run.tokens.map(({ id }) => id);
}"""


OPEN_TRACES = """async (files) => {
  shown.close();
  const { TraceSource } = modules["source/trace.js"];
  const traces = new TraceSource(files.map(([name, text]) =>
    ({ name, bytes: Uint8Array.from(atob(text), (each) => each.charCodeAt(0)) })));
  const element = document.querySelector("#view");
  window.shown = modules["views/registry.js"].VIEWS.experts(element, traces, selection);
  await until(() => shown.data().layers.length);
  selection.set({ layer: 0, token: 30, expert: 27 });
}"""


@pytest.fixture
def ids(live_page) -> list[int]:
    """The tokens of the run that the view shows."""
    return live_page.evaluate(OPEN, QUESTION)


def test_loads_and_lifts_are_those_of_the_atlas(live_page, ids, lab) -> None:
    """For every expert, separately in the prompt and in what the model wrote."""
    found = live_page.evaluate(
        """async () => {
          const { countLoad, findTopTokens } = modules["views/experts/routing.js"];
          const { positionsOf } = modules["views/experts/sections.js"];
          const parts = {};
          for (const part of ["prompt", "generation"]) {
            const positions = positionsOf(run, run.tokens.length, part);
            parts[part] = { positions, layers: [] };
            for (let layer = 0; layer < 4; layer++) {
              const { data } = await source.points(run, "moe.expert_ids", layer);
              const top = Array.from({ length: 32 }, (_, expert) =>
                findTopTokens(data, 4, run.tokens, positions, expert)
                  .filter(({ lift }) => lift !== null));
              parts[part].layers.push({ top, load: [...countLoad(data, 4, 32, positions)] });
            }
          }
          return parts;
        }"""
    )
    corpus = build_routing_corpus([lab.trace(ids, [IDS])], 32)
    names = ("sequence", "position", "token", "previous", "channel")
    claimed = 0
    for part in found.values():
        kept = part["positions"]
        columns = {name: getattr(corpus, name)[kept] for name in names}
        theirs = atlas(
            replace(corpus, ids=corpus.ids[:, kept], **columns), top=99, minimum=FEWEST, resamples=2
        )
        loads = np.array([layer["load"] for layer in part["layers"]])
        np.testing.assert_allclose(loads / (len(kept) * 4 / 32), theirs.load.value)
        for layer, ours in enumerate(part["layers"]):
            for expert, top in enumerate(ours["top"]):
                expected = {
                    each.token: (each.count, each.lift) for each in theirs.top[layer][expert]
                }
                assert {each["id"]: each["count"] for each in top} == {
                    token: count for token, (count, _) in expected.items()
                }
                for each in top:
                    assert each["lift"] == pytest.approx(expected[each["id"]][1])
                claimed += len(top)
    assert claimed > 100


def test_two_engines_differ_less_than_the_noise_margin(live_page, ids, lab) -> None:
    """What `NOISE_MARGIN` rests on; in one reply of the 32 that it was measured with."""
    assert live_page.evaluate("modules['views/experts/routing.js'].NOISE_MARGIN") == NOISE
    trace = lab.trace(ids, [WEIGHTS, MARGIN])
    for layer in range(4):
        margins, weights = live_page.evaluate(
            """async (layer) => Promise.all(["moe.margin", "moe.expert_weights"].map(async (name) =>
                 Array.from((await source.points(run, name, layer)).data)))""",
            layer,
        )
        assert np.abs(margins - trace.tensor(MARGIN, layer).numpy()).max() < NOISE
        ours, theirs = np.reshape(weights, (-1, 4)), trace.tensor(WEIGHTS, layer).numpy()
        leads = [np.log(each[:, 0] / each[:, 1]) for each in (ours, theirs)]
        assert np.abs(leads[0] - leads[1]).max() < NOISE


def test_flips_are_the_choices_that_differ_in_python(live_page, ids, lab) -> None:
    """The same question with an expert ablated; the prompt and the equal beginning are compared."""
    page = live_page
    other = page.evaluate(
        """async ([question, spec]) => {
          const other = await finish(source, await source.ask({
            question, effort: "high", interventions: [spec] }));
          return other.tokens.map(({ id }) => id);
        }""",
        [QUESTION, ABLATED],
    )
    page.get_by_label("Compare with").select_option("run-2")
    page.get_by_text("are routing flips").wait_for()
    flips = np.array(page.evaluate("shown.data().flips"))
    shared = next(
        (n for n, pair in enumerate(zip(ids, other, strict=False)) if len({*pair}) > 1), None
    )
    a = lab.trace(ids, [IDS, MARGIN])
    b = lab.trace(other, [IDS, MARGIN], interventions=[AblateExpert(layer=0, expert=27)])
    for layer in range(4):
        ours, theirs = (each.tensor(IDS, layer).numpy()[:shared] for each in (a, b))
        changed = (np.sort(ours) != np.sort(theirs)).any(1) | (ours[:, 0] != theirs[:, 0])
        assert (flips[layer, :shared] > 0).tolist() == changed.tolist()
        assert not flips[layer, shared:].any()
    assert flips[1:].any()
    rows = page.get_by_role("table", name="Routing flips by layer").get_by_role("row")
    assert [int(row.split()[2]) for row in rows.all_inner_texts()[1:]] == (flips == 1).sum(
        1
    ).tolist()


def test_a_flip_within_rounding_is_noise(live_page, ids) -> None:
    """Another set is judged by the margin, another first expert by the ratio of the weights."""
    find = """([ours, theirs, weights, margin]) => {
      const { findFlips } = modules["views/experts/routing.js"];
      const [a, b] = [ours, theirs].map((each) => ({ ids: Int32Array.from(each),
        weights: Float32Array.from(weights), margins: Float32Array.from([margin]) }));
      return [...findFlips(a, b, Int32Array.from([0]), 4)];
    }"""
    none, flip, noise = [0], [1], [2]
    apart, close = [0.4, 0.3, 0.2, 0.1], [0.3000001, 0.3, 0.25, 0.15]
    for theirs, weights, margin, expected in [
        ([1, 2, 3, 4], apart, 1e-6, none),
        ([1, 2, 4, 3], apart, 1e-6, none),  # the same set and the same first expert
        ([1, 2, 3, 5], apart, 0.1, flip),
        ([1, 2, 3, 5], apart, 1e-6, noise),
        ([2, 1, 3, 4], apart, 1e-6, flip),
        ([2, 1, 3, 4], close, 0.1, noise),
    ]:
        assert live_page.evaluate(find, [[1, 2, 3, 4], theirs, weights, margin]) == expected


def test_stored_traces_are_compared_without_a_model(live_page, ids, lab, tmp_path) -> None:
    """The second one has no margins, so it cannot be said which flips are noise."""
    files = []
    changes = {"base": [], "changed": [AblateExpert(layer=0, expert=27)]}
    points = {"base": [IDS, WEIGHTS, MARGIN], "changed": [IDS]}
    for name in changes:
        lab.trace(ids, points[name], interventions=changes[name]).save(tmp_path / name)
        files.append([name, base64.b64encode((tmp_path / name).read_bytes()).decode()])
    live_page.evaluate(OPEN_TRACES, files)
    page = live_page
    page.get_by_label("Compare with").select_option("changed")
    page.get_by_text("margins are not recorded").wait_for()
    flips = np.array(page.evaluate("shown.data().flips"))
    assert flips[1:].any()
    assert not flips[0].any()  # the first layer's choice comes before the ablation
    assert page.get_by_role("button", name="Ask again without it").count() == 0
    assert page.get_by_text("Router margin").count() == 1


def test_a_trace_of_some_tokens_counts_only_these(live_page, ids, lab, tmp_path) -> None:
    kept = [*range(20, 30), *range(90, 100)]
    lab.trace(ids, [IDS, WEIGHTS], positions=kept).save(tmp_path / "part")
    text = base64.b64encode((tmp_path / "part").read_bytes()).decode()
    live_page.evaluate(OPEN_TRACES, [["part", text]])
    live_page.get_by_text("No choice of experts is recorded here.").wait_for()
    live_page.get_by_text("Share of the 20 tokens that chose each expert").wait_for()
    data = live_page.evaluate("shown.data()")
    recorded = [n for n, experts in enumerate(data["experts"][2]) if experts]
    assert recorded == kept
    assert [n for n, value in enumerate(data["values"][2]) if value is not None] == kept


def test_efforts_are_compared_around_the_word_that_differs(live_page, ids) -> None:
    found = live_page.evaluate(
        """async (question) => {
          const low = await source.ask({ question, effort: "low" });
          const places = modules["views/experts/routing.js"].alignRuns(run, low);
          const pairs = [...places].map((m, n) => [n, m]).filter(([, m]) => m >= 0);
          return { pairs: pairs.map(([n, m]) => [run.tokens[n].id, low.tokens[m].id]),
                   lengths: [run.promptLength, low.promptLength] };
        }""",
        QUESTION,
    )
    assert all(ours == theirs for ours, theirs in found["pairs"])
    assert min(found["lengths"]) - 3 <= len(found["pairs"]) < max(found["lengths"])


def test_the_map_is_used_with_the_keyboard(live_page, ids, lab, find_violations) -> None:
    page = live_page
    position, layer = 100, 2
    page.get_by_role("radio", name="entropy").click()
    page.get_by_text("router entropy (nats)").wait_for()
    page.evaluate("(place) => selection.set(place)", {"token": position - 1, "layer": layer})
    page.locator(".oss-map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    trace = lab.trace(ids, [IDS, WEIGHTS, MARGIN, "moe.entropy"])
    experts = trace.tensor(IDS, layer)[position].tolist()
    weights = trace.tensor(WEIGHTS, layer)[position].tolist()
    assert page.evaluate("selection.toJSON()") == {
        "token": position, "layer": layer, "head": None, "expert": experts[0], "pinned": [],
    }  # fmt: skip
    spoken = page.locator(".oss-caption").inner_text()
    assert spoken.startswith(f"layer {layer}, token {position}")
    assert "(analysis)" in spoken
    bars = page.get_by_role("group", name=f"Experts of token {position}").get_by_role("button")
    assert [bar.get_attribute("aria-label") for bar in bars.all()] == [
        f"expert {expert}, weight {weight:.3f}"
        for expert, weight in zip(experts, weights, strict=True)
    ]
    entropy = float(trace.tensor("moe.entropy", layer)[position])
    page.wait_for_function(
        "(text) => document.querySelector('.oss-experts-token').innerText.includes(text)",
        arg=f"Router entropy: {entropy:.2f}".rstrip("0"),
    )
    bars.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("selection.expert") == experts[1]
    assert page.evaluate("document.activeElement.dataset.expert") == str(experts[1])
    page.get_by_text("slots change this prediction by more than 0.1 nats").wait_for()
    logprob = page.evaluate(
        "(n) => modules['views/numbers.js'].short(run.tokens[n].logprob)", position + 1
    )
    page.get_by_text(f", log-probability {logprob} nats").wait_for()
    start = page.evaluate("run.promptLength")
    count = int((trace.tensor(IDS, layer)[:start] == experts[1]).sum())
    share = f"Load: {count} of {start} tokens ({100 * count / start:.1f}%)"
    uniform = f"uniform would be 12.5%, so {count / start * 32 / 4:.2f} times as much."
    page.get_by_text(f"{share}; {uniform}").wait_for()
    assert find_violations(page) == []
    page.get_by_text("As a table").click()
    table = page.get_by_role("table", name=f"Layer {layer}")
    table.wait_for()
    assert table.get_by_role("row").count() == len(ids) + 1


def test_a_token_that_depends_on_no_slot_says_so(live_page, ids) -> None:
    live_page.evaluate(
        """async () => {
          for (let at = run.promptLength; ; at++) {
            const { logprobChanges } = await source.analyze(run, "knockOut", { at: at + 1 });
            if (logprobChanges.every((change) => Math.abs(change) < 0.1)) {
              return selection.set({ token: at });
            }
          }
        }"""
    )
    live_page.get_by_text(
        "No single expert slot changes this prediction by more than 0.1 nats."
    ).wait_for()


def test_a_section_and_an_expert_are_picked_out(live_page, ids, lab) -> None:
    page = live_page
    page.get_by_role("radio", name="final").click()
    data = page.evaluate("shown.data()")
    assert "".join(data["tokens"]).endswith("21514<|return|>")
    chosen = lab.trace(ids, [IDS]).tensor(IDS, 1).numpy()
    assert data["experts"][1] == chosen[data["positions"]].tolist()
    expert = int(chosen[data["positions"][0], 3])
    page.evaluate("(place) => selection.set(place)", {"layer": 1, "expert": expert})
    outlined = page.evaluate(
        """() => {
          const picture = new DOMParser().parseFromString(shown.toSvg(), "image/svg+xml");
          const map = document.querySelector(".oss-map");
          const { cursor } = modules["views/theme.js"].readColors(map);
          return picture.querySelectorAll(`rect[stroke="${cursor}"]`).length;
        }"""
    )
    assert outlined == (chosen[data["positions"]] == expert).any(1).sum() > 0


def test_ablating_shows_the_change_beside_its_null(live_page, ids, lab) -> None:
    page = live_page
    page.evaluate("(place) => selection.set(place)", {"layer": 0, "expert": 27, "token": 30})
    page.get_by_role("button", name="Ask again without it").click()
    page.get_by_role("button", name="Compare its experts").first.wait_for()
    replies = page.evaluate(
        "source.runs.map(({ interventions, answer, tokens, promptLength }) =>"
        " [interventions, answer, tokens.slice(promptLength).map(({ id }) => id)])"
    )
    (_, unchanged, _), ([change], changed, written), ([control], _, _) = replies
    assert change == ABLATED
    assert (control["kind"], control["layer"]) == ("AblateExpert", 0)
    assert control["expert"] != 27
    reply = lab.chat(QUESTION, effort="high", interventions=[AblateExpert(layer=0, expert=27)])
    assert written == list(reply.ids)
    text = page.locator(".oss-experts-results").inner_text()
    for expected in (
        unchanged, changed, "Changed: AblateExpert, layer 0, expert 27",
        f"Null, seed 0: AblateExpert, layer 0, expert {control['expert']}", "Logit margin",
    ):  # fmt: skip
        assert expected in text
    page.get_by_role("button", name="Compare its experts").first.click()
    page.get_by_text("are routing flips").wait_for()


def test_an_unchanged_reply_is_generated_where_a_fork_would_be_lost(live_page) -> None:
    found = live_page.evaluate("""async () => {
      const { startUnchanged } = modules["views/trial.js"];
      const source = { ask: async () => "asked", fork: async () => "forked" };
      const tokens = Array.from({ length: 120 }, () => ({ logprob: -1 }));
      const run = { stop: "return", parent: null, request: {}, interventions: [], tokens };
      const fork = { ...run, parent: { run: "run-1", at: 90 } };
      const starts = [[run, null], [run, 80], [fork, null], [fork, 80], [fork, 95]];
      const made = starts.map(([each, at]) => startUnchanged(source, each, at));
      return (await Promise.all(made)).map((each) => each.stop ? "itself" : each);
    }""")
    assert found == ["itself", "itself", "asked", "forked", "itself"]


def test_forcing_applies_from_the_selected_token_on(live_page, ids) -> None:
    page = live_page
    page.evaluate("(place) => selection.set(place)", {"layer": 3, "token": 100})
    chosen = page.evaluate("shown.data().experts[3][100]")
    page.evaluate("(expert) => selection.set({ expert })", chosen[1])
    force = page.get_by_role("button", name="Force it")
    assert force.is_disabled()  # it is chosen here already
    page.evaluate(
        "(expert) => selection.set({ expert })", next(n for n in range(32) if n not in chosen)
    )
    force.click()
    page.get_by_role("button", name="Compare its experts").first.wait_for()
    runs = page.evaluate(
        "source.runs.slice(1).map(({ parent, interventions }) => [parent, interventions])"
    )
    assert [parent for parent, _ in runs] == [{"run": "run-1", "at": 101}] * 2
    assert all(spec["kind"] == "ForceExpert" and spec["slot"] == 3 for _, [spec] in runs)
    assert runs[1][1][0]["expert"] not in chosen


def test_a_trial_can_be_canceled(live_page, ids) -> None:
    page = live_page
    page.evaluate(
        """() => {
          const step = source.step.bind(source);
          source.step = async function* (run, options) {
            for await (const token of step(run, options)) {
              await new Promise((resolve) => setTimeout(resolve, 20));
              yield token;
            }
          };
          selection.set({ layer: 0, expert: 27, token: 80 });
        }"""
    )
    ablate = page.get_by_role("button", name="Ablate from here on")
    ablate.click()
    assert ablate.is_disabled()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled; what was generated stays.").first.wait_for()
    assert ablate.is_enabled()
    assert page.evaluate("source.runs.at(-1).stop") is None


def test_wrong_seed_and_wrong_array_are_explained(live_page, ids) -> None:
    page = live_page
    page.evaluate("() => selection.set({ layer: 0, expert: 27, token: 80 })")
    page.get_by_label("Seed of the null").fill("-1")
    page.get_by_role("button", name="Ablate from here on").click()
    alert = page.get_by_role("alert")
    assert alert.inner_text() == ("the seed of the null is “-1”; write a whole number of 0 or more")
    page.evaluate(
        """() => {
          shown.close();
          const array = { values: [1, 2, 3, 4], shape: [2, 2], name: "surprise", unit: "nats" };
          window.shown = modules["views/registry.js"].VIEWS.experts(
            document.querySelector("#view"), source, selection, { array });
        }"""
    )
    alert.get_by_text(f"surprise has 2 positions, but the run has {len(ids)} tokens").wait_for()


def test_the_callers_array_needs_no_model(live_page, ids) -> None:
    data = live_page.evaluate(
        """async () => {
          shown.close();
          const { ArraySource } = modules["source/array.js"];
          const values = [1, 0, -2, 0, 3, 0, 4, 0];
          const names = { name: "surprise", unit: "nats", axes: "layer seq slot" };
          const array = { values, shape: [2, 2, 2], ...names };
          window.shown = modules["views/registry.js"].VIEWS.experts(document.querySelector("#view"),
            new ArraySource(["<img src=x>", "天"], array), selection);
          await until(() => shown.data().layers.length);
          return shown.data();
        }"""
    )
    assert data["values"] == [[1, -2], [3, 4]]
    assert data["measure"] == {"name": "surprise, first slot", "unit": "nats"}
    assert live_page.locator("#view img").count() == 0
    legend = live_page.locator(".oss-legend").inner_text()
    assert "surprise, first slot (nats)" in legend
    assert "−4" in legend


BIG = """async ([layers, experts, seq, slots]) => {
  shown.close();
  const random = new (modules["engine/random.js"].RandomStream)(1);
  const unknown = { message: 0, recipient: null, part: "content", logprob: null, alternatives: [] };
  const tokens = Array.from({ length: seq }, (_, n) => ({
    id: n % 997, text: n % 2 ? "<|message|>" : `word${n}`, role: n < 500 ? "user" : "assistant",
    channel: n < 500 ? null : "analysis", ...unknown,
  }));
  const run = { id: "run-1", tokens, promptLength: 500, request: null, interventions: [],
                parent: null, stop: "return" };
  const points = [];
  for (let layer = 0; layer < layers; layer++) {
    const shape = [seq, slots];
    const first = Array.from({ length: seq }, () => Math.floor(random.uniform() * experts));
    const ids = Int32Array.from({ length: seq * slots }, (_, n) =>
      (first[Math.floor(n / slots)] + 7 * (n % slots)) % experts);
    const weights = Float32Array.from({ length: seq * slots }, () => 1 / slots);
    points.push({ name: "moe.expert_ids", layer, shape, data: ids });
    points.push({ name: "moe.expert_weights", layer, shape, data: weights });
  }
  const config = { num_hidden_layers: layers, num_experts: experts, experts_per_token: slots };
  const started = performance.now();
  const element = document.querySelector("#view");
  window.shown = modules["views/registry.js"].VIEWS.experts(
    element, openBig(run, points, config), selection);
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  while (!element.querySelector("canvas")) await frame();
  await frame();
  const opened = performance.now() - started;
  const map = element.querySelector(".oss-map");
  const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
  const frames = [];
  for (let n = 0, last = performance.now(); n < 60; n++) {
    map.scrollLeft += 400;
    map.scrollTop += n % 20 < 10 ? 13 : -13;
    await frame();
    frames.push(performance.now() - last);
    last = performance.now();
  }
  const details = [];
  for (let n = 0; n < 21; n++) {
    const start = performance.now();
    selection.set({ token: (n * 251) % seq, layer: n % layers, expert: n });
    element.querySelector(".oss-experts-details").offsetHeight; // lays the page out
    details.push(performance.now() - start);
    await frame();
  }
  return { opened, frame: median(frames), detail: median(details) };
}"""


@pytest.mark.parametrize("shape", [(24, 32), (36, 128)])
def test_8000_tokens_stay_usable(live_page, ids, shape) -> None:
    """The aims are 1 s, 30 frames/s and 50 ms on a quiet machine; this allows twice as much."""
    page = live_page
    found = page.evaluate(BIG, [*shape, 8000, 4])
    assert found["opened"] < 2000
    assert found["frame"] < 2000 / 30
    assert found["detail"] < 100


def test_nothing_is_wider_than_a_phone(live_page, ids) -> None:
    page = live_page
    size = page.viewport_size
    try:
        page.set_viewport_size({"width": 390, "height": 800})
        page.evaluate("() => selection.set({ layer: 0, expert: 27, token: 80 })")
        page.get_by_role("button", name="Ablate from here on").click()
        page.get_by_role("button", name="Compare its experts").first.click()
        page.get_by_text("are routing flips").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        page.set_viewport_size(size)


def test_a_change_is_compared_with_the_reply_without_it(live_page, ids) -> None:
    """Also of a run that was edited: the edit is not in the changed reply, so nor in the other."""
    found = live_page.evaluate(
        """async (spec) => {
          const { planTrial, runTrial } = modules["views/experts/trial.js"];
          const at = run.promptLength + 10;
          const edited = await finish(source, await source.fork(run, at, { text: "9" }));
          const options = { from: "layer", seed: 0 };
          const plan = planTrial("ablate", spec, [27], 32, options);
          const unchanged = [];
          for (const [base, place] of [[run, at], [run, null], [edited, at - 5], [edited, at],
              [edited, at + 1], [edited, null]]) {
            let runs;
            const { signal } = new AbortController();
            for await (runs of runTrial(source, base, plan, place, signal));
            const ids = ({ tokens }) => tokens.map(({ id }) => id).join();
            unchanged.push([runs[0] === base, ids(runs[0]) === ids(run)]);
          }
          return unchanged;
        }""",
        ABLATED,
    )
    assert found == [
        [True, True],
        [True, True],
        [False, True],  # forked before the edit
        [False, True],  # at the edit: without it
        [True, False],
        [False, True],  # asked again: without it
    ]


def test_numbers_that_are_missing_stay_empty(live_page, ids) -> None:
    data = live_page.evaluate(
        """async () => {
          shown.close();
          const { ArraySource } = modules["source/array.js"];
          const array = { values: [NaN, -1, Infinity, 2], shape: [2, 2, 1], name: "surprise" };
          const element = document.querySelector("#view");
          const source = new ArraySource(["a", "b"], array);
          window.shown = modules["views/registry.js"].VIEWS.experts(element, source, selection);
          await until(() => shown.data().layers.length);
          const { values } = shown.data();
          shown.toSvg(); // draws every cell
          return values.map((row) => row.map(String));
        }"""
    )
    assert data == [["null", "-1"], ["Infinity", "2"]]


def test_a_run_without_experts_leaves_nothing_of_the_one_before(live_page, ids) -> None:
    live_page.evaluate(
        """async () => {
          const { hasPoint } = source;
          const other = { ...run, id: "other" };
          source.hasPoint = (name, layer, of) => of !== other && hasPoint(name);
          source.show(other);
          await until(() => document.querySelector("#view [role=alert]").textContent);
          delete source.hasPoint;
        }"""
    )
    assert "no experts are recorded" in live_page.get_by_role("alert").inner_text()
    assert not live_page.locator(".oss-experts .oss-map").is_visible()
    assert live_page.evaluate("shown.data().experts") == []
    live_page.evaluate("source.show(run)")
    live_page.locator(".oss-experts .oss-map").wait_for()


def test_an_array_of_heads_is_not_one_of_layers(live_page, ids) -> None:
    live_page.evaluate(
        """() => {
          shown.close();
          const { ArraySource } = modules["source/array.js"];
          const array = { values: [1, 0, 0, 1], shape: [1, 2, 2], name: "mine" };
          window.shown = modules["views/registry.js"].VIEWS.experts(
            document.querySelector("#view"), new ArraySource(["a", "b"], array), selection);
        }"""
    )
    live_page.get_by_text("mine has the axes [head, seq, seq]; expected [layer, seq").wait_for()


def test_a_scale_has_room_for_negative_numbers_that_are_rare(live_page) -> None:
    run = """() => {
      const { fitScale } = modules["views/scale.js"];
      const { min, max } = fitScale([-100, ...Array.from({ length: 200 }, (_, n) => 1 + n / 200)]);
      return [min, max];
    }"""
    low, high = live_page.evaluate(run)
    assert low == -high


def test_the_smaller_margin_of_two_runs_decides_whether_a_flip_is_noise(live_page) -> None:
    found = live_page.evaluate(
        """() => {
          const { findFlips } = modules["views/experts/routing.js"];
          const places = Int32Array.of(0, 1);
          const make = (ids, ...margins) => ({
            ids: Uint8Array.from(ids), weights: null, margins: Float32Array.from(margins),
          });
          const [a, b] = [make([1, 2, 1, 2], 1e-7, 1), make([1, 3, 1, 3], 1, 2)];
          return [findFlips(a, b, places, 2), findFlips(b, a, places, 2)].map((each) => [...each]);
        }"""
    )
    assert found == [[2, 1], [2, 1]]


def test_the_logit_margin_of_a_token_is_against_the_best_other_one(live_page) -> None:
    margins = live_page.evaluate(
        """() => {
          const { marginOfToken } = modules["views/trial.js"];
          const alternatives = [{ id: 5, logprob: -0.5 }, { id: 6, logprob: -2 }];
          return [[5, -0.5], [6, -2], [7, -4], [5, null]].map(([id, logprob]) =>
            marginOfToken({ id, logprob, alternatives }));
        }"""
    )
    assert margins == [1.5, -1.5, -3.5, None]
