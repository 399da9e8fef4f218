"""The attention view: numbers against Python, the window edge, large shapes, changes of a head."""

import base64

import numpy as np
import pytest

from oss_lab import RemoveSink

PRODUCT = "What is 347 * 62?"

# A view of a finished reply in nano.
OPEN = """async ([question, effort]) => {
  window.drawn?.close();
  window.source = newSource();
  window.selection = newSelection();
  const run = await finish(source, await source.ask({ question, effort }));
  source.show(run);
  window.show = (options = {}) => {
    const { VIEWS } = modules["views/registry.js"];
    window.drawn = VIEWS.attention(document.querySelector("#view"), source, selection, options);
  };
  show();
  return run.tokens.map(({ id }) => id);
}"""

# A source with the shapes of a large model, which keeps what was requested. `hold()` delays answers
# until `release()`.
LARGE = """({ layers, heads, kvHeads, length, window: size }) => {
  window.drawn?.close();
  const { Listeners } = modules["source/source.js"];
  const channels = ["analysis", "commentary", "final"];
  const tokens = Array.from({ length }, (_, n) => ({
    id: n, text: n === 7 ? "<img onerror=alert(1)>" : ["مرحبا", "你好", "🙂", " the"][n % 4],
    message: 0, role: "assistant", channel: n < 100 ? null : channels[n % 3], part: "content",
  }));
  const run = { id: "large", tokens, promptLength: 100, request: null, stop: "return", seconds: 0 };
  const listeners = new Listeners();
  const types = ["sliding_attention", "full_attention"];
  window.requests = [];
  let held = null;
  let free = () => {};
  window.hold = () => (held = new Promise((resolve) => (free = resolve)));
  window.release = () => (free(), (held = null));
  const answers = {
    "attn.sink_mass": () => {
      const share = (n) => ((n % heads) + 1) / (heads + 1);
      const data = Float32Array.from({ length: length * heads }, (_, n) => share(n));
      return { shape: [length, heads], data };
    },
    "attn.pattern": (layer, { from, to }) => {
      const data = new Float32Array((to - from) * heads * length);
      for (let query = from; query < to; query++) {
        for (let head = 0; head < heads; head++) {
          const row = ((query - from) * heads + head) * length;
          data[row + query] = 1 - (head + 1) / (heads + 1); // all on the query itself
        }
      }
      return { shape: [to - from, heads, length], data };
    },
  };
  window.source = {
    kind: "kernel", name: "large", can: new Set(["points"]), shown: run, runs: [run], examples: [],
    config: {
      num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kvHeads,
      sliding_window: size, layer_types: Array.from({ length: layers }, (_, n) => types[n % 2]),
    },
    on: (change, call) => listeners.on(change, call),
    hasPoint: () => true,
    points: async (_, name, layer, range) => {
      await held;
      const answer = answers[name](layer, range);
      requests.push({ name, layer, range, size: answer.data.length });
      return answer;
    },
  };
  window.selection = newSelection();
}"""

OPEN_LARGE = """async () => {
  const started = performance.now();
  const { VIEWS } = modules["views/registry.js"];
  window.drawn = VIEWS.attention(document.querySelector("#view"), source, selection);
  while (drawn.data().weights === null || drawn.data().heads === null) {
    await new Promise(requestAnimationFrame);
  }
  await new Promise(requestAnimationFrame);
  return performance.now() - started;
}"""

TWENTY_B = {"layers": 24, "heads": 64, "kvHeads": 8, "length": 8000, "window": 128}


@pytest.fixture
def page(live_page):
    live_page.set_viewport_size({"width": 1200, "height": 900})
    return live_page


def open_nano(page, effort: str):
    """A page with the view of a reply of nano; `page.ids` are its tokens."""
    page.ids = page.evaluate(OPEN, [PRODUCT, effort])
    return page


@pytest.fixture
def nano(page):
    return open_nano(page, "high")


@pytest.fixture
def short_nano(page):
    return open_nano(page, "low")


def text_of(page) -> str:
    return page.locator("#view").inner_text()


def select(page, **place) -> dict:
    """Set the selection, wait for the row, and return what is drawn."""
    page.evaluate("(place) => selection.set(place)", place)
    page.wait_for_function("() => drawn.data().weights !== null && drawn.data().heads !== null")
    return page.evaluate("() => drawn.data()")


