"""nano in the page as a source of views, compared with Python."""

import numpy as np
import pytest

from oss_lab import AblateExpert
from oss_lab.analysis.branch import Tree
from oss_lab.nano.gallery import GALLERY

PRODUCT = "What is 347 * 62?"
ASK = """async ([request, interventions]) => {
  const source = newSource();
  const run = await finish(source, await source.ask({ ...request, interventions }));
  return { ids: run.tokens.map(({ id }) => id), answer: run.answer, stop: run.stop,
           promptLength: run.promptLength, texts: run.messages.map(({ text }) => text),
           logprobs: run.tokens.slice(run.promptLength).map(({ logprob }) => logprob) };
}"""


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_a_reply_is_the_labs(live_page, lab, effort) -> None:
    reply = lab.chat(PRODUCT, effort=effort)
    found = live_page.evaluate(ASK, [{"question": PRODUCT, "effort": effort}, []])
    assert found["ids"] == [*reply.prompt_tokens, *reply.ids]
    assert (found["answer"], found["stop"]) == (reply.final, "return")
    np.testing.assert_allclose(found["logprobs"], reply.logprobs, atol=1e-3)


def test_an_intervention_changes_the_reply_as_in_the_lab(live_page, lab) -> None:
    spec = {"kind": "AblateExpert", "layer": 0, "expert": 27}
    reply = lab.chat(PRODUCT, effort="high", interventions=[AblateExpert(layer=0, expert=27)])
    found = live_page.evaluate(ASK, [{"question": PRODUCT, "effort": "high"}, [spec]])
    assert found["ids"][found["promptLength"] :] == list(reply.ids)


def test_a_tool_is_run_and_the_reply_continues(live_page) -> None:
    (example,) = (each for each in GALLERY if each.name == "calculator")
    found = live_page.evaluate(
        """async (name) => {
          const source = newSource();
          const example = source.examples.find((each) => each.name === name);
          const run = await finish(source, await source.ask({ ...example, toolOutputs: {} }));
          return [run.answer, run.messages.map(({ role }) => role)];
        }""",
        example.name,
    )
    assert found[0] == example.answer
    assert "tool" in found[1]


def test_pausing_stepping_and_forking(live_page) -> None:
    """A paused reply continues to the same end; a fork with an edited token differs from there."""
    found = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const whole = await finish(source, await source.ask({ question, effort: "high" }));
          const paused = await source.ask({ question, effort: "high" });
          const abort = new AbortController();
          for await (const token of source.step(paused, { signal: abort.signal })) {
            if (paused.tokens.length === whole.promptLength + 20) abort.abort();
          }
          const atPause = [paused.tokens.length, paused.stop];
          await source.points(paused, "moe.expert_ids", 0); // reads the last token early
          for await (const token of source.step(paused, { count: 5 }));
          const afterFive = paused.tokens.length;
          await finish(source, paused);
          const at = whole.promptLength + 10;
          const edited = await finish(source, await source.fork(whole, at, { text: "9" }));
          const ids = (run) => run.tokens.map(({ id }) => id);
          return { atPause, afterFive, isSame: `${ids(paused)}` === `${ids(whole)}`,
                   start: whole.promptLength,
                   kept: `${ids(edited).slice(0, at)}` === `${ids(whole).slice(0, at)}`,
                   nine: edited.tokens[at].text, differs: `${ids(edited)}` !== `${ids(whole)}`,
                   parent: edited.parent, at };
        }""",
        PRODUCT,
    )
    assert found["atPause"] == [found["start"] + 20, None]
    assert found["afterFive"] == found["start"] + 25
    assert found["isSame"]
    assert found["kept"]
    assert (found["nine"], found["differs"]) == ("9", True)
    assert found["parent"] == {"run": "run-1", "at": found["at"]}


@pytest.mark.parametrize(
    ("name", "layer"),
    [("moe.expert_weights", 2), ("attn.sink_mass", 0), ("resid.post", 3), ("moe.margin", 1)],
)
def test_points_follow_the_interventions_of_each_part(
    live_page, lab, to_array, name, layer
) -> None:
    """Of a fork whose expert was ablated from a position on, as the lab traces it."""
    spec = {"kind": "AblateExpert", "layer": 0, "expert": 27}
    ids, at, shape, data = live_page.evaluate(
        """async ([question, spec, name, layer]) => {
          const source = newSource();
          const whole = await finish(source, await source.ask({ question, effort: "high" }));
          const at = whole.promptLength + 10;
          const change = { interventions: [spec] };
          const fork = await finish(source, await source.fork(whole, at, change));
          const { shape, data } = await source.points(fork, name, layer);
          const ids = fork.tokens.map(({ id }) => id);
          return [ids, at, shape, toText(Float32Array.from(data))];
        }""",
        [PRODUCT, spec, name, layer],
    )
    change = AblateExpert(layer=0, expert=27, positions=range(at - 1, len(ids)))
    trace = lab.trace(ids, [name], interventions=[change])
    expected = trace[name, layer].numpy()
    assert tuple(shape) == expected.shape
    np.testing.assert_allclose(to_array(data, expected.shape), expected, atol=1e-3)


def test_points_can_be_requested_at_any_time(live_page, lab, to_array) -> None:
    """Several at once, while the reply is generated, and of a fork that was never stepped."""
    found = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const run = await source.ask({ question, effort: "high" });
          const layers = [0, 1, 2, 3];
          const readAll = async (run) => {
            const names = ["moe.expert_ids", "attn.sink_mass", "resid.post"];
            const read = (name) => layers.map((layer) => source.points(run, name, layer));
            const ids = run.tokens.map(({ id }) => id);
            const all = await Promise.all(names.flatMap(read));
            const ofLayer = all.filter((_, n) => n % layers.length === 2);
            return { ids, texts: ofLayer.map(({ data }) => toText(Float32Array.from(data))) };
          };
          const early = readAll(run);
          const during = [];
          for await (const token of source.step(run)) {
            const length = run.tokens.length - run.promptLength;
            if ([5, 6, 30].includes(length)) during.push(readAll(run));
            if (length === 31) source.show(run);
          }
          const fork = await source.fork(run, run.promptLength + 7, { text: "12 + 34" });
          return Promise.all([early, ...during, readAll(run), readAll(fork)]);
        }""",
        PRODUCT,
    )
    names = ["moe.expert_ids", "attn.sink_mass", "resid.post"]
    traces = {}
    for each in found:
        ids = each["ids"]
        trace = traces.setdefault(tuple(ids), lab.trace(ids, names, layers=[2]))
        for name, text in zip(names, each["texts"], strict=True):
            expected = trace[name, 2].float().numpy()
            np.testing.assert_allclose(to_array(text, expected.shape), expected, atol=1e-3)
    assert len(found) == 6


