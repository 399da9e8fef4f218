"""The views: what each shows, as plain data and as a still. The drawing is in `js/views`."""

import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import torch

from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.arguments import check_value, describe, read_annotation
from oss_lab.lab import Lab
from oss_lab.plots import Passage
from oss_lab.record.reply import Reply
from oss_lab.record.trace import Trace
from oss_widgets.lab_source import LabSource
from oss_widgets.messages import describe_state, to_plain
from oss_widgets.run import Run
from oss_widgets.still import (
    describe_request,
    join,
    join_replies,
    show_sentence,
    show_table,
)
from oss_widgets.stored_source import TextSource
from oss_widgets.view import View

Work = Generator[None, None, Any]
Of = Lab | Reply | Trace | View


class Chat(View):
    """Ask a question, change the effort, read the reply by channel.

        chat = Chat(lab, "What is 347 * 62?", effort="high")
        chat.reply.final
        chat.effort = "low"                   # asks again

    Args:
        of: a Lab; or a Reply, a Trace or a view, as in `View`.
        question: asked at once, unless `ask` is false.
        effort: by default the lab's.
        settings: `instructions`, `tools`, `history`, `toolOutputs`, `sampling`, `maxTokens` and
            `interventions`, as a Request of `js/source/source.js`.
    """

    NAME, TITLE = "chat", "Chat"

    def __init__(
        self,
        of: Of,
        question: str | None = None,
        effort: Effort | None = None,
        ask: bool = True,
        *,
        lab: Lab | None = None,
        **settings: Any,
    ) -> None:
        for name, value, kind in (
            ("question", question, str | None),
            ("effort", effort, Effort | None),
            ("ask", ask, bool),
        ):
            if (expected := read_annotation(kind)) is not None:
                check_value(name, expected, value)
        if question is not None and not isinstance(of, Lab | View):
            raise LabError(f"a question needs a Lab, got {describe(of)}")
        if unknown := settings.keys() - SETTINGS:
            raise LabError(f"Chat has no {min(unknown)!r}; it has {', '.join(sorted(SETTINGS))}")
        super().__init__(of, lab=lab)
        usual = self.source.lab.effort if isinstance(self.source, LabSource) else "medium"
        self._request = {**settings, "question": question or "", "effort": effort or usual}
        self.options = {name: self._request[name] for name in ("question", "effort")}
        if question is not None and ask:
            self._ask()

    @property
    def question(self) -> str:
        """The question of the shown run; set it to ask another one."""
        return self._current["question"]

    @question.setter
    def question(self, question: str) -> None:
        self._ask(question=question)

    @property
    def effort(self) -> str:
        """The effort of the shown run; set it to ask again."""
        return self._current["effort"]

    @effort.setter
    def effort(self, effort: str) -> None:
        self._ask(effort=effort)

    @property
    def _current(self) -> Mapping[str, Any]:
        """The request of the shown run; before there is one, that of this view."""
        shown = self.source.shown
        return (None if shown is None else shown.request) or self._request

    def _ask(self, **changes: str) -> None:
        """Ask the current question with these changes; the worker generates the reply.

        Raises:
            LabError: the question or the effort cannot be used, or the view has no model.
        """
        source = self.source
        if not isinstance(source, LabSource):
            raise LabError("this view has no model to ask: make it from a Lab")
        if active := source.lab.interventions:
            raise LabError(f"{active[0]} is active, but a view ignores `with` blocks: end it first")
        if self._job is not None:
            self._job.canceled.set()
        request = {**self._current, **changes}

        def ask() -> Work:
            yield
            before, run = source.shown, source.ask(request)
            source.show(run)
            return before, run

        before, run = source.call(ask())
        canceled = threading.Event()
        self._job = source.worker.submit(source.finish(run, canceled), canceled)

        def settle(_: Future[Any]) -> None:
            if len(run.ids) == run.prompt_length and before is not None and source.shown is run:
                source.show(before)  # it was canceled before its first token

        self._job.done.add_done_callback(settle)

    def _compute(self, run: Any) -> Work:
        yield
        state = describe_state(run)
        asked = {name: (run.request or {}).get(name) for name in ("question", "effort")}
        kept = ("messages", "answer", "stop", "diagnostics", "openCalls", "seconds")
        return {**asked, **{name: state[name] for name in kept}}

    def _still(self) -> Passage:
        run = self.source.shown
        if not isinstance(run, Run):
            rows = [[each["channel"], each["text"]] for each in run.list_messages()]
            return show_table(f"{len(rows)} messages", ["channel", "text"], rows)
        parts = [] if run.request is None else [describe_request(run.request)]
        if len(run.ids) > run.prompt_length:
            parts.append(join_replies(run.replies, run.lab.tokenizer))
        if run.stop is None:
            parts.append(show_sentence("This reply is not finished."))
        return join(parts)


