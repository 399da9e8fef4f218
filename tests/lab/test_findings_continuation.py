"""Replies that continue from a given, unfinished analysis."""

from random import Random

from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony import render
from oss_lab.lab import Lab
from oss_lab.model import Transformer
from oss_lab.nano.studies.continuation import continue_analysis
from oss_lab.nano.tasks.sums_and_products import Products
from oss_lab.record.token import Token
from oss_lab.tokenizer import load_vocabulary


def test_continuing_reads_the_prompt_and_the_analysis_and_marks_it_as_forced(
    monkeypatch, small_nano
):
    encoding = load_vocabulary("nano")
    continuation = encoding.encode(
        "=04<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>", allowed_special="all"
    )
    asked = []

    def write_turns(sequences, **_):
        asked.extend(sequences)
        return ((row, Token(id, -0.5)) for row in range(len(sequences)) for id in continuation)

    problem = Products(lengths=(1, 1)).draw(Random(0), "train")
    prompts = [problem.prompt("high"), problem.prompt("medium")]
    lab = Lab(Transformer(small_nano), encoding, GREEDY)
    monkeypatch.setattr(lab, "write_turns", write_turns)
    replies = continue_analysis(lab, prompts, ["2*2\n2*2+0", "9"], max_tokens=9)
    assert [reply.analysis for reply in replies] == ["2*2\n2*2+0=04", "9=04"]
    assert [reply.final for reply in replies] == ["4", "4"]
    for tokens, prompt, reply in zip(asked, prompts, replies, strict=True):
        rendered = render(prompt, encoding).tokens
        assert list(tokens[: len(rendered)]) == rendered
        forced = [token.id for token in reply.tokens if token.forced]
        assert list(tokens[len(rendered) :]) == forced
        assert [*forced, *continuation] == list(reply.ids)