def test_some_rows_of_a_point(live_page, lab, to_array) -> None:
    ids, rows, sink = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const run = await finish(source, await source.ask({ question, effort: "low" }));
          const range = { from: 40, to: 44 };
          const { shape, data } = await source.points(run, "attn.pattern", 1, range);
          const sink = await source.points(run, "attn.sink", 1, range);
          return [run.tokens.map(({ id }) => id), [shape, toText(data)], sink.shape];
        }""",
        PRODUCT,
    )
    (shape, text), expected = rows, lab.trace(ids, ["attn.pattern"])["attn.pattern", 1]
    found = to_array(text, tuple(shape))
    np.testing.assert_allclose(found, expected[40:44, :, : shape[-1]].numpy(), atol=1e-5)
    assert found.sum(-1).max() <= 1
    assert sink == [lab.config.num_attention_heads]


def test_three_efforts_side_by_side(live_page) -> None:
    """Runs that are stepped at the same time take turns, and give the same tokens as alone."""
    found = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const efforts = ["low", "medium", "high"];
          const order = [];
          source.on("tokens", ({ request }) => order.push(request.effort));
          const ids = (run) => `${run.tokens.map(({ id }) => id)}`;
          const ask = (effort) => source.ask({ question, effort });
          const together = await Promise.all(efforts.map(async (effort) => {
            return ids(await finish(source, await ask(effort)));
          }));
          const turns = order.filter((effort, n) => n > 0 && effort !== order[n - 1]).length;
          const alone = [];
          for (const effort of efforts) alone.push(ids(await finish(source, await ask(effort))));
          return { together, alone, turns };
        }""",
        PRODUCT,
    )
    assert found["together"] == found["alone"]
    assert len(set(found["alone"])) == 3
    assert found["turns"] >= 3


def test_a_prompt_that_was_read_before_is_not_read_again(live_page) -> None:
    """With the same interventions only. The reply and what is recorded stay the same."""
    read, start, same = live_page.evaluate(
        """async ([question, spec]) => {
          const source = newSource();
          const first = await finish(source, await source.ask({ question, effort: "high" }));
          const again = await source.ask({ question, effort: "high" });
          const other = await source.ask({ question, effort: "low" });
          const changed = await source.ask({ question, effort: "high", interventions: [spec] });
          const read = [again, other, changed].map(({ cache }) => cache.length);
          const numbers = async (run) => {
            const { data } = await source.points(run, "attn.sink_mass", 1);
            const { data: later } = await source.points(run, "resid.post", 1);
            const tokens = run.tokens.map(({ id, logprob }) => [id, logprob]);
            return [...tokens, ...data, ...later].join();
          };
          await finish(source, again);
          const same = (await numbers(first)) === (await numbers(again));
          return [read, first.promptLength, same];
        }""",
        [PRODUCT, {"kind": "AblateExpert", "layer": 0, "expert": 27}],
    )
    assert read[0] == start - 1
    assert 10 < read[1] < start - 1
    assert read[2] == 0
    assert same