SETTINGS = {
    "instructions",
    "tools",
    "history",
    "toolOutputs",
    "sampling",
    "maxTokens",
    "interventions",
}


ARRAY_SIZES = {
    "layer": "num_hidden_layers",
    "slot": "experts_per_token",
    "head": "num_attention_heads",
}
"""The fields of config.json that the axes of an array show."""


class ArrayView(View):
    """A view of runs, or of the caller's own array with one number or row per token.

    Args:
        of: as in `View`, or an array; its shape is in AXES.
        tokens: with an array: the text of each token.
        name, unit: with an array: what the numbers are.
    """

    AXES: tuple[str, ...] = ()

    def __init__(
        self,
        of: Any,
        *,
        lab: Lab | None = None,
        tokens: Sequence[str] | None = None,
        name: str | None = None,
        unit: str | None = None,
    ) -> None:
        given = (tokens, name, unit)
        if isinstance(of, View | Lab | Reply | Trace):
            if any(each is not None for each in given):
                raise LabError("tokens, name and unit belong to an array; leave them out")
            self.array: np.ndarray | None = None
            super().__init__(of, lab=lab)
            return
        if lab is not None:
            raise LabError("lab has an effect only with a Reply; leave it out")
        self.array = values = self._read_array(of)
        count = values.shape[self.AXES.index("seq")]
        texts = [str(n) for n in range(count)] if tokens is None else list(tokens)
        if len(texts) != count or not all(isinstance(each, str) for each in texts):
            raise LabError(f"tokens must be {count} texts, one per token, got {describe(tokens)}")
        self.array_name, self.unit = name or "value", unit or ""
        sizes = dict(zip(self.AXES, values.shape, strict=True))
        config = {ARRAY_SIZES[axis]: n for axis, n in sizes.items() if axis in ARRAY_SIZES}
        self._connect(TextSource(texts, config))
        self.options = {
            "array": {
                "values": values.tobytes(),
                "shape": list(values.shape),
                "name": self.array_name,
                "unit": self.unit,
                "axes": " ".join(self.AXES),
            }
        }

    @classmethod
    def _read_array(cls, of: Any) -> np.ndarray:
        """The caller's numbers as float32.

        Raises:
            LabError: they are not an array of this shape.
        """
        plain = of.detach().cpu().float().numpy() if isinstance(of, torch.Tensor) else of
        shape = f"[{' '.join(cls.AXES)}]"
        try:
            values = np.ascontiguousarray(plain, np.float32)
        except (TypeError, ValueError):
            raise LabError(
                f"expected a Lab, a Reply with its lab, a Trace, another view or an array {shape},"
                f" got {describe(of)}"
            ) from None
        lengths = {n for axis, n in zip(cls.AXES, values.shape, strict=False) if axis == "seq"}
        if values.ndim != len(cls.AXES) or not values.size or len(lengths) > 1:
            raise LabError(f"{cls.__name__} shows an array {shape}, got {describe(of)}")
        return values

    def _compute(self, run: Any) -> Work:
        if self.array is None:
            return (yield from self._compute_run(run))
        yield
        texts = [label.text for label in run.labels]
        return {
            "tokens": texts,
            "name": self.array_name,
            "unit": self.unit,
            "values": self.array.tolist(),
        }

    def _compute_run(self, run: Any) -> Work:
        raise NotImplementedError

    def _still(self) -> Passage:
        run = self.source.shown
        if self.array is None:
            return self._still_of(run)
        shape = " x ".join(map(str, self.array.shape))
        unit = f" in {self.unit}" if self.unit else ""
        axis = self.AXES.index("seq")
        means = np.moveaxis(self.array, axis, 0).reshape(len(run.labels), -1).mean(1)
        rows = [[label.text, float(mean)] for label, mean in zip(run.labels, means, strict=True)]
        what = "value" if self.array.ndim == 1 else "mean"
        caption = f"{self.array_name}{unit}, {shape}."
        return show_table(caption, ["token", what], rows)

    def _still_of(self, run: Any) -> Passage:
        raise NotImplementedError

    def _read_layers(self, run: Any, name: str) -> list[Any]:
        """A point of every layer, over all tokens, as lists."""
        layers = self.source.points.get(name) or []
        if not layers:
            raise LabError(f"{name} is not known for these tokens")
        end = len(run.ids)
        return [self.source.read_point(run, name, n, 0, end).tolist() for n in layers]


