"""The view of tokens: its texts and numbers, the keyboard, and what it can change."""

import math

import pytest

QUESTION = "What is 347 * 62?"

# In the page: `open(source, options)` shows the view; `fake(tokens)` is a source with one run.
SET_UP = """() => {
  window.open = (source, options = {}) => {
    window.shown?.close();
    document.querySelector("#view").replaceChildren();
    Object.assign(window, { source, selection: newSelection() });
    const { showTokens } = modules["views/tokens/tokens.js"];
    window.shown = showTokens(document.querySelector("#view"), source, selection, options);
  };
  window.fake = (tokens, promptLength = 0) => {
    const listeners = new modules["source/source.js"].Listeners();
    const labels = { message: 0, role: "user", channel: null, recipient: null, part: "content" };
    const unknown = { logprob: null, alternatives: [] };
    const all = tokens.map((token, id) => ({ id, ...labels, ...unknown, ...token }));
    const run = { id: "stored", tokens: all, promptLength };
    const on = (change, call) => listeners.on(change, call);
    return { can: new Set(), shown: run, runs: [run], on };
  };
  window.ask = async (question, effort = "high", isFinished = true) => {
    const source = newSource();
    const run = await source.ask({ question, effort });
    source.show(run);
    return isFinished ? (await finish(source, run), source) : source;
  };
}"""


@pytest.fixture(scope="module")
def page(live_page):
    live_page.evaluate(SET_UP)
    return live_page


@pytest.fixture
def answered(page):
    page.evaluate("async (question) => open(await ask(question))", QUESTION)
    return page


@pytest.fixture(scope="module")
def reply(lab):
    return lab.chat(QUESTION, effort="high")


def cell(page, n: int):
    return page.locator(f".oss-token[data-n='{n}']")


def detail(page) -> str:
    return page.locator(".oss-token-detail").inner_text()


def test_shows_every_token_by_message(answered, reply) -> None:
    data = answered.evaluate("() => shown.data()")
    start = len(reply.prompt_tokens)
    assert [each["id"] for each in data["tokens"]] == [*reply.prompt_tokens, *reply.ids]
    found = [each["logprob"] for each in data["tokens"][start:]]
    assert found == pytest.approx(list(reply.logprobs), abs=1e-3)
    names = answered.locator(".oss-token-message h4").all_inner_texts()
    assert names == ["system", "user", "assistant · analysis", "assistant · final"]
    assert answered.locator(".oss-token[data-n]").count() == len(data["tokens"])
    svg = answered.evaluate("() => shown.toSvg()")
    assert svg.count("<text") > len(data["tokens"])


def test_detail_has_the_numbers_of_the_lab(answered, reply) -> None:
    start = len(reply.prompt_tokens)
    n = min(range(len(reply.ids)), key=lambda each: reply.logprobs[each])
    answered.evaluate("(token) => selection.set({ token })", start + n)
    assert cell(answered, start + n).get_attribute("aria-pressed") == "true"
    text = detail(answered)
    shown = float(text.split("Probability\n")[1].split("%")[0])
    assert shown == pytest.approx(100 * math.exp(reply.logprobs[n]), abs=0.06)
    assert f"Token id\n{reply.ids[n]}\n" in text
    answered.evaluate("() => selection.set({ token: 3 })")
    assert "Probability\nnot recorded" in detail(answered)


def test_keyboard_moves_through_the_tokens(answered) -> None:
    count = answered.locator(".oss-token[data-n]").count()
    answered.locator(".oss-token[tabindex='0']").focus()

    def at(*keys: str) -> int:
        for key in keys:
            answered.keyboard.press(key)
        assert answered.locator(".oss-token[tabindex='0']").count() == 1
        return int(answered.evaluate("() => document.activeElement.dataset.n"))

    assert at("End") == count - 1
    assert at("Home") == 0
    assert at("ArrowRight", "ArrowRight") == 2
    assert at("PageDown", "ArrowLeft") == 101
    below = at("ArrowDown")
    tops = "([a, b]) => [a, b].map((n) => document.querySelector(`[data-n='${n}']`).offsetTop)"
    first, second = answered.evaluate(tops, [101, below])
    assert second > first
    assert at("ArrowUp") < below
    answered.keyboard.press("Enter")
    assert answered.evaluate("() => selection.token") == at()