def test_the_numbers_are_those_of_a_trace(nano, lab) -> None:
    """Weights, sink and shares by channel of a sliding and of a full layer."""
    trace = lab.trace(nano.ids, ["attn.pattern", "attn.sink_mass"])
    channels = [label.channel for label in trace.labels]
    start = nano.evaluate("source.shown.promptLength")
    for layer, head, token in [(2, 3, 150), (1, 6, 221), (0, 0, 5)]:
        found = select(nano, layer=layer, head=head, token=token)
        pattern = trace["attn.pattern", layer].numpy()
        sinks = trace["attn.sink_mass", layer].numpy()
        np.testing.assert_allclose(found["weights"], pattern[token, head, : token + 1], atol=1e-4)
        assert found["sink"] == pytest.approx(sinks[token, head], abs=1e-4)
        share = 1 - sinks
        analysis = [n for n in range(start, len(channels)) if channels[n] == "analysis"]
        for each, shares in enumerate(found["heads"]):
            assert shares["all"] == pytest.approx(share[:, each].mean(), abs=1e-4)
            assert shares["isOn"] == (shares["all"] > 0.5)
            parts = shares["byChannel"]
            assert parts["prompt"] == pytest.approx(share[:start, each].mean(), abs=1e-4)
            assert parts["analysis"] == pytest.approx(share[analysis, each].mean(), abs=1e-4)
        weights, sink = pattern[token, head].sum(), sinks[token, head]
        line = nano.locator(".oss-attention-sum").inner_text()
        assert line == f"Weights {weights:.4f} + sink {sink:.4f} = 1.0000"


def test_the_window_edge_is_before_the_oldest_visible_key(nano) -> None:
    """And the keys before it are marked as hidden; a full layer has no edge."""
    select(nano, layer=2, head=1, token=100)
    edge = nano.locator(".oss-attention-edge")
    assert edge.inner_text() == "window edge: 69 earlier tokens are hidden, 32 are visible"
    after = "(edge) => [edge.previousSibling, edge.nextSibling].map((each) => each.dataset.key)"
    assert edge.evaluate(after) == ["68", "69"]
    assert nano.locator(".oss-attention-hidden:visible").count() == 69
    select(nano, layer=3)
    assert edge.count() == 0
    assert nano.locator(".oss-attention-hidden:visible").count() == 0


def test_heads_are_grouped_and_chosen_with_the_keyboard(nano) -> None:
    select(nano, layer=2, head=3, token=100)
    groups = nano.locator(".oss-attention-group-name").all_inner_texts()
    assert groups == ["KV head 0: heads 0–3", "KV head 1: heads 4–7"]
    assert "2: sliding, window 32" in text_of(nano)
    nano.locator(".oss-attention-head[aria-checked=true]").focus()
    nano.keyboard.press("ArrowRight")
    assert nano.evaluate("selection.head") == 4
    assert nano.evaluate("document.activeElement.textContent").startswith("head 4")
    nano.evaluate("source.show(source.shown)")
    assert nano.evaluate("document.activeElement.textContent").startswith("head 4")
    assert "Head 4 of layer 2, KV head 1" in text_of(nano)
    nano.get_by_label("Query token").focus()
    nano.keyboard.press("ArrowLeft")
    assert nano.evaluate("selection.token") == 99
    nano.get_by_role("combobox").select_option("1")
    assert nano.evaluate("selection.layer") == 1


def test_the_map_describes_cells_and_becomes_svg(nano) -> None:
    found = select(nano, layer=2, head=3, token=150)
    assert found["weights"][147] == pytest.approx(max(found["weights"]))
    nano.locator(".oss-map").focus()
    for _ in range(3):
        nano.keyboard.press("ArrowLeft")
    spoken = nano.locator(".oss-attention-map [role=status]").inner_text()
    assert spoken.endswith(f"{found['weights'][147]:.3g}; sink {found['sink']:.3g}")
    svg = nano.evaluate("drawn.toSvg()")
    assert "sink" in svg
    assert svg.count("<rect") > 500
    nano.keyboard.press("Home")
    spoken = nano.locator(".oss-attention-map [role=status]").inner_text()
    assert "outside the window" in spoken


def test_axe_finds_nothing(short_nano, find_violations) -> None:
    select(short_nano, layer=2, head=3, token=40)
    short_nano.evaluate("document.querySelector('.oss-as-table').open = true")
    assert find_violations(short_nano) == []


