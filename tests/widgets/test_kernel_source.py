"""`js/source/kernel.js` in a page, with a Python source at its other end instead of a kernel.

Messages travel as they do through anywidget: JSON, and buffers that begin at any byte.
"""

import base64
import json
import queue
import statistics
import threading
import time
from typing import Any

import numpy as np
import pytest
from oss_widgets import Chat, Experts, Tokens
from oss_widgets.join import join_modules, read_modules, read_styles
from oss_widgets.sources.worker import Worker

from oss_lab import AblateExpert

QUESTION = "What is 347 * 62?"
PATIENCE = 60  # seconds for an answer on a slow machine

# In the page: a model as anywidget gives it. `python` is a function of the test.
MODEL = """
(names) => {
  window.makeModel = (name) => {
    const calls = {};
    const state = JSON.parse(JSON.stringify(names[name]));
    const model = {
      get: (trait) => state[trait],
      set: (trait, value) => (state[trait] = value),
      save_changes: () => python(name, "selection", state.selection),
      send: (content) => python(name, "send", content),
      on: (event, call) => (calls[event] ??= new Set()).add(call),
      off: (event, call) => calls[event]?.delete(call),
      deliver: (content, texts) => {
        const buffers = texts.map((text) => {
          const bytes = Uint8Array.from(` ${atob(text)}`, (letter) => letter.charCodeAt(0));
          return new DataView(bytes.buffer, 1); // at an odd byte
        });
        for (const call of [...(calls["msg:custom"] ?? [])]) call(content, buffers);
      },
      change: (trait, value) => {
        state[trait] = value;
        for (const call of [...(calls[`change:${trait}`] ?? [])]) call();
      },
    };
    return (window.models[name] = model);
  };
  window.models = {};
  window.newSource = (name, options) =>
    new modules["source/kernel.js"].KernelSource(makeModel(name), options);
  window.finish = async (source, run) => {
    for await (const _ of source.step(run));
    return run;
  };
}
"""


class Connection:
    """Carries messages between the page and views in Python.

    `is_silent` drops what the page sends, like a kernel that is gone.
    """

    def __init__(self, page: Any, views: dict[str, Any]) -> None:
        self.page, self.views, self.is_silent = page, views, False
        self.waiting: queue.SimpleQueue[tuple[str, Any, list[bytes]]] = queue.SimpleQueue()
        for name, view in views.items():
            view.send = lambda content, buffers, name=name: self.waiting.put(
                (name, content, buffers)
            )
        page.expose_function("python", self.hear)
        state = {
            name: {"view": view.view, "stored": view.stored, "selection": view.selection}
            for name, view in views.items()
        }
        page.evaluate(MODEL, state)

    def hear(self, name: str, kind: str, content: Any) -> None:
        if self.is_silent:
            return
        view = self.views[name]
        if kind == "send":
            view._handle_custom_msg(content, [])
        else:
            view.set_state({kind: content})

    def run(self, script: str, argument: Any = None) -> Any:
        """The result of an async function in the page, while messages are carried."""
        self.page.evaluate(
            """([script, argument]) => {
              window.outcome = null;
              const call = eval(script);
              call(argument).then(
                (value) => (window.outcome = { value }),
                (error) => (window.outcome = { error: `${error.name}: ${error.message}` }));
            }""",
            [script, argument],
        )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.carry()
            if outcome := self.page.evaluate("window.outcome"):
                assert "error" not in outcome, outcome["error"]
                return outcome["value"]
        raise AssertionError("the page did not finish")

    def carry(self) -> None:
        """Deliver what Python has sent."""
        try:
            messages = [self.waiting.get(timeout=0.02)]
        except queue.Empty:
            messages = []
        while not self.waiting.empty():
            messages.append(self.waiting.get())
        packed = [
            [name, json.dumps(content), [base64.b64encode(each).decode() for each in buffers]]
            for name, content, buffers in messages
        ]
        self.page.evaluate(
            """(messages) => messages.forEach(([name, text, buffers]) =>
              models[name]?.deliver(JSON.parse(text), buffers))""",
            packed,
        )