def test_tokens_are_appended_while_they_are_generated(page, lab) -> None:
    reply = lab.chat(QUESTION, effort="low")
    start = len(reply.prompt_tokens)
    page.evaluate("async (question) => open(await ask(question, 'low', false))", QUESTION)
    assert "there is no reply yet" in page.locator(".oss-sentence").inner_text()
    page.evaluate("() => { document.querySelector('.oss-token[data-n]').isFirst = true; }")
    page.evaluate("async () => { for await (const _ of source.step(source.shown, { count: 4 })); }")
    cell(page, start + 3).wait_for()
    page.evaluate("(n) => { document.querySelector(`[data-n='${n}']`).isWritten = true; }", start)
    page.evaluate("async () => { await finish(source, source.shown); }")
    cell(page, start + len(reply.ids) - 1).wait_for()
    kept = """(n) => [document.querySelector('.oss-token[data-n]').isFirst,
                      document.querySelector(`[data-n='${n}']`).isWritten]"""
    assert page.evaluate(kept, start) == [True, True]
    heads = page.locator(".oss-token-message h4").all_inner_texts()
    assert heads == ["system", "user", "assistant · final"]


def test_an_alternative_is_written_instead(answered, lab, reply) -> None:
    start = len(reply.prompt_tokens)
    answered.evaluate("(token) => selection.set({ token })", start + 10)
    other = answered.evaluate("(n) => source.shown.tokens[n].alternatives[1].id", start + 10)
    answered.get_by_role("button", name="Write this instead").first.click()
    answered.get_by_text("The new reply has").wait_for()
    ids, parent = answered.evaluate(
        "() => [source.shown.tokens.map(({ id }) => id), source.shown.parent]"
    )
    assert parent == {"run": "run-1", "at": start + 10}
    assert ids[: start + 11] == [*reply.prompt_tokens, *reply.ids[:10], other]
    assert cell(answered, start + 10).get_attribute("aria-pressed") == "true"
    assert answered.evaluate("() => shown.data().run") == "run-2"


def test_a_prompt_token_has_no_button_to_replace_it(answered) -> None:
    answered.evaluate("() => selection.set({ token: 5 })")
    assert answered.get_by_role("button", name="Write this instead").count() == 0


def test_marks_tokens_where_an_expert_matters(page, find_violations) -> None:
    page.evaluate(
        """async (question) => {
          const source = await ask(question);
          source.can.add("knockOutMarks");
          window.calls = 0;
          source.analyze = async (run, name) => {
            calls += 1;
            const largest = new Float32Array(run.tokens.length);
            largest.set([0.05, 0.5, 2], run.promptLength + 1);
            return { largest };
          };
          open(source);
        }""",
        QUESTION,
    )
    assert page.evaluate("() => calls") == 0
    page.get_by_role("button", name="Find tokens where an expert matters").click()
    sentence = page.locator(".oss-token-count")
    count, start = page.evaluate("() => [source.shown.tokens.length, source.shown.promptLength]")
    page.locator(".oss-token-marked").first.wait_for()
    assert sentence.inner_text().startswith(f"2 of {count - start} tokens")
    assert page.evaluate("() => shown.data().marks.marked") == [start + 2, start + 3]
    assert "an expert matters here" in cell(page, start + 2).get_attribute("aria-label")
    page.evaluate("(token) => selection.set({ token })", start + 2)
    assert find_violations(page) == []
    page.get_by_role("slider").fill("1")
    assert sentence.inner_text().startswith(f"1 of {count - start} tokens")
    assert page.locator(".oss-token-marked").count() == 1


ODD = [
    ("<img onerror=alert(1)>", "<img␣onerror=alert(1)>"),
    ("مرحبا", "مرحبا"),
    ("👍🏽", "👍🏽"),
    ("a\n", "a↵"),
    ("\\xe4", "你1/3"),
    ("\\xbd", "你2/3"),
    ("\\xa0", "你3/3"),
    ("\u202e", "U+202E"),
    ("C:\\xe", "C:\\xe"),
    ("\\xe4\\xbd", "⟨E4·BD⟩"),
]


