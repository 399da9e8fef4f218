"""Exercises of 18_effort: the reward, the advantage of a reply, and the loss of an update."""

from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_reward(channels, final, answer, price):
    """What a reply is worth.

    channels: one name for each token of the conversation so far: "prompt" for the tokens that the
    model read; "analysis" and "final" for the texts that it wrote; "format" for Harmony's own
    tokens in its reply.
    final: the text of the answer, or None if there is none. answer: the right one.
    Returns 1 if the answer is right and 0 if not, minus the price of each token of analysis.
    """
    is_right = final == answer
    return float(is_right) - price * channels.count("analysis")


def every_written_token_costs(channels, final, answer, price):
    """You count every token that the model wrote. The answer and the format are not thinking:
    only tokens of analysis cost something.
    """
    return float(final == answer) - price * (len(channels) - channels.count("prompt"))


def the_prompt_costs(channels, final, answer, price):
    """You count tokens of the prompt. The model did not choose them, so a price on them cannot
    change what it does.
    """
    return float(final == answer) - price * len(channels)


def only_mistakes_cost(channels, final, answer, price):
    """Your right answers cost nothing. Then thinking is free wherever it helps, and no price makes
    it shorter: subtract it from right answers, too.
    """
    return 1.0 if final == answer else -price * channels.count("analysis")


def only_right_answers_cost(channels, final, answer, price):
    """Your wrong answers cost nothing. Subtract the price from them, too: otherwise a long wrong
    reply is worth as much as a short one, and an expensive right one less than a wrong one.
    """
    return 1.0 - price * channels.count("analysis") if final == answer else 0.0


def never_below_zero(channels, final, answer, price):
    """Your reward is never below 0. Then a wrong reply with long thinking is worth as much as a
    wrong one without any, and the model sees no difference between them.
    """
    return max(0.0, my_reward(channels, final, answer, price))


def price_is_a_share(channels, final, answer, price):
    """You divide by the length of the reply. The price is for each token: ten tokens cost ten
    times as much as one.
    """
    written = len(channels) - channels.count("prompt")
    return float(final == answer) - price * channels.count("analysis") / written


def reward_cases() -> Iterator[tuple]:
    """Right and wrong, with and without thinking, one reply that was cut, and a price of 0."""
    prompt = ["prompt"] * 6
    long = [*prompt, "format", *["analysis"] * 9, "format", "format", "final", "final", "format"]
    short = [*prompt, "format", "format", "final", "final", "format"]
    for price in (0.25, 0.02, 0.0):
        yield list(long), "84", "84", price
        yield list(long), "85", "84", price
        yield list(short), "84", "84", price
        yield list(short), "85", "84", price
    yield [*prompt, "format", *["analysis"] * 20], None, "84", 0.02


def my_advantages(rewards):
    """How much better each reply is than the other replies to its prompt.

    rewards: [prompts samples]; row n has the rewards of the replies to prompt n.
    Returns [prompts samples]: each reward minus the mean of the *other* rewards in its row.
    """
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def mean_includes_itself(rewards):
    """Your mean includes the reply itself. Then a part of each reward is subtracted from itself,
    and every advantage is too small: by a quarter, with four samples.
    """
    return rewards - rewards.mean(dim=1, keepdim=True)


def across_prompts(rewards):
    """You compare a reply with the replies to all prompts. Then every reply to an easy prompt looks
    good, whatever it does: compare it only with its own row.
    """
    return rewards - (rewards.sum() - rewards) / (rewards.numel() - 1)


def across_samples(rewards):
    """You subtract the mean of the column. Replies in a column belong to different prompts: the
    others to the same prompt are in the row.
    """
    return rewards - (rewards.sum(dim=0) - rewards) / max(1, len(rewards) - 1)


def divides_by_all(rewards):
    """You divide the sum of the others by the number of all samples. There is one fewer of them, so
    your mean is too small, and most replies look good.
    """
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / rewards.shape[1]
    return rewards - others


def no_baseline(rewards):
    """You return the rewards. Then the model is pushed toward every reply with a reward above 0,
    also toward the worst of a row: subtract what the others got.
    """
    return rewards.clone()


def divided_by_spread(rewards):
    """You divide by the standard deviation of the row, as GRPO does. Then a row with a tiny
    difference counts as much as one with a large difference; leave it out here.
    """
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    return centered / (rewards.std(dim=1, keepdim=True) + 1e-6)


def advantage_cases() -> Iterator[tuple]:
    """Two to six samples, equal rewards, and prompts that are easy and hard."""
    generator = torch.Generator().manual_seed(0)
    for prompts, samples in ((1, 2), (3, 4), (5, 6)):
        yield (torch.randn(prompts, samples, generator=generator),)
    yield (torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]]),)


