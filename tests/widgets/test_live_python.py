"""The Python code that makes a run of the page again: it is executed, and gives the same ids."""

import pytest

from oss_lab.nano.gallery import GALLERY

QUESTION = "What is 347 * 62?"
ODD = "Say \"hi\" \\ 'you'\n{x} <|start|> ` 日本 \U0001f642"

# Each makes one run, in the page, from `source`, `finish` and `question`.
RUNS = {
    "plain": """return finish(source, await source.ask({ question, effort: "medium" }));""",
    "odd text": """
        const more = { instructions: odd, history: [["2 + 2?", "4"]], maxTokens: 12 };
        return finish(source, await source.ask({ question: odd, effort: "low", ...more }));""",
    "interventions": """
        const interventions = [
          { kind: "AblateExpert", layer: "all", expert: [27, 3] },
          { kind: "ShiftSink", layer: 1, head: "all", by: -Infinity },
          { kind: "AddVector", point: "resid.post", layer: 2, vector: new Array(96).fill(0.01) },
        ];
        return finish(source, await source.ask({ question, effort: "high", interventions }));""",
    "paused": """
        const run = await source.ask({ question, effort: "high" });
        for await (const token of source.step(run, { count: 17 }));
        return run;""",
    "edited": """
        const run = await finish(source, await source.ask({ question, effort: "high" }));
        return finish(source, await source.fork(run, run.promptLength + 10, { text: "9" }));""",
    "edited, then changed inside, then paused": """
        const interventions = [{ kind: "ScaleHead", layer: 1, head: 2, by: 2.5 }];
        const run = await source.ask({ question, effort: "high", interventions });
        for await (const token of source.step(run, { count: 40 }));
        const start = run.promptLength;
        const edited = await finish(source, await source.fork(run, start + 10, { text: "9 + 1" }));
        const last = await source.fork(edited, start + 14, { interventions: [] });
        for await (const token of source.step(last, { count: 6 }));
        return last;""",
    "tool": """return finish(source, await source.ask({ ...calculator, toolOutputs: {} }));""",
    "edited before a tool answers": """
        const run = await finish(source, await source.ask({ ...calculator, toolOutputs: {} }));
        const call = run.tokens.findIndex(({ recipient, part }) => recipient && part === "content");
        const interventions = [{ kind: "ScaleHead", layer: 3, head: 1, by: 1.5 }];
        return finish(source, await source.fork(run, call + 3, { interventions }));""",
    "edited after a tool answered": """
        const run = await finish(source, await source.ask({ ...calculator, toolOutputs: {} }));
        return finish(source, await source.fork(run, run.tokens.length - 3, { text: "7" }));""",
}


CALLS = {
    "edited": {"tree.branch(": 1},
    "edited, then changed inside, then paused": {"tree.branch(": 2, "with ": 2, "max_tokens": 1},
    "tool": {"lab.chat(": 2, "append_outputs(": 1},
    "edited before a tool answers": {"lab.chat(": 1, "tree.branch(": 2},
    "edited after a tool answered": {"lab.chat(": 2, "tree.branch(": 1},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_code_gives_the_same_tokens(live_page, name) -> None:
    (example,) = (each for each in GALLERY if each.name == "calculator")
    ids, code = live_page.evaluate(
        f"""async ([question, odd, name]) => {{
          const source = newSource();
          const calculator = source.examples.find((each) => each.name === name);
          const run = await (async () => {{ {RUNS[name]} }})();
          return [run.tokens.map(({{ id }}) => id), await source.toPython(run)];
        }}""",
        [QUESTION, ODD, example.name],
    )
    names: dict = {}
    exec(code, names)
    assert list(names["ids"]) == ids, code
    for call, count in CALLS.get(name, {"lab.chat(": 1}).items():
        assert code.count(call) == count
    assert names["reply"].ids[-1] == ids[-1]


def test_the_expected_seconds(live_page) -> None:
    nothing, expected, seconds, done = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const first = await source.ask({ question, effort: "medium" });
          const nothing = await source.estimate(first);
          await finish(source, first);
          const next = await source.ask({ question, effort: "medium" });
          const other = await source.ask({ question, effort: "high" });
          return [[nothing, await source.estimate(other)], await source.estimate(next),
                  first.seconds, await source.estimate(first)];
        }""",
        QUESTION,
    )
    assert nothing == [None, None]
    assert expected == pytest.approx(seconds, rel=1e-6)
    assert done == 0
