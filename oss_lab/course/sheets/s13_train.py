"""Exercises of 13_train: the thoughts of a new task, the loss, the balance loss."""

from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_thoughts(a, b):
    """The chain of thought for a - b, worked out as on paper.

    a, b: whole numbers with a >= b >= 0.
    Returns lines joined by newlines: the task; one line for each digit of a, from the right; and
    "=" with the result. A line is digit-digit-borrow=digit. If ten was borrowed for it, a 1 is
    written before its first digit, and the borrow of the next line is 1. So 52 - 17 gives
    "52-17\\n12-7-0=5\\n5-1-1=3\\n=35".
    """
    lines, borrow = [f"{a}-{b}"], 0
    for place in range(len(str(a))):
        x, y = a // 10**place % 10, b // 10**place % 10
        borrowed = 1 if x - y - borrow < 0 else 0
        first = f"1{x}" if borrowed else f"{x}"
        lines.append(f"{first}-{y}-{borrow}={x - y - borrow + 10 * borrowed}")
        borrow = borrowed
    lines.append(f"={a - b}")
    return "\n".join(lines)


def starts_at_the_left(a, b):
    """Your lines start at the left. A digit on the left depends on the borrow from its right, so
    the model would have to guess a borrow that it has not worked out yet.
    """
    first, *lines, last = my_thoughts(a, b).split("\n")
    return "\n".join([first, *reversed(lines), last])


def borrow_not_passed_on(a, b):
    """Your borrow does not reach the next line. After a line that borrowed ten, the next line
    subtracts one more.
    """
    lines = [f"{a}-{b}"]
    for place in range(len(str(a))):
        x, y = a // 10**place % 10, b // 10**place % 10
        first = f"1{x}" if x < y else f"{x}"
        lines.append(f"{first}-{y}-0={(x - y) % 10}")
    return "\n".join([*lines, f"={a - b}"])


def borrow_not_marked(a, b):
    """You do not write the 1 of a borrowed ten. Without it a line such as 2-7-0=5 is false, and
    the model cannot see in the next line that ten was borrowed.
    """
    first, *lines, last = my_thoughts(a, b).split("\n")
    lines = [line[1:] if line.index("-") == 2 else line for line in lines]
    return "\n".join([first, *lines, last])


def stops_at_the_shorter_number(a, b):
    """You stop where b has no more digits. The other digits of a need a line, too: a borrow can
    change them.
    """
    first, *lines, last = my_thoughts(a, b).split("\n")
    return "\n".join([first, *lines[: len(str(b))], last])


def result_missing(a, b):
    """Your last line, "=" with the result, is missing. The digits were found from the right, and
    the model needs them in order before it answers.
    """
    return my_thoughts(a, b).rpartition("\n")[0]


def thought_cases() -> Iterator[tuple]:
    """With and without borrowing, borrows in a row, and numbers of different length."""
    yield from [(57, 23), (52, 17), (90, 45), (40, 7), (305, 128), (100, 1), (8, 3), (77, 77)]


def my_loss(logits, ids, learned):
    """The mean surprise, in nats, at the tokens that the assistant wrote.

    logits: [seq vocab]; row t holds the scores for the token after token t.
    ids: [seq], the tokens. learned: [seq] booleans, True where the assistant wrote the token.
    Returns a scalar tensor.
    """
    log_probabilities = torch.log_softmax(logits[:-1], dim=-1)
    surprise = -log_probabilities.gather(1, ids[1:, None])[:, 0]
    return surprise[learned[1:]].mean()


def all_tokens_count(logits, ids, learned):
    """Your mean includes the tokens of the system message and the question. The model reads them
    and should not learn to write them: use only the learned ones.
    """
    return my_loss(logits, ids, torch.ones_like(learned))


def not_shifted(logits, ids, learned):
    """You compare the scores of row t with token t, which the model has just read. Row t scores
    the next token: compare it with token t + 1.
    """
    surprise = -torch.log_softmax(logits, -1).gather(1, ids[:, None])[:, 0]
    return surprise[learned].mean()


def mask_not_shifted(logits, ids, learned):
    """You shifted the tokens but not `learned`. The first learned token is scored by the row
    before it, and belongs to the mean; the last row scores nothing.
    """
    surprise = -torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0]
    return surprise[learned[:-1]].mean()


def summed(logits, ids, learned):
    """You return a sum. Divide by the number of learned tokens; otherwise a long reply would
    count as a bad one.
    """
    return my_loss(logits, ids, learned) * learned[1:].sum()


def divided_by_all(logits, ids, learned):
    """You divide by the number of all tokens. A long question would make the loss smaller: divide
    by the number of learned tokens.
    """
    return my_loss(logits, ids, learned) * learned[1:].float().mean()


def in_bits(logits, ids, learned):
    """Your surprise is in bits. Use the natural logarithm: one bit is 0.69 nats."""
    return my_loss(logits, ids, learned) / torch.log(torch.tensor(2.0))


def probability_not_logarithm(logits, ids, learned):
    """You average 1 - p. The surprise is -log(p), which grows without bound as p approaches 0."""
    missed = 1 - torch.softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0]
    return missed[learned[1:]].mean()


