"""The views of analyses and of MXFP4 blocks, on a source whose analyses give known numbers."""

import re

import pytest

QUESTION = "What is 12 * 7?"

# A live source whose analyses return fixed results, and a view of it.
OPEN = """async ([name, results, question]) => {
  const source = newSource();
  const run = await finish(source, await source.ask({ question, effort: "high" }));
  source.show(run);
  Object.keys(results).forEach((each) => source.can.add(each));
  source.analyze = async (run, each, options) => {
    window.asked.push([each, options]);
    await window.held;
    const result = results[each];
    return each === "block" ? { ...result, packed: Uint8Array.from(result.packed) } : result;
  };
  window.asked = [];
  window.held = null;
  window.source = source;
  window.selection = newSelection();
  window.shown?.close();
  const element = document.querySelector("#view");
  window.shown = modules["views/registry.js"].VIEWS[name](element, source, selection);
}"""

PACKED = [0x10 * ((2 * n + 1) % 16) + (2 * n) % 16 for n in range(16)]  # nibbles 0 to 15, twice
VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
BLOCK = {
    "packed": PACKED,
    "scale": 126,
    "values": [sign * value / 2 for _ in range(2) for sign in (1, -1) for value in VALUES],
}
LIKELY = [{"id": 5, "text": "8", "logprob": -0.1}, {"id": 6, "text": "<b>", "logprob": -3.0}]
RESULTS = {
    "block": BLOCK,
    "flipBit": {
        "block": {**BLOCK, "values": [7.0, *BLOCK["values"][1:]]},
        "outputChange": 0.25,
        "before": LIKELY,
        "after": LIKELY[::-1],
    },
    "attribution": {
        "logit": 9.5,
        "embedding": 0.5,
        "bias": [1.0, 0, 0, 0],
        "heads": [[0.25 * head for head in range(8)]] + [[0.0] * 8] * 3,
        "slots": [[1.0, 0, 0, 0]] * 3 + [[-2.0, 0, 0, 0]],
        "expertIds": [[31, 2, 3, 4]] * 4,
    },
    "commitment": {
        "steps": [
            {"kept": 0, "thought": "", "answer": "70", "logprob": -4.0},
            {"kept": 5, "thought": "12*7", "answer": "84", "logprob": -0.5},
            {"kept": 9, "thought": "=84", "answer": "84", "logprob": -0.001},
        ]
    },
    "effortLens": {
        "efforts": [
            {"effort": "low", "answer": "83", "tokens": {"final": 2, "format": 3}},
            {"effort": "high", "answer": "84", "tokens": {"analysis": 20, "final": 2, "format": 8}},
        ],
        "pairs": [
            {"efforts": ["low", "high"], "divergence": [0.25, 0.5], "byChance": [0.1, 0.125]}
        ],
    },
}


@pytest.fixture
def open_view(live_page):
    def open_named(name: str):
        live_page.evaluate(OPEN, [name, RESULTS, QUESTION])
        return live_page

    return open_named


def text_of(page, selector: str = "#view") -> str:
    return page.locator(selector).inner_text()


def test_microscope_shows_bits_values_and_bounds(open_view, find_violations) -> None:
    page = open_view("microscope")
    weights = page.get_by_role("radio")
    assert weights.count() == 32
    assert weights.nth(7).get_attribute("aria-label") == "weight 7: 3, bits 0111"
    weights.nth(5).click()
    assert "3 × 0.5 = 1.5" in text_of(page)
    assert "between 1.25 and 1.75" in text_of(page)  # halfway to the neighbors 2 and 4
    page.keyboard.press("ArrowRight")
    assert "4 × 0.5 = 2" in text_of(page)
    page.get_by_text("As a table").click()
    page.get_by_role("row").nth(32).wait_for()  # a heading and 32 weights
    assert page.get_by_role("row").count() == 33
    assert find_violations(page) == []


def test_a_flipped_bit_is_compared_with_another(open_view) -> None:
    page = open_view("microscope")
    page.evaluate("() => selection.set({ token: 10 })")
    page.get_by_role("button", name="Flip weight 0, sign").click()
    effect = page.locator(".oss-microscope-effect")
    effect.get_by_role("table").wait_for()
    asked = page.evaluate("asked.filter(([name]) => name === 'flipBit').map(([, each]) => each)")
    assert [(each["bit"], each["at"]) for each in asked] == [(3, 11), (67, 11)]
    text = effect.inner_text()
    assert "from 0 into 7" in text
    read = page.evaluate("modules['views/visible.js'].makeVisible(source.shown.tokens[10].text)")
    assert f"At token 10 ({read})" in text
    assert "25%" in text
    assert "changes from 8 to <b>" in text
    assert "−2.90" not in text  # the listed change is that of the token that was likeliest
    assert "0.000" in text