@pytest.fixture(scope="module")
def connection(open_script, lab):
    chat = Chat(lab)
    page = open_script(join_modules(read_modules()))
    page.evaluate(
        """(styles) => {
          const style = document.createElement("style");
          style.textContent = styles;
          document.head.append(style);
          document.body.innerHTML = '<main id="view"></main>';
          const bytes = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
          window.toText = (array) =>
            btoa(Array.from(bytes(array), (byte) => String.fromCharCode(byte)).join(""));
        }""",
        read_styles(),
    )
    return Connection(page, {"chat": chat, "experts": Experts(chat)})


def test_a_reply_streams_and_is_the_labs(connection, lab):
    reply = lab.chat(QUESTION, effort="medium")
    found = connection.run(
        """async (question) => {
          const source = newSource("chat");
          const isAlive = await source.connect();
          const run = await source.ask({ question, effort: "medium" });
          const heard = [];
          source.on("tokens", (run) => heard.push(run.tokens.length));
          const written = [];
          for await (const token of source.step(run)) written.push(token.id);
          return { isAlive, written, heard, ids: run.tokens.map(({ id }) => id), stop: run.stop,
                   answer: run.answer, promptLength: run.promptLength, name: source.name,
                   can: [...source.can], channel: run.tokens.at(-2).channel,
                   logprobs: run.tokens.slice(run.promptLength).map(({ logprob }) => logprob) };
        }""",
        QUESTION,
    )
    assert found["isAlive"]
    assert found["ids"] == [*reply.prompt_tokens, *reply.ids]
    assert found["written"] == list(reply.ids)
    assert (found["answer"], found["stop"]) == (reply.final, "return")
    np.testing.assert_allclose(found["logprobs"], reply.logprobs, atol=1e-4)
    assert len(set(found["heard"])) > 3  # it did not come in one piece
    assert found["channel"] == "final"
    assert {"ask", "fork", "points", "knockOut", "flipBit"} <= set(found["can"])


def test_pausing_forking_and_points_follow_the_interventions(connection, lab, to_array):
    found = connection.run(
        """async (question) => {
          const source = newSource("chat");
          await source.connect();
          const whole = await finish(source, await source.ask({ question, effort: "high" }));
          const paused = await source.ask({ question, effort: "high" });
          const abort = new AbortController();
          for await (const token of source.step(paused, { signal: abort.signal })) {
            if (paused.tokens.length > paused.promptLength + 5) abort.abort();
          }
          const atPause = paused.stop;
          const left = paused.tokens.length < whole.tokens.length;
          for await (const token of source.step(paused, { count: 3 }));
          const afterThree = paused.tokens.length;
          await finish(source, paused);
          const at = whole.promptLength + 10;
          const change = { interventions: [{ kind: "AblateExpert", layer: 0, expert: 27 }] };
          const fork = await finish(source, await source.fork(whole, at, change));
          const edited = await source.fork(whole, at, { text: "9" });
          const { shape, data } = await source.points(fork, "moe.expert_weights", 2);
          const part = await source.points(fork, "attn.pattern", 1, { from: 70, to: 72 });
          const ids = (run) => run.tokens.map(({ id }) => id);
          return { atPause, left, isSame: `${ids(paused)}` === `${ids(whole)}`, ids: ids(fork), at,
                   shape, weights: toText(data), partShape: part.shape, part: toText(part.data),
                   nine: edited.tokens[at].text, length: edited.tokens.length,
                   parent: [edited.parent.run === whole.id, edited.parent.at],
                   python: await source.toPython(fork), seconds: await source.estimate(edited) };
        }""",
        QUESTION,
    )
    assert found["atPause"] is None
    assert found["left"]
    assert found["isSame"]
    assert (found["nine"], found["length"]) == ("9", found["at"] + 1)
    assert found["parent"] == [True, found["at"]]
    ids, at = found["ids"], found["at"]
    change = AblateExpert(layer=0, expert=27, positions=range(at - 1, len(ids)))
    trace = lab.trace(ids, ["moe.expert_weights", "attn.pattern"], interventions=[change])
    expected = trace["moe.expert_weights", 2].numpy()
    weights = to_array(found["weights"], tuple(found["shape"]))
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    pattern = to_array(found["part"], tuple(found["partShape"]))
    expected = trace["attn.pattern", 1][70:72, :, :72].numpy()
    np.testing.assert_allclose(pattern, expected, atol=1e-4)
    assert "AblateExpert(layer=0, expert=27)" in found["python"]
    assert 0 < found["seconds"] < 600