def loss_cases() -> Iterator[tuple]:
    """Several lengths, in which the assistant writes the end or the middle, and huge logits."""
    generator = torch.Generator().manual_seed(0)
    for length, begin in ((5, 3), (12, 4), (30, 20)):
        logits = 2 * torch.randn(length, 9, generator=generator)
        ids = torch.randint(9, (length,), generator=generator)
        yield logits, ids, torch.arange(length) >= begin
    middle = torch.tensor([False, True, True, False, False, True])
    yield torch.randn(6, 9, generator=generator), torch.arange(6), middle
    yield 300 * torch.randn(6, 9, generator=generator), torch.arange(6), middle.clone()


def my_balance_loss(chosen, probabilities):
    """The load-balancing loss of one layer, which is 1 if all experts are equally busy.

    chosen: [tokens k], the ids of the k experts that each token uses.
    probabilities: [tokens experts], the softmax of all router logits.
    Returns the number of experts times the sum, over the experts, of an expert's share of all
    choices times its mean probability.
    """
    experts = probabilities.shape[1]
    share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    return experts * (share * probabilities.mean(0)).sum()


def not_times_experts(chosen, probabilities):
    """You do not multiply by the number of experts. With it, an even load gives 1 for any number
    of experts.
    """
    return my_balance_loss(chosen, probabilities) / probabilities.shape[1]


def share_of_tokens(chosen, probabilities):
    """You divide by the number of tokens. A token makes k choices, so the shares would add up to
    k: divide by the number of choices.
    """
    return my_balance_loss(chosen, probabilities) * chosen.shape[1]


def first_choice_only(chosen, probabilities):
    """You count only the first expert of each token. All k experts of a token do work."""
    return my_balance_loss(chosen[:, :1], probabilities)


def probabilities_only(chosen, probabilities):
    """You do not use `chosen`. A router can give all experts nearly the same probability and
    still choose the same ones for every token.
    """
    return probabilities.shape[1] * (probabilities.mean(0) ** 2).sum()


def choices_only(chosen, probabilities):
    """You do not use `probabilities`. The counts have no gradient: without the probabilities, the
    loss cannot change the router.
    """
    share = torch.bincount(chosen.flatten(), minlength=probabilities.shape[1]) / chosen.numel()
    return probabilities.shape[1] * (share**2).sum()


def balance_cases() -> Iterator[tuple]:
    """Random routers with 4 to 32 experts, and one that chooses the same two for every token."""
    generator = torch.Generator().manual_seed(1)
    for tokens, experts, k in ((6, 4, 2), (10, 8, 2), (20, 32, 4)):
        logits = torch.randn(tokens, experts, generator=generator)
        yield logits.topk(k).indices, logits.softmax(-1)
    logits = torch.randn(5, 4, generator=generator) * 0.1 + torch.tensor([3.0, 2.0, 0.0, 0.0])
    yield logits.topk(2).indices, logits.softmax(-1)


SHEET = Sheet(
    lesson="13_train",
    title="Exercises: training",
    text=(
        "Read [13_train](../13_train.ipynb) first. What you write in the first exercise is what a"
        ' model learns from in the task "two-digit differences": to train it, choose that task'
        " there."
    ),
    exercises=(
        Exercise(
            title="Write the thoughts of a task",
            text=(
                "A model learns the way of working that its data shows. Show it how to subtract:"
                " write the chain of thought for a difference, in steps that are each easy."
            ),
            solution=my_thoughts,
            cases=thought_cases,
            misconceptions=(
                starts_at_the_left,
                borrow_not_passed_on,
                borrow_not_marked,
                stops_at_the_shorter_number,
                result_missing,
            ),
            hints=(
                "Work from the right, and keep the borrow in a variable from one digit to the"
                " next.",
                "The digit of `a` at a place is `a // 10**place % 10`; place 0 is the rightmost.",
                "For each place: borrowed = 1 if x - y - borrow < 0 else 0; write the line with"
                " x - y - borrow + 10 * borrowed; then borrow = borrowed.",
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="The loss",
            text=(
                "Compute the loss that training lowers: the mean surprise at the tokens that the"
                " assistant wrote, and at no others."
            ),
            solution=my_loss,
            cases=loss_cases,
            misconceptions=(
                all_tokens_count,
                not_shifted,
                mask_not_shifted,
                summed,
                divided_by_all,
                in_bits,
                probability_not_logarithm,
            ),
            hints=(
                "The surprise at a token is minus the logarithm of its probability. Which row of"
                " `logits` scores which token?",
                "`logits[:-1]` scores `ids[1:]`; `gather(1, ids[1:, None])` picks one number of"
                " each row.",
                "Take log_softmax of logits[:-1], pick the entries of ids[1:], negate, keep those"
                " where learned[1:] is True, and take the mean.",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="The balance loss",
            text=(
                "Compute the loss that keeps the experts equally busy. What is it if the router"
                " sends every token to the same two of eight experts?"
            ),
            solution=my_balance_loss,
            cases=balance_cases,
            misconceptions=(
                not_times_experts,
                share_of_tokens,
                first_choice_only,
                probabilities_only,
                choices_only,
            ),
            hints=(
                "Each expert has two numbers: how often it was chosen, as a share of all choices,"
                " and its mean probability.",
                "`torch.bincount(chosen.flatten(), minlength=experts)` counts the choices,"
                " [experts]; `probabilities.mean(0)` is [experts], too.",
                "share = counts / chosen.numel(); return experts * (share * mean).sum().",
            ),
            minutes=8,
            difficulty=2,
        ),
    ),
)
