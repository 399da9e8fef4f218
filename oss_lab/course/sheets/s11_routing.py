"""Exercises of 11_routing: a lift, a shuffle that respects replies, and a test against the null."""

from collections.abc import Iterator
from random import Random

from oss_lab.course.exercise import Exercise, Sheet


def my_lift(experts, tokens, expert, token):
    """How much an expert prefers a token: P(token | expert) / P(token), as a float.

    experts: for each position, the list of its experts. tokens: for each position, its token.
    The expert and the token occur at least once.
    """
    chosen = [t for t, ids in zip(tokens, experts, strict=True) if expert in ids]
    share_of_expert = chosen.count(token) / len(chosen)
    return share_of_expert / (tokens.count(token) / len(tokens))


def not_divided(experts, tokens, expert, token):
    """You return the token's share of the expert's choices. Divide it by the token's share of all
    positions: a frequent token is frequent for every expert.
    """
    return my_lift(experts, tokens, expert, token) * tokens.count(token) / len(tokens)


def other_way_round(experts, tokens, expert, token):
    """You return the expert's share of the token's choices. A busy expert has a high share of every
    token; the lift compares the token's share of the expert with its share of all positions.
    """
    chosen = [ids for t, ids in zip(tokens, experts, strict=True) if t == token]
    return sum(expert in ids for ids in chosen) / len(chosen)


def against_an_even_share(experts, tokens, expert, token):
    """You compare with an even share of the tokens. They are not equally frequent: divide by the
    token's own share of all positions.
    """
    return not_divided(experts, tokens, expert, token) * len(set(tokens))


def first_choice_only(experts, tokens, expert, token):
    """You count the first choice only. Every chosen expert counts, whatever its rank."""
    chosen = [t for t, ids in zip(tokens, experts, strict=True) if ids[0] == expert]
    return chosen.count(token) / max(1, len(chosen)) / (tokens.count(token) / len(tokens))


def difference_of_shares(experts, tokens, expert, token):
    """You subtract the shares. A lift is their quotient: 1 is no preference, and 2 is twice as
    often as for all experts.
    """
    share = tokens.count(token) / len(tokens)
    return (my_lift(experts, tokens, expert, token) - 1) * share


def lift_cases() -> Iterator[tuple]:
    """Random choices of 3 of 8 experts, of which expert 0 prefers the token `*`."""
    for seed in range(4):
        rng = Random(seed)
        tokens = rng.choices("0123+*=", weights=(6, 5, 4, 3, 2, 2, 1), k=60) + list("*+=0")
        experts = [rng.sample(range(8), 3) for _ in tokens]
        experts = [[1, 0, 2] if t == "*" else ids for t, ids in zip(tokens, experts, strict=True)]
        for expert, token in ((0, "*"), (1, "*"), (3, "0"), (5, "=")):
            yield [list(ids) for ids in experts], list(tokens), expert, token


def my_shuffle(tokens, sequences, numbers):
    """Shuffle the tokens within each sequence, for a null.

    tokens, sequences, numbers: for each position, its token, the number of its sequence, and a
    random number. The positions of a sequence get the tokens of this sequence, in the order of
    their random numbers. Returns the new list of tokens.
    """
    shuffled = list(tokens)
    for sequence in set(sequences):
        inside = [n for n, each in enumerate(sequences) if each == sequence]
        order = sorted(inside, key=lambda n: numbers[n])
        for place, source in zip(inside, order, strict=True):
            shuffled[place] = tokens[source]
    return shuffled


def shuffled_over_all(tokens, sequences, numbers):
    """You shuffle over all sequences. Then the null also destroys the differences between replies,
    and a preference for a kind of reply looks like one for a token.
    """
    return my_shuffle(tokens, [0] * len(tokens), numbers)


def not_shuffled(tokens, sequences, numbers):
    """Your tokens keep their places, so the null equals the data."""
    return list(tokens)


def sorted_tokens(tokens, sequences, numbers):
    """You sort the tokens themselves. Their order must come from the random numbers: a sorted null
    has a pattern of its kind.
    """
    return my_shuffle(tokens, sequences, tokens)


def drawn_with_replacement(tokens, sequences, numbers):
    """You draw tokens with replacement. A shuffle keeps every token of the sequence exactly once,
    so its frequency stays the same.
    """
    drawn = []
    for sequence, number in zip(sequences, numbers, strict=True):
        inside = [t for t, each in zip(tokens, sequences, strict=True) if each == sequence]
        drawn.append(inside[int(number * len(inside))])
    return drawn


def sequences_shuffled(tokens, sequences, numbers):
    """You move whole sequences and leave their tokens in order. Neighbors stay together, so a
    preference for a part of the text survives in the null.
    """
    first = {}
    for sequence, number in zip(sequences, numbers, strict=True):
        first.setdefault(sequence, number)
    order = sorted(range(len(tokens)), key=lambda n: (first[sequences[n]], n))
    return [tokens[n] for n in order]