def test_what_is_wrong_is_refused_before_anything_runs(live_page) -> None:
    found = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const sentence = async (call) => {
            try {
              await call();
            } catch (error) {
              return error instanceof modules["errors.js"].LabError ? error.message : `${error}`;
            }
          };
          const ask = (more) => sentence(() => source.ask({ question, effort: "low", ...more }));
          const wrong = [{ kind: "AblateExpert", layer: 9, expert: 0 }];
          const run = await source.ask({ question, effort: "low" });
          const at = run.promptLength;
          const first = source.step(run);
          await first.next();
          const refused = [
            await ask({ interventions: wrong }),
            await ask({ sampling: { temperature: -1 } }),
            await ask({ question: "  " }),
            await ask({ effort: "extreme" }),
            await ask({ maxTokens: 0 }),
            await ask({ sampling: { temperature: null } }),
            await ask({ question: "a b ".repeat(25000) }),
            await sentence(() => source.fork(run, at, { interventions: wrong })),
            await sentence(() => source.fork(run, at, { ids: [99999] })),
            await sentence(() => source.fork(run, at - 1, { text: "a" })),
            await sentence(() => source.step(run).next()),
            await sentence(() => source.answerCalls(run, ["1"])),
            await sentence(() => source.points(run, "no.such", 0)),
          ];
          source.close();
          for await (const token of first);
          return { refused, runs: source.runs.length, stop: run.stop, isStepping: run.isStepping };
        }""",
        PRODUCT,
    )
    parts = [
        "AblateExpert: layer 9 is out of range; this model has layers 0 to 3",
        "temperature is -1; it must be 0 or more",
        "there is no question",
        "effort is 'extreme'",
        "maxTokens is 0; it must be an integer, 1 or more",
        "temperature is null",
        "tokens; the context is 8192; ask a shorter question",
        "layer 9 is out of range",
        "99999 is not the id of a token that can be written",
        "is not in the reply; choose one from",
        "run-1 is already being generated; pause it first",
        "run-1 is being generated",
        "unknown point no.such",
    ]
    for sentence, part in zip(found["refused"], parts, strict=True):
        assert part in (sentence or "")
    assert (found["runs"], found["stop"], found["isStepping"]) == (1, None, False)


def test_a_break_at_the_last_token_ends_the_run(live_page) -> None:
    found = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const run = await source.ask({ question, effort: "low" });
          for await (const { text } of source.step(run)) if (text === "<|return|>") break;
          const length = run.tokens.length;
          for await (const token of source.step(run));
          const copy = await source.fork(run, length);
          return [run.stop, run.tokens.length - length, copy.stop];
        }""",
        PRODUCT,
    )
    assert found == ["return", 0, "return"]


def test_an_edit_inside_a_character(live_page, lab) -> None:
    """The fork keeps the first bytes of a character and writes other text after them."""
    ids, texts, codes, at = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          const run = await finish(source, await source.ask({ question, effort: "low" }));
          const { promptLength: start, tokens } = run;
          const content = tokens.findIndex(({ part }, n) => n >= start && part === "content");
          const edited = await source.fork(run, content, { text: "日" });
          const fork = await finish(source, await source.fork(edited, content + 1, { text: "7" }));
          const codes = fork.diagnostics.map(({ code, token }) => [code, token]);
          const { tokens: all } = fork;
          return [all.map(({ id }) => id), all.map(({ text }) => text), codes, content];
        }""",
        PRODUCT,
    )
    assert texts[at : at + 2] == ["\\xe6", "7"]
    tree = Tree(lab, lab.chat(PRODUCT, effort="low"))
    node = tree.branch(tree.root, at=at, write=ids[at : at + 2])
    assert node.ids == tuple(ids)
    diagnostics = tree.reply(node).diagnostics
    start = len(tree.reply(node).prompt_tokens)
    assert codes == [[each.kind, start + each.position] for each in diagnostics]
    assert codes


def test_the_end_of_the_context_is_an_end_that_views_hear_of(live_page) -> None:
    """The last token is not followed by another one, and the listeners see why."""
    found = live_page.evaluate(
        """async (question) => {
          const source = newSource();
          source.config.rope_scaling_factor = 0.5; // a context of 128 tokens
          const stops = [];
          source.on("tokens", ({ stop }) => stops.push(stop));
          const run = await finish(source, await source.ask({ question, effort: "high" }));
          return [run.tokens.length, run.stop, stops.at(-1), run.tokens.at(-1).message];
        }""",
        PRODUCT,
    )
    assert found[:3] == [129, "length", "length"]
    assert found[3] >= 0


def test_without_a_temperature_the_likeliest_token_is_taken(live_page) -> None:
    same = live_page.evaluate(
        """async (question) => {
          const ids = [];
          for (const sampling of [{ temperature: 0 }, {}, { topK: 5, seed: 3 }]) {
            const source = newSource();
            const asked = await source.ask({ question, effort: "high", sampling });
            const run = await finish(source, asked);
            ids.push(run.tokens.map(({ id }) => id).join());
          }
          return new Set(ids).size;
        }""",
        "What is 4821 * 739?",
    )
    assert same == 1


def test_a_block_needs_no_run(live_page) -> None:
    place = {"layer": 1, "expert": 2, "matrix": "down", "row": 3, "block": 0}
    count = live_page.evaluate(
        "async (place) => (await newSource().analyze(null, 'block', place)).values.length", place
    )
    assert count == 32
