"""The study of long conversations grades each turn, and keeps the model's own answers."""

from collections.abc import Sequence
from typing import Any

from oss_lab.harmony.messages import Conversation, Message
from oss_lab.lab import Lab
from oss_lab.nano.card.findings_turns import describe_turns
from oss_lab.nano.studies import turns
from oss_lab.record.reply import Reply, Timing


class Forgetful(Lab):
    """Answers only the first question of a conversation right, and keeps what it was asked."""

    def __init__(self):
        self.read: list[Conversation] = []

    def chat_batch(self, questions: Sequence[Any], draws: Any = None, **_: Any) -> list[Reply]:
        self.read += questions
        return [self.reply(prompt) for prompt in questions]

    def reply(self, prompt: Conversation) -> Reply:
        asked = [message.text for message in prompt if message.role == "user"]
        answer = "wrong" if len(asked) > 1 else "right"
        final = Message.of("assistant", answer, channel="final")
        thought = Message.of("assistant", "hm", channel="analysis")
        length = (0,) * len(asked)
        return Reply(prompt, length, (), "", (thought, final), "return", (), Timing(0, 0, 0))


def test_each_turn_is_graded_and_mistakes_stay(monkeypatch):
    monkeypatch.setattr(turns, "TURNS", 3)
    monkeypatch.setattr(turns.Problem, "is_right", lambda self, said: said[-1].text == "right")
    monkeypatch.setattr(turns, "grade_problems", lambda lab, problems, effort: [True] * 4)
    lab = Forgetful()
    found = turns.study_turns(lab, 4, seed=1)
    assert [each.turn for each in found] == [1, 2, 3]
    assert [each.accuracy.second.count for each in found] == [4, 0, 0]
    assert [each.accuracy.difference for each in found] == [0, 1, 1]
    assert [each.prompt_tokens for each in found] == [1, 2, 3]
    last = lab.read[-1]
    assert [m.text for m in last if m.channel == "final"] == ["right", "wrong"]
    assert len({m.text for m in last if m.role == "user"}) == 3
    again = Forgetful()
    turns.study_turns(again, 4, seed=1)
    assert again.read == lab.read


def test_the_card_claims_a_fall_only_if_there_is_one():
    def turn(number, count):
        share = {"count": count, "n": 9, "value": count / 9, "interval": [0.0, 1.0]}
        return {"turn": number, "prompt_tokens": 9.0, "accuracy": {"first": share, "second": share}}

    assert "falls from 88.9% to 44.4%" in describe_turns({"turns": [turn(1, 8), turn(2, 4)]})
    assert "Result" not in describe_turns({"turns": [turn(1, 4), turn(2, 8)]})
    assert "Result" not in describe_turns({"turns": [turn(1, 8)]})