def test_analyses_arrive_with_their_arrays(connection, lab, to_array):
    found = connection.run(
        """async (question) => {
          const source = newSource("chat");
          await source.connect();
          const run = await finish(source, await source.ask({ question, effort: "low" }));
          const at = run.promptLength + 4;
          const map = await source.analyze(run, "knockOut", { at });
          const { largest } = await source.analyze(run, "knockOutMarks", {});
          const place = { layer: 1, expert: 3, matrix: "down", row: 0, block: 0 };
          const block = await source.analyze(run, "block", place);
          const flip = await source.analyze(run, "flipBit", { place, bit: 3, at });
          const again = await source.analyze(run, "block", place);
          return { map: toText(map.logprobChanges), largest: Array.from(largest), at,
            unknown: largest.filter(Number.isNaN).length, promptLength: run.promptLength,
                   kinds: [block.packed, block.values].map((each) => each.constructor.name),
                   block: [...block.packed], again: [...again.packed], flip: [...flip.block.packed],
                   top: flip.before[0].text, next: run.tokens[at].text };
        }""",
        QUESTION,
    )
    changes = to_array(found["map"], (4, 4))
    assert found["unknown"] == found["promptLength"]
    assert found["largest"][found["at"]] == pytest.approx(float(np.abs(changes).max()), rel=1e-5)
    assert found["kinds"] == ["Uint8Array", "Float32Array"]
    assert found["block"] == found["again"]
    assert found["flip"][0] == found["block"][0] ^ 8
    assert found["flip"][1:] == found["block"][1:]
    assert found["top"] == found["next"]


def test_a_mistake_and_a_bug_are_one_sentence_each(connection, capsys, monkeypatch):
    ask = """async (parts) => {
      const source = newSource("chat");
      await source.connect();
      try {
        await (parts.method ? source.request(parts.method, {}) : source.ask(parts));
      } catch (error) {
        return [error instanceof modules["errors.js"].LabError, error.message];
      }
    }"""
    assert connection.run(ask, {"question": " "}) == [
        True, "there is no question; write one and press Enter"
    ]  # fmt: skip
    spec = {"kind": "AblateHead", "layer": 0, "heads": 1}
    found = connection.run(ask, {"question": "a", "interventions": [spec]})
    assert "AblateHead: there is no argument 'heads'; did you mean 'head'?" in found[1]
    assert "there is no request 'reboot'" in connection.run(ask, {"method": "reboot"})[1]
    source = connection.views["chat"].source

    def fail(_: Any) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.setattr(source, "ask", fail)
    found = connection.run(ask, {"question": "a"})
    assert found[1].startswith("a bug stopped this (ZeroDivisionError: here)")
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.undo()
    assert connection.run(ask, {"question": " "})[0]  # it still answers


