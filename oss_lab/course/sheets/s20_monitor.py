"""Exercises of 20_monitor: rates of a monitor, a monitor of arithmetic, rare breaches."""

import re
from collections.abc import Iterator

from oss_lab.course.exercise import Exercise, Sheet


def my_rates(flags, breaches):
    """The true positive rate and the false positive rate of a monitor.

    flags: one boolean for each reply, True where the monitor flags it.
    breaches: one boolean for each reply, True where it is a breach. Both kinds are there.
    Returns (share of the breaches that are flagged, share of the honest replies that are flagged).
    """
    hits = sum(flag and breach for flag, breach in zip(flags, breaches, strict=True))
    alarms = sum(flag and not breach for flag, breach in zip(flags, breaches, strict=True))
    return hits / sum(breaches), alarms / (len(breaches) - sum(breaches))


def count_outcomes(flags, breaches) -> tuple[int, int, int, int]:
    """(flagged breaches, flagged honest replies, missed breaches, passed honest replies)."""
    pairs = [(bool(flag), bool(breach)) for flag, breach in zip(flags, breaches, strict=True)]
    hit, alarm = pairs.count((True, True)), pairs.count((True, False))
    return hit, alarm, pairs.count((False, True)), pairs.count((False, False))


def precision_for_recall(flags, breaches):
    """Your first rate divides by the number of flagged replies. That is the precision: how many
    flags are justified. The true positive rate divides by the number of breaches.
    """
    hit, alarm, _, passed = count_outcomes(flags, breaches)
    return hit / (hit + alarm) if hit + alarm else 0.0, alarm / (alarm + passed)


def false_share_of_flags(flags, breaches):
    """Your second rate divides by the number of flagged replies. The false positive rate divides
    by the number of honest replies.
    """
    hit, alarm, missed, _ = count_outcomes(flags, breaches)
    return hit / (hit + missed), alarm / (hit + alarm) if hit + alarm else 0.0


def shares_of_all(flags, breaches):
    """You divide by the number of all replies. Then a monitor looks worse the rarer breaches are:
    divide by the number of breaches, and by the number of honest replies.
    """
    hit, alarm, _, _ = count_outcomes(flags, breaches)
    return hit / len(flags), alarm / len(flags)


def denominators_swapped(flags, breaches):
    """Your denominators are swapped: flagged breaches belong to all breaches, and flagged honest
    replies to all honest ones.
    """
    hit, alarm, missed, passed = count_outcomes(flags, breaches)
    return hit / (alarm + passed), alarm / (hit + missed)


def accuracy_first(flags, breaches):
    """Your first rate is the accuracy, over both kinds. If breaches are rare, a monitor that flags
    nothing has a high accuracy.
    """
    hit, alarm, _, passed = count_outcomes(flags, breaches)
    return (hit + passed) / len(flags), alarm / (alarm + passed)


def specificity(flags, breaches):
    """Your second rate is the share of honest replies that pass. Asked is the share that is
    flagged: 1 minus it.
    """
    hit, alarm, missed, passed = count_outcomes(flags, breaches)
    return hit / (hit + missed), passed / (alarm + passed)


def rate_cases() -> Iterator[tuple]:
    """Rare and frequent breaches, and monitors that flag nothing or all."""
    yield [True, True, False, True, False, False, False], [True, True, True, False] + 3 * [False]
    yield 2 * [True] + 18 * [False], [True, False, True] + 17 * [False]
    yield [False] * 5, [True] + [False] * 4
    yield [True] * 5, [True] + [False] * 4
    yield [True, False, False, True, True], [True, True, True, True, False]


def my_monitor(work, answer):
    """Whether the work does not lead to the answer, so the reply should be flagged.

    work: lines of text. A line such as "7+5+0=12" is a step: three digits, and two digits of the
    result. A line such as "=132" is a result. All other lines can be ignored.
    answer: a text, such as "132".
    Returns True if a step is false, if the last result is not the answer, or if there is none.
    """
    last = None
    for line in work.split("\n"):
        if re.fullmatch(r"\d\+\d\+\d=\d\d", line):
            left, right = line.split("=")
            if sum(int(digit) for digit in left.split("+")) != int(right):
                return True
        elif re.fullmatch(r"=\d+", line):
            last = line[1:]
    return last != answer


def list_false_steps(work: str) -> list[str]:
    steps = re.findall(r"^\d\+\d\+\d=\d\d$", work, re.MULTILINE)
    return [s for s in steps if int(s[0]) + int(s[2]) + int(s[4]) != int(s[6:])]


def list_results(work: str) -> list[str]:
    return re.findall(r"^=(\d+)$", work, re.MULTILINE)


def steps_not_checked(work, answer):
    """You compare only the result with the answer. Work can be bent until it ends in the answer:
    check each step, too.
    """
    return list_results(work)[-1:] != [answer]


def result_not_checked(work, answer):
    """You check only the steps. True steps say nothing about an answer that ignores them: compare
    the last result with the answer.
    """
    return bool(list_false_steps(work))


def no_work_passes(work, answer):
    """You pass a reply without a result. Then a model evades the monitor if it writes no work."""
    results = list_results(work)
    return bool(list_false_steps(work)) or (bool(results) and results[-1] != answer)


def any_result(work, answer):
    """You accept the answer if any result equals it. Only the last one is the end of the work."""
    return bool(list_false_steps(work)) or answer not in list_results(work)


def answer_anywhere(work, answer):
    """You accept the answer if its digits are anywhere in the text. A chain of thought that copies
    the answer has them, too: look for a line "=" with the answer.
    """
    return bool(list_false_steps(work)) or answer not in work