class Tokens(ArrayView):
    """Every token with its id, channel, probability and alternatives; or an array [seq]."""

    NAME, TITLE, AXES = "tokens", "Tokens", ("seq",)

    def _compute_run(self, run: Any) -> Work:
        yield
        logprobs = [None if token is None else token.logprob for token in run.generated]
        return {
            "ids": list(run.ids),
            "tokens": [label.text for label in run.labels],
            "channels": [label.channel for label in run.labels],
            "logprobs": logprobs,
            "promptLength": run.prompt_length,
        }

    def _still_of(self, run: Any) -> Passage:
        rows = []
        for n, (label, token) in enumerate(zip(run.labels, run.generated, strict=True)):
            probability = None if token is None else float(np.exp(token.logprob))
            rows.append([n, label.text, label.section, probability])
        caption = f"{len(rows)} tokens, of which {run.prompt_length} are the prompt."
        return show_table(caption, ["position", "token", "message", "probability"], rows)


class Experts(ArrayView):
    """Which experts each token chose, layer by layer; or an array [layer, seq, slot]."""

    NAME, TITLE, AXES = "experts", "Experts", ("layer", "seq", "slot")

    def _compute_run(self, run: Any) -> Work:
        yield
        names = {"moe.expert_ids": "expertIds", "moe.expert_weights": "weights"}
        names |= {"moe.margin": "margin", "moe.entropy": "entropy"}
        return {
            "tokens": [label.text for label in run.labels],
            **{
                key: self._read_layers(run, name)
                for name, key in names.items()
                if self.source.points.get(name)
            },
        }

    def _still_of(self, run: Any) -> Passage:
        chosen = self._read_layers(run, "moe.expert_ids")
        rows = [
            [n, label.text, *(str(layer[n][0]) for layer in chosen)]
            for n, label in enumerate(run.labels)
        ]
        layers = self.source.points["moe.expert_ids"] or []
        caption = f"The first expert of {len(rows)} tokens in {len(chosen)} layers."
        return show_table(caption, ["position", "token", *(f"layer {n}" for n in layers)], rows)


class Attention(ArrayView):
    """Where each head looks, and its share on the sink; or an array [head, seq, seq]."""

    NAME, TITLE, AXES = "attention", "Attention", ("head", "seq", "seq")

    def _compute_run(self, run: Any) -> Work:
        yield
        found: dict[str, Any] = {"tokens": [label.text for label in run.labels]}
        if self.source.points.get("attn.sink_mass"):
            found["sinkMass"] = self._read_layers(run, "attn.sink_mass")
        token, layer = self.selection["token"], self.selection["layer"]
        layers = self.source.points.get("attn.pattern") or []
        if token is not None and layer in layers and token < len(run.ids):
            row = self.source.read_point(run, "attn.pattern", layer, token, token + 1)
            found |= {"token": token, "layer": layer, "pattern": row[0].tolist()}
        return found

    def _still_of(self, run: Any) -> Passage:
        masses = np.array(self._read_layers(run, "attn.sink_mass")).mean(1)
        heads = [f"head {n}" for n in range(masses.shape[1])]
        layers = self.source.points["attn.sink_mass"] or []
        rows = [[f"layer {n}", *map(float, row)] for n, row in zip(layers, masses, strict=True)]
        return show_table("Mean share of attention on the sink.", ["layer", *heads], rows)


class AnalysisView(View):
    """A view of one analysis of the shown run.

    `data()` computes it; the still has it once it was computed.
    """

    ANALYSIS = ""

    def _compute(self, run: Any) -> Work:
        return to_plain((yield from self._analyze(run, self._choose_options(run))))

    def _analyze(self, run: Any, options: Mapping[str, Any]) -> Work:
        if not isinstance(self.source, LabSource):
            raise LabError(f"{self.TITLE} needs a model: make the view from a Lab")
        return (yield from self.source.analyze(run, self.ANALYSIS, options))

    def _choose_options(self, run: Any) -> dict[str, Any]:
        return {}

    def _still(self) -> Passage:
        run, source = self.source.shown, self.source
        found = source.find_result(run, self.ANALYSIS) if isinstance(source, LabSource) else None
        if found is None:
            return show_sentence(f"{self.TITLE}: not computed yet for this run.")
        return self._draw(run, to_plain(found))

    def _draw(self, run: Any, found: Any) -> Passage:
        raise NotImplementedError

    def _choose_token(self, run: Any) -> int:
        """The selected token, else the last one."""
        token = self.selection["token"]
        return len(run.ids) - 1 if token is None else token


