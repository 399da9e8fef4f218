"""The views of one analysis each, and Branches: what is drawn, as plain data and as a still."""

from collections.abc import Mapping
from typing import Any, cast

from oss_lab.errors import LabError
from oss_lab.plots import Passage
from oss_lab.plots.style import plural
from oss_widgets.sources.kernel import Work
from oss_widgets.sources.lab import LabSource
from oss_widgets.sources.messages import to_plain
from oss_widgets.views.still import show_sentence, show_table
from oss_widgets.views.view import View


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
        return show_table(f"{plural(len(rows), 'run')}.", heads, rows)


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
