"""Predict, then run: a guess before a result, and how well the guesses were calibrated.

    predict("tokens_of_347", 1, sure=0.7)     # 0.5 is a coin toss, 1 is certain
    reveal("tokens_of_347", len(ids))         # 3: you predicted 1, and were 70% sure
    calibration()

A guess is a number, a range such as `(10, 20)`, a text or True and False. The three dots of an
untouched cell are no guess. Guesses are stored in the learner's progress file only.
"""

import sys
from typing import Any

from oss_lab.course.progress import read_progress, record
from oss_lab.errors import LabError, shorten, show_safely


def predict(name: str, guess: Any, sure: float = 0.5) -> None:
    """Store a guess; `sure` is the probability that you give it, from 0 to 1.

    Raises:
        LabError: the name, the guess or `sure` is none of the accepted forms.
    """
    if not isinstance(name, str):
        raise LabError(f"the name of a prediction is a text, got {shorten(show_safely(name), 40)}")
    if guess is ...:
        print(f"{name}: no prediction yet. Replace the three dots with your guess.")
        return
    if not is_guess(guess):
        raise LabError(
            "a guess is a number, a range such as (10, 20), a text, True or False; got"
            f" {shorten(show_safely(guess), 40)}"
        )
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1:
        raise LabError(f"sure is a probability from 0 to 1, got {sure!r}")
    stored = list(guess) if isinstance(guess, tuple) else guess
    record("predictions", name, lambda earlier: {"guess": stored, "sure": sure})
    print(f"{name}: you predict {show_guess(stored)}, {sure:.0%} sure. Now run the next cell.")


def reveal(name: str, result: Any) -> None:
    """Print the result next to the stored guess, and store whether the guess was right."""
    if getattr(result, "ndim", None) == 0:  # one number of NumPy or torch
        result = result.item()
    entry = read_progress()["predictions"].get(name)
    if entry is None:
        print(f"{name}: {show(result)}")
        return
    is_hit = is_right(entry["guess"], result)
    record("predictions", name, lambda earlier: (earlier or entry) | {"right": is_hit})
    verdict = "right" if is_hit else "not right"
    guess, sure = show_guess(entry["guess"]), f"{entry['sure']:.0%} sure"
    print(f"{name}: {show(result)}. You predicted {guess}, {sure}: {verdict}.")


def calibration() -> None:
    """Compare how sure you were with how often you were right, over all notebooks so far."""
    made = [each for each in read_progress()["predictions"].values() if "right" in each]
    if not made:
        print("No predictions yet.")
        return
    right = sum(each["right"] for each in made) / len(made)
    sure = sum(each["sure"] for each in made) / len(made)
    brier = sum((each["sure"] - each["right"]) ** 2 for each in made) / len(made)
    print(f"{len(made)} predictions: you were {sure:.0%} sure on average, and {right:.0%} right.")
    print(f"Brier score {brier:.2f} (0 is perfect; always saying 50% gives 0.25).")


def is_guess(guess: Any) -> bool:
    ends = guess if isinstance(guess, tuple) and len(guess) == 2 else (guess,)
    return isinstance(guess, str) or all(map(is_finite_number, ends))


def is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < sys.float_info.max


def is_right(guess: Any, result: Any) -> bool:
    """Whether the result is the guess, or in its range. True and 1 differ, as do 3 and "3"."""
    if isinstance(guess, str):
        names = {each.strip().casefold() for each in (str(result), show(result))}
        return guess.strip().casefold() in names
    if isinstance(result, bool) or isinstance(guess, bool):
        return guess is result
    low, high = sorted(guess) if isinstance(guess, list) else (guess, guess)
    return isinstance(result, int | float) and low <= result <= high


def show_guess(guess: Any) -> str:
    return f"{guess[0]} to {guess[1]}" if isinstance(guess, list) else show(guess)


def show(value: Any) -> str:
    return "yes" if value is True else "no" if value is False else str(value)
