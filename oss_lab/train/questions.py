"""Questions that nano cannot answer, to learn saying so: chat, knowledge, other sums, word salad.

Held-out questions use templates and words that training never sees.
"""

from collections.abc import Callable
from random import Random
from typing import Literal

TEMPLATES = {
    "train": (
        "What is the capital of {}?", "Who wrote {}?", "Tell me a joke about {}.", "Hello!",
        "Write a poem about {}.", "How do I cook {}?", "Why is the {} blue?",
        "Translate {} to French.", "What do you think of {} and {}?", "Hi, my name is {}.",
        "Explain {} to a child.",
        "When was {} born?", "Is {} bigger than {}?", "Please help me with my {}.", "Spell {}.",
        "Can you draw a {}?", "Where does the {} live?", "Give me three facts about {}.",
        "I feel sad about the {}.", "What is love?", "Sing!", "How are you today?", "Good morning",
        "What is {} * {}?", "What is a {}?", "What is the {} of the {}?", "Who are you?",
        "{} {} {}",
    ),
    "held_out": (
        "Which {} should I buy?", "Describe the {} in two sentences.", "Do you like {}?",
        "Summarize the story of {}.", "How far is the {} from here?", "Thanks for the {}!",
        "Name a famous {}.", "Does a {} dream?", "Recommend a book about {}.", "What time is it?",
        "Fix this {} for me.", "{} or {}?",
    ),
}  # fmt: skip
TRAIN_WORDS = """
France Japan Hamlet cats dogs rice soup sky sea river mountain homework Einstein Mars Venus
music guitar football python code summer winter garden horse bird whale bread cheese tea coffee
paper letter train plane city village king queen doctor teacher friend brother sister mother
history physics gravity light electron atom planet star moon galaxy dragon ghost robot computer
phone window door chair table bottle shoe hat coat rain snow wind fire water stone gold silver
happy angry red green blue fast slow old young strong weak round square bitter sweet
"""
HELD_OUT_WORDS = """
Spain Brazil Faust elephant tiger noodles pizza desert island forest piano violin chess laptop
autumn bicycle castle lawyer uncle biology chemistry proton comet wizard zombie camera lamp
pillow jacket thunder copper lonely purple quick ancient
"""
WORDS = {"train": TRAIN_WORDS.split(), "held_out": HELD_OUT_WORDS.split()}
OTHER_SUMS = {
    "train": (
        "{} - {}", "{} / {}", "{} ^ {}", "the root of {}", "{} mod {}", "{} + {} + {}", "{} %",
    ),
    "held_out": ("{} minus {}", "{} divided by {}", "the square of {}", "{} * {} * {}"),
}  # fmt: skip
TOO_LONG = (
    *(("*", lengths) for lengths in ((3, 3), (4, 1), (4, 2), (4, 3), (5, 2), (6, 5))),
    *(("+", lengths) for lengths in ((5, 1), (5, 3), (5, 5), (7, 4))),
)


def out_of_reach_question(rng: Random, split: Literal["train", "held_out"]) -> str:
    """Free text, another kind of sum, or numbers longer than nano learnt."""
    kind = rng.random()
    if kind < 0.2:
        template = rng.choice(OTHER_SUMS[split])
        return f"What is {_fill(template, lambda: str(rng.randrange(1000)))}?"
    if kind < 0.4:
        sign, lengths = rng.choice(TOO_LONG)
        numbers = [str(rng.randrange(10 ** (n - 1), 10**n)) for n in lengths]
        rng.shuffle(numbers)
        return f"What is {numbers[0]} {sign} {numbers[1]}?"
    return _fill(rng.choice(TEMPLATES[split]), lambda: rng.choice(WORDS[split]))


def _fill(template: str, draw: Callable[[], str]) -> str:
    return template.format(*(draw() for _ in range(template.count("{}"))))
