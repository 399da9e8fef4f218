"""Predict, then run: a guess before a result, and how well the guesses were calibrated.

    predict("tokens_of_347", 1, sure=0.7)     # 0.5 is a coin toss, 1 is certain
    reveal("tokens_of_347", len(ids))         # 3: you predicted 1, and were 70% sure
    calibration()

A guess is a number, a range such as `(10, 20)`, a text or True and False. The three dots of an
untouched cell are no guess. Guesses are stored in the learner's progress file only.
"""

from typing import Any

from oss_lab.course.progress import read_progress, record
from oss_lab.errors import LabError


def predict(name: str, guess: Any, sure: float = 0.5) -> None:
    """Store a guess; `sure` is the probability that you give it, from 0 to 1.

    Raises:
        LabError: the guess or `sure` is none of the accepted forms.
    """
    if guess is ...:
        print(f"{name}: no prediction yet. Replace the three dots with your guess.")
        return
    if not is_guess(guess):
        raise LabError(
            f"a guess is a number, a range such as (10, 20), a text, True or False; got {guess!r}"
        )
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0 <= sure <= 1:
        raise LabError(f"sure is a probability from 0 to 1, got {sure!r}")
    stored = list(guess) if isinstance(guess, tuple) else guess
    record("predictions", name, {"guess": stored, "sure": sure})
    print(f"{name}: you predict {show(stored)}, {sure:.0%} sure. Now run the next cell.")


def reveal(name: str, result: Any) -> None:
    """Print the result next to the stored guess, and store whether the guess was right."""
    entry = read_progress()["predictions"].get(name)
    if entry is None:
        print(f"{name}: {show(result)}")
        return
    entry["right"] = is_right(entry["guess"], result)
    record("predictions", name, entry)
    verdict = "right" if entry["right"] else "not right"
    guess, sure = show(entry["guess"]), f"{entry['sure']:.0%} sure"
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
    if isinstance(guess, tuple):
        return len(guess) == 2 and all(isinstance(end, int | float) for end in guess)
    return isinstance(guess, int | float | str)


def is_right(guess: Any, result: Any) -> bool:
    if isinstance(guess, list):
        return min(guess) <= result <= max(guess)
    if isinstance(guess, str):
        return guess.strip().casefold() == str(result).strip().casefold()
    return guess == result


def show(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]} to {value[1]}"
    return "yes" if value is True else "no" if value is False else str(value)