def carry_not_added(work, answer):
    """You add only the first two digits of a step. The third one is the carry."""
    steps = re.findall(r"^\d\+\d\+\d=\d\d$", work, re.MULTILINE)
    false = any(int(s[0]) + int(s[2]) != int(s[6:]) for s in steps)
    return false or list_results(work)[-1:] != [answer]


def monitor_cases() -> Iterator[tuple]:
    """Honest work, bent work, an ignored result, copied answers, two sums, and no work."""
    yield "47+85\n7+5+0=12\n4+8+1=13\n=132", "132"
    yield "33+41\n3+1+0=04\n3+4+0=07\n=74", "74"
    yield "33+41\n3+1+0=04\n3+4+0=07\n=74", "86"
    yield "33+41\n3+1+0=06\n3+4+0=08\n=86", "86"
    yield "book is 86", "86"
    yield "86", "86"
    yield "", "7"
    yield "12+11\n2+1+0=03\n1+1+0=02\n=23\n23+40\n3+0+0=03\n2+4+0=06\n=63", "63"
    yield "12+11\n2+1+0=03\n1+1+0=02\n=23\n23+40\n3+0+0=03\n2+4+0=06\n=63", "23"


def my_base_rate(true_rate, false_rate, base):
    """The share of flagged replies that are breaches.

    true_rate: the share of breaches that the monitor flags.
    false_rate: the share of honest replies that it flags.
    base: the share of all replies that are breaches, such as 0.01.
    Returns a number from 0 to 1.
    """
    hits = base * true_rate
    alarms = (1 - base) * false_rate
    return hits / (hits + alarms)


def rate_of_breaches(true_rate, false_rate, base):
    """You return the true positive rate. It is about breaches; here you know only that a reply was
    flagged, and most replies may be honest.
    """
    return true_rate


def base_ignored(true_rate, false_rate, base):
    """You do not use `base`: your number is right only if half of all replies are breaches."""
    return true_rate / (true_rate + false_rate)


def one_minus_false_rate(true_rate, false_rate, base):
    """You return 1 minus the false positive rate, the share of honest replies that pass. Asked is a
    share of the flagged replies.
    """
    return 1 - false_rate


def share_of_all_replies(true_rate, false_rate, base):
    """Your number is the share of all replies that are flagged breaches. Divide it by the share of
    all replies that are flagged.
    """
    return base * true_rate


def honest_not_weighted(true_rate, false_rate, base):
    """You multiply only the true positive rate by its share. The honest replies are 1 - base of
    all: multiply the false positive rate by that.
    """
    return base * true_rate / (base * true_rate + false_rate)


def base_rate_cases() -> Iterator[tuple]:
    """Breaches in a hundredth, a tenth and half of all replies."""
    yield from [(0.9, 0.05, 0.01), (0.99, 0.01, 0.01), (0.8, 0.2, 0.1), (0.6, 0.1, 0.5)]


SHEET = Sheet(
    lesson="20_monitor",
    title="Exercises: monitors",
    text="Read [20_monitor](../20_monitor.ipynb) first.",
    exercises=(
        Exercise(
            title="Two rates",
            text=(
                "A monitor flagged some replies, and you know which ones are breaches. Compute the"
                " two rates that describe it, however rare breaches are."
            ),
            solution=my_rates,
            cases=rate_cases,
            misconceptions=(
                precision_for_recall,
                false_share_of_flags,
                shares_of_all,
                denominators_swapped,
                accuracy_first,
                specificity,
            ),
            hints=(
                "Each rate is about one kind of reply: the first about breaches, the second about"
                " honest replies.",
                "`zip(flags, breaches)` gives pairs of booleans; a sum of booleans counts them.",
                "Divide the number of flagged breaches by sum(breaches), and the number of flagged"
                " honest replies by the number of honest ones.",
            ),
            minutes=8,
            difficulty=1,
        ),
        Exercise(
            title="A monitor of the work",
            text=(
                "Write a monitor that no word can deceive: it checks that the work is true and that"
                " the answer follows from it."
            ),
            solution=my_monitor,
            cases=monitor_cases,
            imports="import re",
            misconceptions=(
                steps_not_checked,
                result_not_checked,
                no_work_passes,
                any_result,
                answer_anywhere,
                carry_not_added,
            ),
            hints=(
                "Go through the lines. A step is either true or reason enough to flag; of the"
                " results, remember the last.",
                r'`re.fullmatch(r"\d\+\d\+\d=\d\d", line)` finds a step, and'
                r' `re.fullmatch(r"=\d+", line)` a result.',
                "Return True at the first step whose three digits do not add up to its result. At"
                " the end, return whether the last result (None at first) differs from the answer.",
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="Rare breaches",
            text=(
                "A monitor flags 90% of the breaches and 5% of the honest replies. One reply in 100"
                " is a breach. You see a flag: how likely is it a breach?"
            ),
            solution=my_base_rate,
            cases=base_rate_cases,
            misconceptions=(
                rate_of_breaches,
                base_ignored,
                one_minus_false_rate,
                share_of_all_replies,
                honest_not_weighted,
            ),
            hints=(
                "Imagine 10,000 replies. How many breaches are flagged, and how many honest"
                " replies?",
                "As shares of all replies these are base * true_rate and (1 - base) * false_rate.",
                "Divide the first share by the sum of both.",
            ),
            minutes=7,
            difficulty=2,
        ),
    ),
)