def test_odd_texts_read_right(page, find_violations) -> None:
    page.evaluate(
        "(texts) => open(fake(texts.map((text) => ({ text }))))", [text for text, _ in ODD]
    )
    shown = page.locator(".oss-token[data-n]").all_text_contents()
    assert shown == [text for _, text in ODD]
    assert page.locator("#view img").count() == 0
    page.evaluate("() => selection.set({ token: 5 })")
    assert "⟨BD⟩: part 2 of 3 of 你" in detail(page)
    page.evaluate("() => selection.set({ token: 9 })")
    assert "⟨E4·BD⟩: not a whole character" in detail(page)
    page.get_by_text("As a table").click()
    page.get_by_role("row").nth(len(ODD)).wait_for()
    assert find_violations(page) == []


def test_the_callers_array_colors_the_tokens(page) -> None:
    show = """([values, shape]) => open(fake([{ text: "a" }, { text: "b" }, { text: "c" }]), {
      array: { values, shape, name: "surprise", unit: "bits" } })"""
    page.evaluate(show, [[0, 2.5, 5], [3]])
    colors = page.evaluate(
        "() => [...document.querySelectorAll('[data-n]')].map((each) => each.style.backgroundColor)"
    )
    assert len(set(colors)) == 3
    assert "surprise (bits):" in page.locator("#view").inner_text()
    page.evaluate("() => selection.set({ token: 1 })")
    assert "surprise\n2.5 bits" in detail(page)
    page.evaluate(show, [[0, 1], [2]])
    error = page.locator(".oss-error").inner_text()
    assert error == "surprise has 2 numbers, but the run has 3 tokens; pass one number per token"
    page.evaluate(show, [[0, 1], [1, 2]])
    assert "expected [seq], one number per token" in page.locator(".oss-error").inner_text()


def test_without_tokens_it_says_what_to_do(page) -> None:
    page.evaluate("() => open(newSource())")
    assert "Ask a question first." in page.locator(".oss-sentence").inner_text()
    page.evaluate("() => open(fake([]))")
    assert page.locator(".oss-sentence").inner_text() == "This run has no tokens."
    assert page.evaluate("() => [shown.toSvg(), shown.data().tokens]") == [None, []]


MANY = """() => {
  const tokens = Array.from({ length: 8000 }, (_, n) => {
    const labels = { message: Math.floor(n / 3000), role: "assistant", channel: "final" };
    return { text: n % 97 ? ` word${n % 89}` : ".\\n", ...labels, logprob: -(n % 7) / 3 };
  });
  open(fake(tokens));
}"""


def test_another_views_selection_is_scrolled_to_among_8000_tokens(page) -> None:
    page.evaluate(MANY)
    for token in [7000, 3, 7999]:
        page.evaluate("(token) => selection.set({ token })", token)
        page.wait_for_function(
            """(n) => {
              const list = document.querySelector(".oss-token-list").getBoundingClientRect();
              const own = document.querySelector(`[data-n='${n}']`).getBoundingClientRect();
              return own.top >= list.top && own.bottom <= list.bottom;
            }""",
            arg=token,
        )


@pytest.mark.slow
def test_8000_tokens_scroll_above_30_frames_per_second(page) -> None:
    page.evaluate(MANY)
    median = page.evaluate("""async () => {
      const list = document.querySelector(".oss-token-list");
      const times = [];
      for (let n = 0, last = performance.now(); n < 90; n++) {
        list.scrollTop += 150;
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - last);
        last = performance.now();
      }
      return times.sort((a, b) => a - b)[45];
    }""")
    assert median < 1000 / 30


def test_the_rank_of_a_token_counts_from_1(live_page) -> None:
    run = """(id) => {
      const alternatives = [5, 6, 7].map((each, n) => ({ id: each, text: "a", logprob: -n - 1 }));
      const label = { message: 0, role: "assistant", channel: "final", part: "content" };
      const token = { id, text: "a", ...label, logprob: -2, alternatives };
      const { makeTokenDetail } = modules["views/tokens/token_detail.js"];
      const [, facts] = makeTokenDetail([token], 0, { values: [], write: null });
      const names = [...facts.querySelectorAll("dt")];
      return names.find(({ textContent }) => textContent === "Rank").nextSibling.textContent;
    }"""
    ranks = [live_page.evaluate(run, id) for id in (5, 6, 7, 8)]
    assert ranks == ["1, the most likely", "2", "3", "not among the 3 most likely"]