def test_views_of_one_source_see_the_same_runs(connection):
    found = connection.run(
        """async (question) => {
          const [chat, experts] = [newSource("chat"), newSource("experts")];
          await Promise.all([chat.connect(), experts.connect()]);
          const seen = [];
          for (const change of ["runs", "shown"]) experts.on(change, () => seen.push(change));
          const run = await chat.ask({ question, effort: "low" });
          chat.show(run);
          await finish(chat, run);
          await chat.estimate(run);
          const other = experts.shown;
          const routed = await experts.points(other, "moe.expert_ids", 0);
          return [seen, other.answer === run.answer, routed.shape, other.tokens.length,
                  routed.data.constructor.name];
        }""",
        QUESTION,
    )
    seen, is_same, shape, length, kind = found
    assert seen == ["runs", "shown"]
    assert is_same
    assert (shape, kind) == ([length, 4], "Uint8Array")


def test_a_silent_connection_is_reported_and_the_stored_state_stays(connection):
    chat = connection.views["chat"]
    chat.question = "What is 2 * 3?"
    chat.wait()
    chat.refresh()
    connection.page.evaluate("(stored) => (window.stored = stored)", chat.stored)
    connection.is_silent = True
    try:
        found = connection.run(
            """async () => {
              const model = makeModel("chat");
              model.set("stored", stored);
              const source = new modules["source/kernel.js"].KernelSource(model, { patience: 50 });
              const isAlive = await source.connect();
              let sentence = "";
              await source.ask({ question: "a" }).catch((error) => (sentence = error.message));
              const thrower = { ...model, send: () => { throw new Error("closed"); } };
              const closed = new modules["source/kernel.js"].KernelSource(thrower);
              return [isAlive, sentence, source.problem, source.shown.answer, [...source.can],
                      source.hasPoint("moe.expert_ids", 0), await closed.connect()];
            }"""
        )
    finally:
        connection.is_silent = False
    is_alive, sentence, problem, answer, can, has_point, is_open = found
    assert not is_alive
    assert sentence.startswith("Python does not answer: ")
    assert problem == sentence
    assert answer == chat.reply.final
    assert (can, has_point, is_open) == ([], False, False)


def test_a_view_follows_the_selection_both_ways_and_closes(connection):
    views = connection.views
    views["experts"].selection = {"layer": 3}
    found = connection.run(
        """async () => {
          const model = makeModel("experts");
          const seen = [];
          const tiny = (element, source, selection) => {
            element.textContent = `layer ${selection.layer}`;
            const stop = selection.on(() => (element.textContent = `layer ${selection.layer}`));
            window.chosen = selection;
            return { close: () => (stop(), element.replaceChildren(), seen.push("closed")) };
          };
          model.set("selection", { layer: 3, pinned: [] });
          const el = document.createElement("div");
          const close = modules["widget.js"].render({ model, el }, { experts: tiny });
          const first = el.textContent;
          chosen.set({ expert: 5 });
          model.change("selection", { token: null, layer: 1, head: null, expert: 5, pinned: [] });
          const second = el.textContent;
          await new Promise((resolve) => setTimeout(resolve, 50));
          close();
          return [first, second, el.textContent, seen];
        }"""
    )
    assert found == ["layer 3", "layer 1", "", ["closed"]]
    assert views["chat"].selection["expert"] == 5


def test_every_view_opens_on_a_kernel_without_an_error_and_closes(connection):
    connection.views["chat"].question = QUESTION
    connection.views["chat"].wait()
    drawn = connection.run(
        """async () => {
          const drawn = {};
          for (const name of Object.keys(modules["views/registry.js"].VIEWS)) {
            const model = makeModel("chat");
            model.set("view", name);
            const el = document.querySelector("#view");
            const close = modules["widget.js"].render({ model, el });
            await new Promise((resolve) => setTimeout(resolve, 500)); // some data arrives
            const [connection, error] = ["connection", "error:not(.oss-connection)"];
            const read = (part) => el.querySelector(`.oss-${part}`).textContent;
            drawn[name] = [read(error), read(connection), read("title") !== ""];
            close();
            drawn[name].push(el.querySelector(".oss-title") === null);
            el.replaceChildren();
          }
          return drawn;
        }"""
    )
    assert set(drawn) == {"chat", "tokens", "experts", "attention", "lens", "attribution",
                          "branches", "commitment", "effort_lens", "microscope"}  # fmt: skip
    assert drawn == {name: ["", "", True, True] for name in drawn}