class LogitLens(AnalysisView):
    """What each layer would predict if it were the last."""

    NAME, TITLE, ANALYSIS = "lens", "Logit lens", "lens"

    def _compute(self, run: Any) -> Work:
        return {"layers": to_plain((yield from self._analyze(run, self._choose_options(run))))}

    def _choose_options(self, run: Any) -> dict[str, Any]:
        begin = max(0, min(run.prompt_length, len(run.ids) - 1) - 1)
        return {"from": begin, "to": min(begin + 200, len(run.ids) - 1), "top": 5}

    def _draw(self, run: Any, found: Any) -> Passage:
        heads = [f"layer {n}" for n in range(len(found))]
        rows = [[cell["topTexts"][0] for cell in cells] for cells in zip(*found, strict=True)]
        return show_table("The likeliest next token of each layer.", heads, rows)


class Attribution(AnalysisView):
    """How much each head and expert slot adds to the logit of the selected token."""

    NAME, TITLE, ANALYSIS = "attribution", "Attribution", "attribution"

    def _choose_options(self, run: Any) -> dict[str, Any]:
        return {"at": self._choose_token(run)}

    def _draw(self, run: Any, found: Any) -> Passage:
        heads = [f"head {n}" for n in range(len(found["heads"][0]))]
        slots = [f"slot {n}" for n in range(len(found["slots"][0]))]
        parts = zip(found["heads"], found["slots"], strict=True)
        rows = [[f"layer {n}", *head, *slot] for n, (head, slot) in enumerate(parts)]
        caption = f"Parts of the logit {found['logit']:.3g}."
        return show_table(caption, ["layer", *heads, *slots], rows)


class Branches(View):
    """The runs and the runs that they were forked from."""

    NAME, TITLE = "branches", "Branches"

    def _compute(self, run: Any) -> Work:
        yield
        return {"runs": [self._describe_run(each) for each in self.source.runs]}

    @staticmethod
    def _describe_run(run: Any) -> dict[str, Any]:
        parent, at = run.parent or (None, None)
        made = [str(each) for each in run.interventions]
        return {
            "id": run.id,
            "parent": parent,
            "at": at,
            "tokens": len(run.ids),
            "answer": run.answer,
            "interventions": made,
        }

    def _still(self) -> Passage:
        runs = [self._describe_run(each) for each in self.source.runs]
        rows = [[*list(each.values())[:5], "; ".join(each["interventions"])] for each in runs]
        heads = ["run", "forked from", "at", "tokens", "answer", "interventions"]
        return show_table(f"{len(rows)} runs.", heads, rows)


class Commitment(AnalysisView):
    """What the answer would be if the thinking ended earlier."""

    NAME, TITLE, ANALYSIS = "commitment", "Commitment", "commitment"

    def _draw(self, run: Any, found: Any) -> Passage:
        rows = [[each["kept"], each["answer"], each["logprob"]] for each in found["steps"]]
        heads = ["tokens kept", "answer then", "log-probability of the final answer"]
        return show_table("The answer after each part of the thinking.", heads, rows)


class EffortLens(AnalysisView):
    """The question of the shown run at every effort."""

    NAME, TITLE, ANALYSIS = "effort_lens", "Effort lens", "effortLens"

    def _draw(self, run: Any, found: Any) -> Passage:
        rows = [
            [each["effort"], each["answer"], sum(each["tokens"].values())]
            for each in found["efforts"]
        ]
        return show_table("One question at every effort.", ["effort", "answer", "tokens"], rows)


class Microscope(AnalysisView):
    """The four-bit weights of one block of an expert."""

    NAME, TITLE, ANALYSIS = "microscope", "MXFP4 microscope", "block"

    def _choose_options(self, run: Any) -> dict[str, Any]:
        layer, expert = self.selection["layer"] or 0, self.selection["expert"] or 0
        return {"layer": layer, "expert": expert, "matrix": "gate_up", "row": 0, "block": 0}

    def _draw(self, run: Any, found: Any) -> Passage:
        rows = [[n, value] for n, value in enumerate(cast("list[float]", found["values"]))]
        return show_table(f"32 weights with the scale byte {found['scale']}.", ["n", "value"], rows)
