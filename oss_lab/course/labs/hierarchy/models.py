"""Training examples of lesson 19, and models that are trained on them and asked.

`finetune` reads OpenAI's messages, in which nobody can put a rule into Harmony's system message. So
the examples are rendered here, and trained with the same loop.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import tiktoken
import torch

from oss_lab.course.labs.hierarchy.attacks import LAYOUTS, write_layout
from oss_lab.course.labs.hierarchy.data import draw_training, shuffle_roles
from oss_lab.course.labs.hierarchy.prompts import write_prompt
from oss_lab.finetune.adapted import AdaptedTransformer
from oss_lab.finetune.examples import Example
from oss_lab.finetune.loop import train
from oss_lab.finetune.lora import make_lora
from oss_lab.finetune.recipe import make_recipe
from oss_lab.finetune.steps import Trainee
from oss_lab.harmony import Conversation, Message, render
from oss_lab.lab import Lab
from oss_lab.progress import track_progress

SETTINGS = {"rank": 8, "learning_rate": 3e-3, "epochs": 2, "length": 384, "batch": 2, "rows": 1}
MAX_TOKENS = 16
BATCH = 128


def make_example(encoding: tiktoken.Encoding, prompt: Conversation, answer: str) -> Example:
    """The conversation as tokens; only the last answer is learned."""
    reply = Message.of("assistant", answer, channel="final")
    conversation = Conversation((*prompt.messages, reply))
    rendered = render(conversation, encoding, mode="training")
    begin = len(render(prompt, encoding, mode="completion").tokens)
    return Example(rendered.tokens, [n >= begin for n in range(len(rendered.tokens))])


def hierarchy_examples(lab: Lab, seed: int, count: int) -> list[Example]:
    """The highest role wins; every rule is in the message of its role."""
    cases = draw_training(seed, count)
    return [make_example(lab.tokenizer, write_prompt(case), case.answer) for case in cases]


def shuffled_examples(lab: Lab, seed: int, count: int) -> list[Example]:
    """The same cases and answers, with the rules in roles drawn at random: the control."""
    rng, cases = Random(f"shuffled/{seed}"), draw_training(seed, count)
    return [
        make_example(lab.tokenizer, write_prompt(shuffle_roles(rng, c)), c.answer) for c in cases
    ]


def mixed_examples(lab: Lab, seed: int, count: int) -> list[Example]:
    """The same cases; between developer and user, only the role token says which rule wins."""
    rng, examples = Random(f"mixed/{seed}"), []
    for case in draw_training(seed, count):
        if set(case.rules) != {"developer", "user"}:
            examples.append(make_example(lab.tokenizer, write_prompt(case), case.answer))
            continue
        layout = rng.choice(LAYOUTS)
        wins = case.rules["developer" if layout.token == "developer" else "user"]
        examples.append(
            make_example(lab.tokenizer, write_layout(case, layout), wins.apply(case.number))
        )
    return examples


def train_model(base: Lab, examples: Sequence[Example], seed: int, **settings: Any) -> Lab:
    """Fine-tune with LoRA, with a progress bar."""
    recipe = make_recipe(base.config, seed=seed, **(SETTINGS | settings))
    trainee = Trainee(base.model, make_lora(base.config, recipe), recipe)
    with tempfile.TemporaryDirectory() as folder:
        steps = train(
            trainee,
            examples,
            Path(folder),
            save_every=10**9,
            workers=os.cpu_count() or 1,
            threads=1,
        )
        for _ in track_progress(steps, "training"):
            pass
    adapted = AdaptedTransformer(base.model, trainee.lora)
    return Lab(adapted, base.tokenizer, base.sampling, base.effort)


def ask_all(lab: Lab, prompts: Sequence[Conversation], max_tokens: int = MAX_TOKENS) -> list[str]:
    """The answer to each prompt, "" if there is none."""
    finals = []
    with torch.no_grad():
        for n in range(0, len(prompts), BATCH):
            replies = lab.chat_batch(prompts[n : n + BATCH], max_tokens=max_tokens, temperature=0.0)
            finals += [reply.final or "" for reply in replies]
    return finals