def test_an_array_of_the_caller_reaches_its_view(connection):
    view = Tokens(np.array([0.25, 4.0]), tokens=["left", "<b>right"], name="surprise", unit="nats")
    array = view.options["array"]
    text = connection.run(
        """async ([stored, array, values]) => {
          const bytes = Uint8Array.from(` ${atob(values)}`, (letter) => letter.charCodeAt(0));
          const model = makeModel("chat");
          model.set("view", "tokens");
          model.set("stored", stored);
          model.set("options", { array: { ...array, values: new DataView(bytes.buffer, 1) } });
          model.send = () => { throw new Error("closed"); };
          const el = document.querySelector("#view");
          const close = modules["widget.js"].render({ model, el });
          await new Promise((resolve) => setTimeout(resolve, 200));
          el.querySelectorAll("details").forEach((each) => (each.open = true));
          await new Promise((resolve) => setTimeout(resolve, 100));
          const text = el.textContent;
          close();
          el.replaceChildren();
          return text;
        }""",
        [view.stored, {**array, "values": None}, base64.b64encode(array["values"]).decode()],
    )
    for part in ("surprise", "nats", "left", "<b>right", "0.25"):
        assert part in text


def test_a_canceled_job_that_waits_never_begins():
    worker, order, hold = Worker(), [], threading.Event()

    def work(name: str, slices: int):
        for _ in range(slices):
            order.append(name)
            hold.wait(5)
            yield
        return name

    first = worker.submit(work("first", 3), threading.Event())
    canceled = threading.Event()
    second = worker.submit(work("second", 1), canceled)
    canceled.set()
    hold.set()
    assert first.done.result(5) == "first"
    assert second.done.cancelled()
    assert order == ["first"] * 3
    worker.close()


def test_an_interrupt_leaves_the_chat_usable(lab, monkeypatch):
    """Case B17: no request stays open, and the stored output is that of the last reply."""
    chat = Chat(lab, QUESTION, effort="low")
    answer = chat.reply.final
    chat.effort = "high"
    assert chat._job is not None
    monkeypatch.setattr(chat._job.done, "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chat.wait()
    monkeypatch.undo()
    chat.wait()
    still = chat._repr_mimebundle_()["text/plain"]
    run = chat.run
    assert len(run.ids) > run.prompt_length  # else the reply before it is shown again
    if run.stop is not None:
        assert "This reply is not finished." not in still
    else:
        assert still.endswith("This reply is not finished.")
    chat.effort = "low"
    assert chat.reply.final == answer
    assert "not finished" not in chat._repr_mimebundle_()["text/plain"]


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_latency_through_python(connection, capsys):
    """Toggle to first new token, and a click on an expert to its numbers; medians of 20."""
    first, detail = connection.run(
        """async (question) => {
          const source = newSource("chat");
          await source.connect();
          const first = [];
          const detail = [];
          for (let n = 0; n < 20; n++) {
            const effort = ["low", "high"][n % 2];
            const began = performance.now();
            const run = await source.ask({ question, effort });
            for await (const token of source.step(run, { count: 1 })) {
              first.push(performance.now() - began);
            }
            for await (const token of source.step(run, { count: 8 }));
            const clicked = performance.now();
            await source.points(run, "moe.expert_weights", n % 4);
            detail.push(performance.now() - clicked);
          }
          return [first, detail];
        }""",
        QUESTION,
    )
    with capsys.disabled():
        print(
            f"\ntoggle to first token: {statistics.median(first):.0f} ms;"
            f" expert to detail: {statistics.median(detail):.0f} ms (medians of {len(first)})"
        )
    assert statistics.median(first) < 2500
    assert statistics.median(detail) < 1500
