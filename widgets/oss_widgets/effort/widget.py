"""A question, a switch for the reasoning effort, and the reply by channel.

    EffortWidget(lab, "What is 347 * 62?")

Every change of the question (on Enter) or of the effort asks anew. What is shown is
`oss_lab.plots.transcript` of `Lab.chat`; the widget computes nothing. A mistake is one sentence in
its place. Where there is no kernel, a saved notebook shows the last reply as plain HTML.
"""

from html import escape
from typing import Any

import ipywidgets

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.plots import Passage, transcript

MAX_TOKENS = 512


class EffortWidget(ipywidgets.VBox):
    """Asks `lab` the question at the chosen effort, once at the start and at every change.

    Attributes:
        question, effort: the controls; setting their `value` is what a person does by hand.
        passage: what is shown: the last reply, or the sentence that says what went wrong.
    """

    def __init__(self, lab: Lab, question: str, effort: Effort = "low") -> None:
        self.lab = lab
        self.question = ipywidgets.Text(
            question,
            description="Question",
            continuous_update=False,
            layout=ipywidgets.Layout(width="min(100%, 36em)"),
        )
        self.effort = ipywidgets.ToggleButtons(
            options=EFFORTS,
            value=effort,
            description="Effort",
            tooltips=[f"ask again at {effort} effort" for effort in EFFORTS],
            style={"button_width": "6em"},
        )
        self.status = ipywidgets.HTML()
        self.answer = ipywidgets.HTML()
        super().__init__([self.question, self.effort, self.status, self.answer])
        self.question.observe(self._ask, "value")
        self.effort.observe(self._ask, "value")
        self._ask()

    def _ask(self, _: Any = None) -> None:
        self.status.value = "thinking …"
        self.passage = asked(self.lab, self.question.value, self.effort.value)
        self.answer.value = self.passage.html
        self.status.value = ""

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        title = f"{self.question.value} ({self.effort.value} effort)"
        still = {
            "text/html": f"<p><b>{escape(title)}</b></p>{self.passage.html}",
            "text/plain": f"{title}: {self.passage.sentence}",
        }
        return (super()._repr_mimebundle_(**options) or {}) | still


def asked(lab: Lab, question: str, effort: Effort | None) -> Passage:
    """The reply as a transcript; a mistake of the person's as its one sentence."""
    if not question.strip():
        return mistake("There is no question: write one and press Enter.")
    try:
        reply = lab.chat(question, effort=effort, max_tokens=MAX_TOKENS)
    except LabError as error:
        return mistake(str(error))
    return transcript(reply, lab.encoding)


def mistake(sentence: str) -> Passage:
    """A sentence in place of a reply."""
    return Passage(f"<p><b>{escape(sentence)}</b></p>", sentence)