def test_removing_a_sink_asks_again_with_a_null(short_nano, lab) -> None:
    select(short_nano, layer=0, head=2, token=40)
    short_nano.get_by_label("Seed of the null").fill("3")
    short_nano.get_by_role("button", name="Remove this head's sink").click()
    short_nano.get_by_text("Both replies are finished.").wait_for()
    specs = short_nano.evaluate("source.runs.slice(1).map(({ interventions }) => interventions)")
    other = specs[1][0]["head"]
    assert specs[0] == [{"kind": "RemoveSink", "layer": 0, "head": 2}]
    assert other != 2
    changed = lab.chat(PRODUCT, effort="low", interventions=[RemoveSink(layer=0, head=2)])
    null = lab.chat(PRODUCT, effort="low", interventions=[RemoveSink(layer=0, head=other)])
    unchanged = lab.chat(PRODUCT, effort="low")
    answers = short_nano.locator(".oss-attention-answer").all_inner_texts()
    assert answers == [unchanged.final, changed.final, null.final]
    titles = short_nano.locator(".oss-attention-result strong").all_inner_texts()
    assert titles[2] == f"null: RemoveSink, layer 0, head {other} (seed 3)"
    short_nano.get_by_role("button", name="Show this run").first.click()
    short_nano.wait_for_function(
        "() => drawn.data().run === 'run-2' && drawn.data().weights !== null"
    )
    found = select(short_nano, layer=0, head=2, token=60)
    assert found["sink"] == pytest.approx(0, abs=1e-6)
    assert sum(found["weights"]) == pytest.approx(1, abs=1e-5)


def test_a_source_without_the_pattern_still_shows_the_sinks(nano) -> None:
    nano.evaluate("""() => {
      source.hasPoint = (name, layer) => name === "attn.sink_mass" && layer === 2;
      source.can = new Set();
      selection.set({ layer: 2 });
      drawn.close();
      show();
    }""")
    nano.locator(".oss-attention-on").first.wait_for()
    text = text_of(nano)
    assert "gpt-oss-nano has no attn.pattern of layer 2." in text
    assert 'lab.trace(reply, ["attn.pattern"], layers=[2])' in text
    assert not nano.get_by_role("button", name="Ablate this head").is_visible()
    nano.evaluate("selection.set({ layer: 1 })")
    text = text_of(nano)
    assert 'lab.trace(reply, ["attn.pattern", "attn.sink_mass"], layers=[1])' in text


def test_an_array_of_the_caller(nano) -> None:
    array = {
        "values": [0, 0, 3, -6, 1, 7, 2, 2],
        "shape": [2, 2, 2],
        "name": "mine",
        "unit": "nats",
    }
    nano.evaluate("(array) => (drawn.close(), show({ array }))", array)
    nano.evaluate("selection.set({ head: 1, token: 0 })")
    nano.wait_for_function("() => drawn.data().weights !== null")
    assert nano.evaluate("drawn.data().weights") == [1, 7]
    nano.evaluate("selection.set({ head: 0, token: 1 })")
    nano.wait_for_function("() => drawn.data().weights !== null")
    found = nano.evaluate("drawn.data()")
    assert (found["name"], found["unit"]) == ("mine", "nats")
    assert found["weights"] == [3, -6]
    assert "No run with 2 tokens is shown" in text_of(nano)
    assert "The row sums to -3.0000 nats" in text_of(nano)
    values = "[0, 0, Infinity, NaN, NaN, NaN, 2, NaN]"
    nano.evaluate(
        f"(array) => (drawn.close(), show({{ array: {{ ...array, values: {values} }} }}))", array
    )
    nano.evaluate("selection.set({ head: 1, token: 1 })")
    nano.wait_for_function("() => drawn.data().weights !== null")
    assert nano.evaluate("drawn.toSvg().includes('<rect')")  # draws every cell
    assert "token 0 2" in nano.locator(".oss-attention-largest").inner_text()
    assert "orange 2 nats" in text_of(nano)  # the largest number that is finite
    nano.evaluate("(array) => (drawn.close(), show({ array }))", {**array, "shape": [2, 4, 1]})
    error = nano.locator(".oss-error").inner_text()
    assert error == "mine: expected an array [head, seq, seq], got shape [2, 4, 1] with 8 values"


