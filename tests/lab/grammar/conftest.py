"""Ways through a grammar without a model."""

import pytest


@pytest.fixture(scope="session")
def walk():
    """`walk(constraint, draw, specials, longest)`: the ids of a random reply, without a model.

    Every id is drawn from the mask. One in five is a special token, if there is one in the mask.
    """

    def take(constraint, draw, specials, longest=2000):
        ids = []
        while len(ids) < longest:
            allowed = constraint.allowed().nonzero()[:, 0].tolist()
            if not allowed:  # the turn has ended
                break
            special = [id for id in allowed if id in specials.names]
            pool = special if special and draw.random() < 0.2 else allowed
            ids.append(draw.choice(pool))
            constraint.accept(ids[-1])
        return ids

    return take


@pytest.fixture(scope="session")
def accept_text():
    """`accept_text(constraint, encoding, text)`: accept the ids of a text with special tokens."""

    def accept(constraint, encoding, text):
        for id in encoding.encode(text, allowed_special="all"):
            constraint.accept(id)

    return accept
