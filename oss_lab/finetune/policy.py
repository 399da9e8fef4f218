"""Reinforcement: the model writes replies, and those with a higher reward become likelier.

    policy = Policy(lab, make_recipe(lab.config, learning_rate=1e-3))
    for _ in range(50):
        step = policy.step(prompts, lambda n, reply: float(reply.final == answers[n]))

Each prompt is answered several times at temperature 1. A reply's advantage is its reward minus the
mean reward of the *other* replies to the same prompt (leave-one-out, RLOO, arXiv 2402.14740), and
the loss is advantage * nats of the reply's tokens. One update per sample, so there is no ratio to
clip. Left out: a penalty for leaving the first model (KL).
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from oss_lab.checkpoint.adapter import read_adapter
from oss_lab.errors import LabError
from oss_lab.finetune.adapted import AdaptedTransformer
from oss_lab.finetune.examples import Example
from oss_lab.finetune.files import to_lora, write_adapter
from oss_lab.finetune.lora import Lora, make_lora
from oss_lab.finetune.packing import pack
from oss_lab.finetune.recipe import Recipe
from oss_lab.finetune.steps import Trainee, update
from oss_lab.harmony import Conversation
from oss_lab.harmony.notices import warn
from oss_lab.lab import Lab
from oss_lab.record.reply import Reply

Reward = Callable[[int, Reply], float]
"""The reward of a reply to the prompt with this number."""


@dataclass(frozen=True)
class PolicyStep:
    """What one update measured, before it changed anything.

    Attributes:
        replies: for each prompt, its replies.
        rewards: their rewards, in the same order.
        gradient_norm: before clipping.
    """

    replies: list[list[Reply]]
    rewards: list[list[float]]
    gradient_norm: float

    @property
    def reward(self) -> float:
        """The mean reward."""
        return fmean(each for group in self.rewards for each in group)


class Policy:
    """A model that is trained by rewards.

    Attributes:
        lab: the model as it is now; it changes with every step.
    """

    def __init__(self, lab: Lab, recipe: Recipe, *, name: str, start: Path | None = None) -> None:
        """
        Args:
            lab: the frozen model.
            name: of its checkpoint.
            start: a LoRA folder to continue from; None starts with the frozen model.

        Warns about what may be wrong with the LoRA folder, such as another base model.

        Raises:
            LabError: the LoRA folder cannot be used, or has another rank, alpha or other targets
                than the recipe, which `save` would write.
        """
        lora = make_lora(lab.config, recipe)
        if start is not None:
            adapter = read_adapter(start, lab.config, name)
            warn(adapter.notes, UserWarning)
            loaded = to_lora(adapter, lab.config)
            if describe_parts(loaded) != describe_parts(lora):
                raise LabError(
                    f"the adapter in {start} has another rank, alpha or other targets than the"
                    " recipe; make the recipe with those in its adapter_config.json"
                )
            lora = loaded
        self.name, self.recipe, self.steps = name, recipe, 0
        self.trainee = Trainee(lab.model, lora, recipe)
        adapted = AdaptedTransformer(lab.model, self.trainee.lora)
        self.lab = Lab(adapted, lab.tokenizer, lab.sampling, lab.effort)

    def step(
        self,
        prompts: Sequence[Conversation],
        reward: Reward,
        *,
        samples: int = 4,
        max_tokens: int = 200,
    ) -> PolicyStep:
        """Answer every prompt `samples` times, and do one update.

        The replies depend on the recipe's seed and the number of the step.

        Raises:
            LabError: there is no prompt; `samples` is below 2, so no reply has another one to be
                compared with; or a reward is not a finite number. Then nothing is updated.
        """
        if not prompts:
            raise LabError("there are no prompts; give at least one")
        if samples < 2:
            raise LabError(f"samples is {samples}; a reply is compared with others: use 2 or more")
        asked = [prompt for prompt in prompts for _ in range(samples)]
        seed = self.recipe.seed * 100_003 + self.steps
        with torch.no_grad():
            written = self.lab.chat_batch(asked, seed=seed, temperature=1.0, max_tokens=max_tokens)
        groups = [written[n : n + samples] for n in range(0, len(written), samples)]
        rewards = [
            [check_reward(n, reward(n, each)) for each in group] for n, group in enumerate(groups)
        ]
        norm = self._update(groups, rewards)
        self.steps += 1
        return PolicyStep(groups, rewards, norm)

    def _update(self, groups: Sequence[Sequence[Reply]], rewards: Sequence[Sequence[float]]):
        examples = [
            make_example(reply, advantage)
            for replies, found in zip(groups, rewards, strict=True)
            for reply, advantage in zip(replies, leave_one_out(found), strict=True)
            if advantage != 0
        ]
        if not examples:
            return 0.0
        width = max(self.recipe.length, *(len(each.tokens) - 1 for each in examples))
        packed = pack([len(each.tokens) - 1 for each in examples], width)
        rows = [[examples[n] for n in row] for row in packed]
        with ThreadPoolExecutor(
            os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return update(self.trainee, rows, self.recipe.learning_rate, pool).gradient_norm

    def save(self, folder: Path) -> None:
        """Write the LoRA files, which `load_adapted` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        write_adapter(folder, self.trainee.lora, self.recipe, self.name)


def describe_parts(lora: Lora) -> list[dict[str, tuple[torch.Size, torch.Size, float]]]:
    """For each layer the shapes and the scale of its low-rank parts."""
    return [
        {name: (each.up.shape, each.down.shape, each.scale) for name, each in layer.items()}
        for layer in lora.parts()
    ]


def check_reward(prompt: int, reward: object) -> float:
    """The reward as a number.

    Raises:
        LabError: it is none, or not finite. One such number would destroy all that is trained.
    """
    try:
        number = float(reward)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(reward, str) or not math.isfinite(number):
        raise LabError(f"the reward of a reply to prompt {prompt} is {reward!r}; return a number")
    return number


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Each reward minus the mean of the others.

    >>> leave_one_out([1.0, 0.0, 0.0])
    [1.0, -0.5, -0.5]
    """
    total, others = sum(rewards), len(rewards) - 1
    return [each - (total - each) / others for each in rewards]


def make_example(reply: Reply, advantage: float) -> Example:
    """The reply with its prompt; only its own tokens count, each as much as its advantage."""
    prompt, ids = list(reply.prompt_tokens), list(reply.ids)
    learned = [False] * len(prompt) + [True] * len(ids)
    return Example(prompt + ids, learned, advantage)
