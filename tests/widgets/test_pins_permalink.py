"""Pinned places, and the state of a page in its address."""

import pytest

PLACE = {"token": 93, "layer": 2, "head": None, "expert": 7}
STATE = {
    "mode": "lab",
    "step": 3,
    "views": ["tokens", "effort_lens"],
    "theme": "dark",
    "selection": {**PLACE, "pinned": [PLACE, {**PLACE, "token": None, "head": 0}]},
    "run": {
        "request": {
            "question": "What is 347 * 62? & <b>=#你好",
            "effort": "high",
            "sampling": {"temperature": 0.5, "topK": None, "seed": 1},
            "toolOutputs": {"{}": "8"},
            "interventions": [{"kind": "AblateExpert", "layer": 0, "expert": 27}],
        },
        "forks": [{"at": 93, "ids": [55], "interventions": []}],
    },
}
ROUND = """(state) => {
  const { encode, decode } = modules["views/permalink.js"];
  return [encode(state), decode(encode(state))];
}"""


def test_a_state_comes_back_from_its_address(live_page) -> None:
    text, found = live_page.evaluate(ROUND, STATE)
    assert found == STATE
    assert not set(text) & set(' "<>#')


def test_a_plain_question_has_a_short_address(live_page) -> None:
    run = {"request": {"question": "What is 2 + 2?", "effort": "high", "tools": []}, "forks": []}
    state = {"run": run, "selection": {**PLACE, "pinned": []}}
    text, found = live_page.evaluate(ROUND, state)
    assert text == "q=What+is+2+%2B+2%3F&e=high&t=93&l=2&x=7"
    assert found["run"]["request"] == {"question": "What is 2 + 2?", "effort": "high"}


@pytest.mark.parametrize(
    ("fragment", "part"),
    [
        ("q=hi&e=huge", "e"),
        ("q=&e=high", "q"),
        ("e=high", "q"),
        ("t=1e3", "t"),
        ("l=-1", "l"),
        ("mode=<b>", "mode"),
        ("views=tokens,../x", "views"),
        ("pin=1.2", "pin"),
        ("q=a&e=low&more={", "more"),
        ('q=a&e=low&more={"__proto__":{"a":1}}', "more"),
        ('q=a&e=low&more={"constructor":"a"}', "more"),
        ('q=a&e=low&more={"history":[["a"]]}', "more"),
        ('q=a&e=low&more={"tools":[{"name":"a","description":5}]}', "more"),
        ('q=a&e=low&forks=[{"at":-1,"ids":[],"interventions":[]}]', "forks"),
        ('q=a&e=low&forks=[{"at":1}]', "forks"),
        ("zoom=2", "zoom"),
        ("t=1&t=2", "t"),
    ],
)
def test_a_damaged_address_is_refused(live_page, fragment, part) -> None:
    refuse = """(fragment) => {
      try {
        modules["views/permalink.js"].decode(fragment);
      } catch (error) {
        if (error instanceof modules["errors.js"].LabError) return error.message;
        throw error;
      }
    }"""
    assert f"“{part}”" in live_page.evaluate(refuse, fragment)


def test_pins_are_added_visited_and_removed(live_page, find_violations) -> None:
    live_page.evaluate("""async () => {
      const source = newSource();
      source.show(await source.ask({ question: "What is 2 + 2?", effort: "low" }));
      window.selection = newSelection();
      const { showPins } = modules["views/pins.js"];
      window.shown = showPins(document.querySelector("#view"), source, selection);
    }""")
    pin = live_page.get_by_role("button", name="Pin this place")
    assert pin.is_disabled()
    live_page.evaluate("() => selection.set({ token: 1, layer: 2 })")
    pin.click()
    live_page.evaluate("() => selection.set({ token: 0, layer: null, expert: 3 })")
    live_page.get_by_role("button", name="Pin this place").press("Enter")
    names = live_page.locator(".oss-pin-list button:first-child").all_inner_texts()
    assert names == ["token 1 “system”, layer 2", "token 0 “<|start|>”, expert 3"]
    assert live_page.get_by_role("button", name="Unpin this place").is_enabled()
    live_page.get_by_role("button", name="token 1").first.click()
    assert live_page.evaluate("() => selection.place") == {
        "token": 1,
        "layer": 2,
        "head": None,
        "expert": None,
    }
    assert find_violations(live_page) == []
    live_page.get_by_role("button", name="Remove token 1").click()
    assert len(live_page.evaluate("() => shown.data().pinned")) == 1
    assert live_page.evaluate("() => document.activeElement.textContent.startsWith('token 0')")