def test_the_text_is_paged_and_a_large_weight_is_found_on_its_page(page) -> None:
    """Rows that arrive for the map do not turn the page back to the query."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate(LARGE, TWENTY_B)
    page.evaluate(OPEN_LARGE)
    page.evaluate("selection.set({ layer: 1, token: 5000 })")
    shown = page.locator(".oss-attention-text bdi:visible")
    last = "(spans) => spans.at(-1).dataset.key"
    assert shown.evaluate_all(last) == "5000"
    page.get_by_role("button", name="Earlier tokens").click()
    earlier = shown.evaluate_all(last)
    assert int(earlier) < 5000
    page.get_by_text("Map of head").click()
    page.wait_for_function("() => document.querySelector('.oss-status').textContent === ''")
    assert shown.evaluate_all(last) == earlier
    page.locator(".oss-attention-largest button").click()
    assert shown.evaluate_all(last) == "5000"
    page.wait_for_function("() => document.querySelector('.oss-attention-text').scrollTop > 0")


def test_an_answer_for_an_earlier_selection_is_ignored(page) -> None:
    """While a slow source computes, the status says what, and no old numbers are shown."""
    page.evaluate(LARGE, {**TWENTY_B, "length": 600})
    page.evaluate(OPEN_LARGE)
    page.evaluate("() => (hold(), selection.set({ layer: 4, head: 9 }))")
    computing = "Computing attn.pattern of layer 4, queries 594 to 599 …"
    assert page.locator(".oss-status").inner_text() == computing
    assert not page.locator(".oss-attention-sum").is_visible()
    page.evaluate("() => selection.set({ layer: 5, token: 300 })")
    page.evaluate("() => release()")
    page.wait_for_function("() => drawn.data().weights !== null")
    found = page.evaluate("drawn.data()")
    assert (found["layer"], found["head"], len(found["weights"])) == (5, 9, 301)
    assert found["weights"][300] == pytest.approx(1 - 10 / 65)


def test_a_stored_trace_shows_what_it_has(page, lab, tmp_path) -> None:
    """Of a trace with one layer, two heads and the first tokens."""
    reply = lab.chat(PRODUCT, effort="low")
    points = ["attn.pattern", "attn.sink_mass"]
    trace = lab.trace(reply, points, layers=[2], heads=[1, 6], positions=range(60))
    trace.save(tmp_path / "part.trace")
    page.evaluate(
        """(bytes) => {
          window.drawn?.close();
          const { TraceSource } = modules["source/trace.js"];
          window.source = new TraceSource(Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0)));
          window.selection = newSelection();
          const { VIEWS } = modules["views/registry.js"];
          window.drawn = VIEWS.attention(document.querySelector("#view"), source, selection);
        }""",
        base64.b64encode((tmp_path / "part.trace").read_bytes()).decode(),
    )
    found = select(page, head=6, token=50)
    pattern = trace["attn.pattern", 2].numpy()[50, 1, :51]
    np.testing.assert_allclose(found["weights"], pattern, atol=1e-6)
    assert (found["layer"], found["heads"][0]["all"]) == (2, None)
    assert found["heads"][6]["all"] == pytest.approx(
        1 - trace["attn.sink_mass", 2].numpy()[:, 1].mean(), abs=1e-4
    )
    page.evaluate("selection.set({ head: 0 })")
    assert "attn.pattern of head 0 was not recorded at token 50." in text_of(page)
    assert "only heads 1, 6" in text_of(page)


def test_a_phone_shows_everything_without_scrolling_sideways(page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate(LARGE, TWENTY_B)
    page.evaluate(OPEN_LARGE)
    page.get_by_text("Map of head").click()
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    assert page.locator(".oss-map canvas").bounding_box()["width"] <= 390


def test_a_large_model_requests_only_what_is_visible(page) -> None:
    """And it opens and follows the query fast enough."""
    page.evaluate(LARGE, TWENTY_B)
    milliseconds = page.evaluate(OPEN_LARGE)
    found = page.evaluate("drawn.data()")
    assert len(found["heads"]) == 64
    assert found["weights"][7999] == pytest.approx(1 - 1 / 65)
    page.get_by_text("Map of head").click()
    page.wait_for_function("() => document.querySelector('.oss-status').textContent === ''")
    requests = page.evaluate("requests")
    patterns = [each["size"] for each in requests if each["name"] == "attn.pattern"]
    assert max(patterns) <= 2 * 64 * 8000
    assert sum(patterns) <= 50 * 64 * 8000
    frames = page.evaluate("""async () => {
      const slider = document.querySelector(".oss-attention-slider input");
      const started = performance.now();
      for (let n = 1; n <= 30; n++) {
        selection.set({ token: 7000 - n });
        await new Promise(requestAnimationFrame);
      }
      return 30000 / (performance.now() - started);
    }""")
    print(f"opened in {milliseconds:.0f} ms, {frames:.0f} frames/s")
    assert milliseconds < 4000
    assert frames > 8
    assert "<img onerror=alert(1)>" not in page.locator("#view").inner_html()
