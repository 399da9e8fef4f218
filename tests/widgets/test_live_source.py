"""nano in the page as a source of views, compared with Python."""

import numpy as np
import pytest

from oss_lab import AblateExpert
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