def sequences_joined(tokens, sequences, numbers):
    """You put the sequences one after the other. The positions of a sequence need not be neighbors,
    and its tokens must stay at them.
    """
    order = sorted(range(len(tokens)), key=lambda n: (sequences[n], numbers[n]))
    return [tokens[n] for n in order]


def shuffle_cases() -> Iterator[tuple]:
    """Sequences of several lengths; their positions are mixed in the last cases."""
    for seed in range(5):
        rng = Random(seed)
        sequences = [n for n, length in enumerate((5, 1, 9, 4)) for _ in range(length)]
        if seed > 2:
            rng.shuffle(sequences)
        tokens = [rng.choice("0123+*=") for _ in sequences]
        yield tokens, sequences, [rng.random() for _ in sequences]


def my_p_value(observed, null):
    """How often a null is at least as large as the observed value.

    observed: a number. null: the same number for each of several shuffles. The observed value
    counts as one more member of the null, so the result is above 0. Returns a float.
    """
    return (1 + sum(each >= observed for each in null)) / (1 + len(null))


def without_the_observed(observed, null):
    """Your value can be 0. No number of shuffles shows that something is impossible: count the
    observed value as one more member of the null.
    """
    return sum(each >= observed for each in null) / len(null)


def ties_left_out(observed, null):
    """You do not count ties. A shuffle that gives the same value is as extreme as the observed."""
    return (1 + sum(each > observed for each in null)) / (1 + len(null))


def wrong_tail(observed, null):
    """You count the small values. A high lift is surprising if the null is rarely that high."""
    return (1 + sum(each <= observed for each in null)) / (1 + len(null))


def share_below(observed, null):
    """You return how often the null is smaller. The question is how often it is at least as large:
    a small result is evidence against the null.
    """
    return sum(each < observed for each in null) / (1 + len(null))


def observed_only_in_the_count(observed, null):
    """You add the observed value to the count but not to the number of values, so your result can
    be above 1.
    """
    return (1 + sum(each >= observed for each in null)) / len(null)


def p_value_cases() -> Iterator[tuple]:
    """Nulls without, with some and with only values as large as the observed, ties, and signs."""
    yield 5.0, [1.0, 1.2, 0.9, 1.1]
    yield 1.0, [1.5, 1.0, 0.5, 1.0, 0.25]
    yield 0.5, [1.0, 2.0, 0.5]
    yield 1.25, [n / 8 for n in range(20)]
    yield -0.5, [-2.0, -1.0, 0.25, 2.0]


SHEET = Sheet(
    lesson="11_routing",
    title="Exercises: routing",
    text="Read [11_routing](../11_routing.ipynb) first. Plain lists are enough here.",
    exercises=(
        Exercise(
            title="A lift",
            text=(
                "Divide two shares of a token: among the positions that chose an expert, and among"
                " all positions. A lift of 1 is no preference."
            ),
            solution=my_lift,
            cases=lift_cases,
            misconceptions=(
                not_divided,
                other_way_round,
                against_an_even_share,
                first_choice_only,
                difference_of_shares,
            ),
            hints=(
                "Two shares of the same token: among the positions that chose the expert, and among"
                " all positions.",
                "`experts` and `tokens` have one entry per position; an entry of `experts` is a"
                " list.",
                "Collect the tokens of the positions where `expert in ids`; count the token there"
                " and divide by their number; divide by tokens.count(token) / len(tokens).",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="A null",
            text=(
                "Shuffle the tokens inside each reply. The experts stay in place, so no expert can"
                " have a preference, and everything else is as in the data."
            ),
            solution=my_shuffle,
            cases=shuffle_cases,
            misconceptions=(
                shuffled_over_all,
                not_shuffled,
                sorted_tokens,
                drawn_with_replacement,
                sequences_shuffled,
                sequences_joined,
            ),
            hints=(
                "Work on one sequence at a time. What must stay the same, and what may move?",
                "The positions of a sequence are the n with `sequences[n] == sequence`; they need"
                " not be neighbors.",
                "Sort these positions by their random numbers; the first position gets the token of"
                " the first in that order, and so on.",
            ),
            minutes=10,
            difficulty=2,
        ),
        Exercise(
            title="The data against the null",
            text=(
                "You have one observed value and the values of many shuffles. Return the share of"
                " all these values that are at least as large as the observed one."
            ),
            solution=my_p_value,
            cases=p_value_cases,
            misconceptions=(
                without_the_observed,
                ties_left_out,
                wrong_tail,
                share_below,
                observed_only_in_the_count,
            ),
            hints=(
                "If no shuffle is as large, may the answer be 0? What if you had made one shuffle?",
                "`null` is a list of n numbers; with the observed value there are n + 1.",
                "(1 + how many of the null are at least the observed value) / (1 + n)",
            ),
            minutes=5,
            difficulty=1,
        ),
    ),
)