def my_policy_loss(nats, written, advantages):
    """The loss whose gradient makes replies with a positive advantage likelier.

    nats: [replies tokens], the surprise -log(p) of the model at each token of the conversation.
    written: [replies tokens] booleans, True for the tokens of the reply, False for the prompt.
    advantages: [replies].
    Returns a scalar: the nats of the written tokens, each times the advantage of its reply, summed
    and divided by the number of written tokens.
    """
    weights = advantages[:, None] * written
    return (weights * nats).sum() / written.sum()


def wrong_sign(nats, written, advantages):
    """Your sign is wrong. Training lowers the loss, and nats fall when a token becomes likelier: a
    good reply needs its nats with a plus sign.
    """
    return -my_policy_loss(nats, written, advantages)


def prompt_is_learned(nats, written, advantages):
    """Your loss includes the prompt. The model did not write it, and should become neither more nor
    less likely to write it.
    """
    return (advantages[:, None] * nats).sum() / nats.numel()


def each_reply_averaged(nats, written, advantages):
    """You take the mean of each reply first. Then a token of a long reply counts less than one of a
    short reply, so long wrong replies are pushed down too little.
    """
    means = (nats * written).sum(dim=1) / written.sum(dim=1)
    return (advantages * means).mean()


def good_replies_only(nats, written, advantages):
    """You leave out replies with a negative advantage. They say what to do less often; use them,
    too.
    """
    return my_policy_loss(nats, written, advantages.clamp(min=0))


def advantage_forgotten(nats, written, advantages):
    """You do not use the advantages. That is supervised learning from the model's own replies:
    right and wrong ones become likelier alike.
    """
    return my_policy_loss(nats, written, torch.ones_like(advantages))


def probabilities_not_nats(nats, written, advantages):
    """You use probabilities, not nats. A token that the model finds unlikely then hardly counts,
    however good its reply was: the gradient of -log(p) has a factor 1 / p that you lose.
    """
    return my_policy_loss(-torch.exp(-nats), written, advantages)


def loss_cases() -> Iterator[tuple]:
    """Replies of different length after prompts of different length, good and bad ones."""
    generator = torch.Generator().manual_seed(2)
    for lengths, total in (((3, 5), 8), ((2, 9, 4), 12)):
        nats = torch.rand(len(lengths), total, generator=generator) * 3
        written = torch.arange(total) >= total - torch.tensor(lengths)[:, None]
        yield nats, written, torch.randn(len(lengths), generator=generator)
    written = torch.tensor([[False, True, True, True], [False, False, False, True]])
    yield torch.full((2, 4), 0.5), written, torch.tensor([1.0, -1.0])


SHEET = Sheet(
    lesson="18_effort",
    title="Exercises: rewards and effort",
    text=(
        "Read [18_effort](../18_effort.ipynb) first. The three functions are one update: what a"
        " reply is worth, how much better it is than others, and what the model learns from that."
    ),
    exercises=(
        Exercise(
            title="What a reply is worth",
            text=(
                "Write the reward of the lesson. Which of its two parts can a reply change without"
                " being right?"
            ),
            solution=my_reward,
            cases=reward_cases,
            misconceptions=(
                every_written_token_costs,
                the_prompt_costs,
                only_mistakes_cost,
                only_right_answers_cost,
                never_below_zero,
                price_is_a_share,
            ),
            hints=(
                "Two numbers: whether the answer is right, and how many tokens were thinking.",
                '`channels.count("analysis")` counts the tokens that cost something.',
                "float(final == answer) minus price times that count.",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="The advantage",
            text=(
                "A reward alone does not say whether a reply was good: perhaps the problem was"
                " easy. Compare each reply with the others to the same prompt."
            ),
            solution=my_advantages,
            cases=advantage_cases,
            misconceptions=(
                mean_includes_itself,
                across_prompts,
                across_samples,
                divides_by_all,
                no_baseline,
                divided_by_spread,
            ),
            hints=(
                "The mean of the others is their sum divided by their number.",
                "The sum of the others is the sum of the row minus the reward itself;"
                " `sum(dim=1, keepdim=True)` is [prompts 1].",
                "others = (row sum - rewards) / (samples - 1); return rewards - others.",
            ),
            minutes=8,
            difficulty=2,
        ),
        Exercise(
            title="The loss of an update",
            text=(
                "Turn advantages into a loss. Its gradient is the one of supervised learning, with"
                " each reply's tokens weighted by its advantage."
            ),
            solution=my_policy_loss,
            cases=loss_cases,
            misconceptions=(
                wrong_sign,
                prompt_is_learned,
                each_reply_averaged,
                good_replies_only,
                advantage_forgotten,
                probabilities_not_nats,
            ),
            hints=(
                "Supervised learning sums the nats of the written tokens. Here each token has a"
                " weight.",
                "`advantages[:, None] * written` is [replies tokens]: the advantage where the model"
                " wrote, 0 in the prompt.",
                "(weights * nats).sum() / written.sum().",
            ),
            minutes=10,
            difficulty=2,
        ),
    ),
)
