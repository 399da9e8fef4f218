"""Sequences drawn anew: how far figures that are means over sequences might be off.

Tokens of one sequence go together, so that sequences are drawn and not tokens (the cluster
bootstrap). A figure is a quotient of two sums over sequences; a draw counts each sequence as often
as it came.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

LEVEL = 0.95
DRAWS = 1000


def quotient_interval(
    sums: Float[ndarray, "sequence *axes"],
    of: Float[ndarray, "sequence *axes"],
    seed: int,
    draws: int = DRAWS,
) -> Float[ndarray, "2 *axes"]:
    """Percentile interval at LEVEL of sum(sums) / sum(of), over draws of sequences.

    A draw in which nothing is counted is left out; NaN where no draw counts anything. With one
    sequence every draw is the same, and there is no interval: NaN.

    Args:
        of: counts or other weights; its axes may be shorter, as far as they broadcast.
    """
    n = len(sums)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws).astype(float)
    above = np.tensordot(counts, sums, 1)
    below = np.tensordot(counts, of, 1)
    below = np.broadcast_to(below, above.shape)
    drawn = np.full(above.shape, np.nan)
    np.divide(above, below, out=drawn, where=below > 0)
    bounds = np.full((2, *above.shape[1:]), np.nan)
    if n > 1 and (counted := ~np.isnan(drawn).all(0)).any():
        tail = (1 - LEVEL) / 2
        bounds[:, counted] = np.nanquantile(drawn[:, counted], (tail, 1 - tail), axis=0)
    return bounds
