"""The logit lens as a view: its numbers are the lab's, and only what is visible is computed."""

import numpy as np
import pytest

QUESTION = "What is 347 * 62?"

# In the page: `open(source)` shows the view, `ask(question)` is a source with a finished run whose
# requested ranges are in `asked`.
SET_UP = """() => {
  window.open = (source) => {
    window.shown?.close();
    document.querySelector("#view").replaceChildren();
    Object.assign(window, { source, selection: newSelection(), asked: [] });
    const { showLens } = modules["views/lens/lens.js"];
    window.shown = showLens(document.querySelector("#view"), source, selection);
  };
  window.ask = async (question) => {
    const source = newSource();
    const analyze = source.analyze.bind(source);
    source.analyze = (run, name, options) => {
      asked.push([options.from, options.to]);
      return analyze(run, name, options);
    };
    source.show(await finish(source, await source.ask({ question, effort: "high" })));
    return source;
  };
}"""


@pytest.fixture(scope="module")
def page(live_page):
    live_page.evaluate(SET_UP)
    return live_page


@pytest.fixture
def answered(page):
    page.evaluate("async (question) => open(await ask(question))", QUESTION)
    page.wait_for_function("() => shown.data().positions.length >= 64")
    return page


@pytest.fixture(scope="module")
def tokens(lab) -> list[int]:
    reply = lab.chat(QUESTION, effort="high")
    return [*reply.prompt_tokens, *reply.ids]


def select(page, token: int, layer: int | None = None) -> str:
    """The detail of a position once it is computed."""
    page.evaluate("([token, layer]) => selection.set({ token, layer })", [token, layer])
    page.locator(".oss-lens-detail h4", has_text=f"After token {token},").wait_for()
    return page.locator(".oss-lens-detail").inner_text()


def test_numbers_are_the_labs(answered, lab, tokens) -> None:
    positions = answered.evaluate("() => shown.data().positions")
    expected = lab.lens(tokens)
    for name, field in [("rank",) * 2, ("logprob",) * 2, ("entropy",) * 2, ("divergence",) * 2]:
        found = np.array([[cell[name] for cell in each["layers"]] for each in positions])
        numbers = getattr(expected, field)[:, : len(positions)].numpy().T
        np.testing.assert_allclose(found, numbers, atol=2e-3, err_msg=name)
    tops = np.array([[cell["topIds"][0] for cell in each["layers"]] for each in positions])
    assert np.array_equal(tops, expected.top_ids[:, : len(positions), 0].numpy().T)
    assert [each["came"] for each in positions] == tokens[1 : len(positions) + 1]


def test_detail_says_from_which_layer_on(answered, lab, tokens) -> None:
    top_ids = lab.lens(tokens).top_ids[..., 0].numpy()
    settled = [next(n for n in range(len(tops)) if all(tops[n:] == tops[-1])) for tops in top_ids.T]
    endings = {0: "in every layer.", 3: "only in the last layer, 3."}
    for layer in sorted(set(settled)):
        text = select(answered, settled.index(layer), 1)
        assert endings.get(layer, f"from layer {layer} on.") in text


def test_detail_has_one_layers_numbers(answered, lab, tokens, find_violations) -> None:
    at = 75
    expected = lab.lens(tokens, [at])
    text = select(answered, at, 2)
    shown = text.split("Rank\n")[1].split("\n")[0]
    assert shown.split(",")[0] == str(expected.rank[2, 0].item() + 1)
    entropy = float(text.split("Entropy\n")[1].split(" nats")[0].replace("−", "-"))
    assert entropy == pytest.approx(expected.entropy[2, 0].item(), rel=2e-2)
    assert answered.locator(".oss-lens-detail .oss-probability").count() == 5
    assert find_violations(answered) == []
    assert "<svg" in answered.evaluate("() => shown.toSvg()")


def test_ranks_begin_at_1_and_the_divergence_is_that_of_the_lab(answered, lab, tokens) -> None:
    expected = lab.lens(tokens)
    at = next(n for n, rank in enumerate(expected.rank[1].tolist()) if 0 < rank < 50)
    rank, divergence = expected.rank[1, at].item() + 1, expected.divergence[1, at].item()
    text = select(answered, at, 1)
    assert f"Rank\n{rank}\n" in text
    shown = float(text.split("prediction\n")[-1].split(" nats")[0])
    assert shown == pytest.approx(divergence, rel=2e-2)
    answered.locator(".oss-map").focus()
    spoken = answered.locator(".oss-caption").inner_text()
    assert "the actual next token is" in spoken
    assert spoken.endswith(f", rank {rank}).")


def test_keyboard_selects_a_cell(answered) -> None:
    answered.locator(".oss-map").focus()
    for key in ["ArrowRight", "ArrowRight", "ArrowDown"]:
        answered.keyboard.press(key)
    spoken = answered.locator(".oss-caption").inner_text()
    assert spoken.startswith("Layer 1, after token 2 “<|message|>”: “")
    answered.keyboard.press("Enter")
    assert answered.evaluate("() => [selection.layer, selection.token]") == [1, 2]
    answered.get_by_text("As a table").click()
    answered.get_by_role("row").nth(64).wait_for()


def test_only_visible_positions_are_computed(page) -> None:
    """Of 8,000 tokens and 36 layers; a selected token far away is computed first."""
    page.evaluate("""() => {
      const label = { message: 0, role: "user", channel: null, recipient: null, part: "content" };
      const makeToken = (_, n) => ({ id: n % 600, text: ` w${n}`, ...label });
      const tokens = Array.from({ length: 8000 }, makeToken);
      const run = { id: "stored", tokens, promptLength: 0 };
      const top = { topIds: [1], topTexts: ["\\\\xe4"], topLogprobs: [-1] };
      const cell = { ...top, rank: 3, logprob: -2, entropy: 2, divergence: 1 };
      const analyze = async (_, name, { from, to }) => {
        asked.push([from, to]);
        const row = Array.from({ length: to - from }, () => cell);
        return Array.from({ length: 36 }, () => row);
      };
      const config = { num_hidden_layers: 36 };
      open({ can: new Set(["lens"]), config, shown: run, analyze, on: () => () => {} });
    }""")
    text = select(page, 7500, 35)
    assert "“⟨E4⟩”" in text
    page.wait_for_function("() => shown.data().positions.length >= 64")
    asked = page.evaluate("() => asked")
    assert sum(to - first for first, to in asked) < 400
    assert all(first < 200 or first > 7300 for first, to in asked)


def test_says_what_is_missing(page) -> None:
    page.evaluate("""() => { const source = newSource(); source.can.add("lens"); open(source); }""")
    assert "Ask a question first." in page.locator(".oss-sentence").inner_text()
    page.evaluate("() => { const s = newSource(); s.can.delete('lens'); open(s); }")
    assert "needs a model;" in page.locator(".oss-sentence").inner_text()
    assert page.locator(".oss-map").count() == 0


def test_a_mistake_is_shown_as_a_sentence(page) -> None:
    page.evaluate(
        """async (question) => {
          const source = await ask(question);
          const { LabError } = modules["errors.js"];
          source.analyze = async () => { throw new LabError("the trace has no resid.post"); };
          open(source);
        }""",
        QUESTION,
    )
    page.get_by_role("alert").get_by_text("the trace has no resid.post").wait_for()
