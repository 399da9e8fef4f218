"""A question, a switch for the reasoning effort, and the reply by channel.

    EffortWidget(lab, "What is 347 * 62?")

A change of the question (press Enter) or of the effort asks again. With nano you can choose an
example of `oss_lab.nano.gallery`. It sets the question, the effort, the developer message and the
tool outputs; the last two stay until you choose another example. Each reply is shown as
`oss_lab.plots.transcript`, and a mistake as one sentence. Without a kernel, a saved notebook shows
the last reply as plain HTML.
"""

from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.hooks.arguments import PLAIN, SOURCES, check_value, describe
from oss_lab.lab import Lab
from oss_lab.nano.gallery import GALLERY, Example
from oss_widgets.effort.answer import build_answer, describe_setting

OWN = ("a question of your own", 0)
WIDE = "min(100%, 36em)"


class EffortWidget(ipywidgets.VBox):
    """Asks `lab` the question at the chosen effort, at the start and after every change.

    Attributes:
        examples: a menu of the gallery's examples; shown only for nano and if `examples` is true.
        question, effort: the controls; set their `value` to do by code what a user does by hand.
        setting: the messages that the chosen example puts before the question.
        passage: the replies that are shown, or the sentence that says what went wrong.
    """

    def __init__(
        self, lab: Lab, question: str, effort: Effort = "low", examples: bool = True
    ) -> None:
        if not hasattr(lab, "conversation"):
            raise LabError(f"lab must be {SOURCES['Lab']}, got {describe(lab)}")
        check_value("question", PLAIN[str], question)
        if not isinstance(effort, str) or effort not in EFFORTS:
            raise LabError(f"effort must be one of {', '.join(EFFORTS)}, got {describe(effort)}")
        check_value("examples", PLAIN[bool], examples)
        self.lab = lab
        self.examples = ipywidgets.Dropdown(
            options=[OWN, *((each.name, number) for number, each in enumerate(GALLERY, 1))],
            description="Examples",
            layout=ipywidgets.Layout(width=WIDE),
        )
        self.question = ipywidgets.Text(
            question,
            description="Question",
            continuous_update=False,
            layout=ipywidgets.Layout(width=WIDE),
        )
        self.setting = ipywidgets.HTML()
        self.effort = ipywidgets.ToggleButtons(
            options=EFFORTS,
            value=effort,
            description="Effort",
            tooltips=[f"ask again at {effort} effort" for effort in EFFORTS],
            style={"button_width": "6em"},
        )
        self.status = ipywidgets.HTML()
        self.answer = ipywidgets.HTML()
        row = [self.examples] if examples and lab.tokenizer.name == "nano" else []
        rows = [*row, self.question, self.setting, self.effort, self.status, self.answer]
        super().__init__(rows)
        self.examples.observe(self._choose, "value")
        self._observe()
        self._ask()

    @property
    def example(self) -> Example | None:
        """The chosen example, with the question and the effort of the controls."""
        if not self.examples.value:
            return None
        chosen = GALLERY[self.examples.value - 1]
        return replace(chosen, question=self.question.value, effort=self.effort.value)

    def _observe(self) -> None:
        for control in (self.question, self.effort):
            control.observe(self._ask, "value")

    def _choose(self, _: Any = None) -> None:
        if number := self.examples.value:
            for control in (self.question, self.effort):
                control.unobserve(self._ask, "value")
            self.question.value = GALLERY[number - 1].question
            self.effort.value = GALLERY[number - 1].effort
            self._observe()
        self.setting.value = describe_setting(self.example).html if self.example else ""
        self._ask()

    def _ask(self, _: Any = None) -> None:
        self.status.value = "thinking …"
        example = self.example
        if example:
            prompt, outputs = example.prompt(self.lab), example.tool_outputs
        else:
            prompt = self.lab.conversation(self.question.value, effort=self.effort.value)
            outputs = {}
        self.passage = build_answer(self.lab, prompt, outputs)
        self.answer.value = self.passage.html
        self.status.value = ""

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        title = f"{self.question.value} ({self.effort.value} effort)"
        before = f" {describe_setting(self.example).sentence}" if self.example else ""
        still = {
            "text/html": f"<p><b>{escape(title)}</b></p>{self.setting.value}{self.passage.html}",
            "text/plain": f"{title}:{before} {self.passage.sentence}",
        }
        return (super()._repr_mimebundle_(**options) or {}) | still