def test_attribution_adds_up_and_selects(open_view, find_violations) -> None:
    page = open_view("attribution")
    page.get_by_role("button", name="Compute").click()
    page.get_by_role("application").first.wait_for()
    assert "0.5 from the embedding, 7 from the heads, 1 from attention biases and 1" in text_of(
        page
    )
    slots = page.get_by_role("application").nth(1)
    slots.focus()
    page.keyboard.press("ArrowDown")
    assert "Layer 1, expert 31: +1.00" in text_of(page)
    page.keyboard.press("Enter")
    assert page.evaluate("[selection.layer, selection.expert]") == [1, 31]
    svg = page.evaluate("shown.toSvg()")
    assert (
        svg.count("<title>attention heads</title>") == svg.count("<title>expert slots</title>") == 1
    )
    clips = re.findall('clipPath id="([^"]*)"', svg)
    assert len(clips) == len(set(clips)) > 2
    assert find_violations(page) == []


def test_commitment_finds_where_the_answer_stays(open_view, find_violations) -> None:
    page = open_view("commitment")
    page.get_by_role("button", name="Save SVG").click()
    assert page.locator(".oss-status").inner_text() == "There is nothing to save yet."
    compute = page.get_by_role("button", name="Compute")
    compute.click()
    page.get_by_text("5 of 9 tokens or later").wait_for()
    assert compute.evaluate("(button) => button === document.activeElement")  # not lost meanwhile
    assert page.locator(".oss-commitment-steps li").count() == 3
    assert "1.8%, answer 70" in " ".join(text_of(page).split())
    assert find_violations(page) == []


def test_effort_lens_counts_tokens_by_channel(open_view, find_violations) -> None:
    page = open_view("effort_lens")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("high: 30 tokens, “84”").wait_for()
    assert "0.5 (chance 0.125)" in text_of(page)
    assert find_violations(page) == []


def test_branches_are_the_forks_of_runs(open_view, find_violations) -> None:
    page = open_view("branches")
    page.evaluate(
        """async () => {
          const change = { text: "9", interventions: [{ kind: "AblateHead", layer: 0, head: 1 }] };
          const at = source.shown.promptLength + 8;
          await finish(source, await source.fork(source.shown, at, change));
        }"""
    )
    fork = page.get_by_role("button", name="from token")
    assert "9, with AblateHead, layer 0, head 1: answers" in fork.inner_text()
    assert find_violations(page) == []
    fork.click()
    assert page.evaluate("source.shown.id") == "run-2"
    assert "AblateHead" in page.evaluate("shown.toSvg()")
    assert page.evaluate("selection.token - source.runs[0].promptLength") == 8


def test_a_source_without_analyses_says_so(live_page) -> None:
    live_page.evaluate(OPEN, ["commitment", {}, QUESTION])
    assert "cannot compute commitment" in text_of(live_page)


HOLD = "() => { window.held = new Promise((resolve) => (window.release = resolve)); }"
ASK_OTHER = """async () => {
  window.other ??= await source.ask({ question: "What is 2 + 2?", effort: "low" });
  source.show(other);
}"""


@pytest.mark.parametrize(
    ("name", "button", "word"),
    [
        ("attribution", "Compute", "9.5"),
        ("commitment", "Compute", "70"),
        ("effort_lens", "Compare", "83"),
    ],
)
def test_numbers_of_another_run_are_not_shown(open_view, name, button, word) -> None:
    """Neither those that are there when another run is shown, nor those that come later."""
    page = open_view(name)
    page.evaluate("() => { window.other = null; }")
    page.get_by_role("button", name=button).click()
    page.locator("#view").get_by_text(word).first.wait_for()
    page.evaluate(ASK_OTHER)
    assert word not in text_of(page)
    page.evaluate("() => source.show(source.runs[0])")
    page.evaluate(HOLD)
    page.get_by_role("button", name=button).click()
    page.evaluate(ASK_OTHER)
    page.evaluate("() => release()")
    page.wait_for_function("() => !document.querySelector('.oss-controls button').disabled")
    assert word not in text_of(page)


def test_an_effect_is_that_of_the_last_bit_and_the_shown_block(open_view) -> None:
    page = open_view("microscope")
    flip = page.get_by_role("button", name="flip weight 0, sign")
    page.evaluate(HOLD)
    flip.click()
    page.get_by_role("radio").nth(5).click()
    page.evaluate("() => release()")
    page.wait_for_function("() => asked.filter(([name]) => name === 'flipBit').length === 2")
    assert page.locator(".oss-microscope-effect").inner_text() == ""


def test_there_is_no_picture_to_save_before_it_is_computed(open_view) -> None:
    page = open_view("effort_lens")
    page.get_by_role("button", name="Save SVG").click()
    assert "nothing to save yet" in text_of(page)
