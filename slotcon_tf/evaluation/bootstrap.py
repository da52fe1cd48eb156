"""How sure a score is: bootstrap over images.

Every score here is a function of sums over images (of confusions, of hits, of average
precisions), so that a resample of the images is a weighted sum.

Reference: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife"; percentile
intervals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

LEVEL = 0.95
RESAMPLES = 1000


def compare(
    score: Callable[[np.ndarray], dict[str, float]],
    untrained: np.ndarray | csr_array | None,
    trained: np.ndarray | csr_array,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, list[float]]]:
    """Scores of two models on the same images, and their difference.

    Args:
        score: Function of a vector (M,), a sum over images, that returns a dict of
            floats.
        untrained, trained: (N, M), dense or sparse, a row per image; `untrained` may be
            None.
        resamples: Number of bootstrap resamples; 0 for none.
        seed: Of the resamples. Both models see the same ones, so that the difference's
            interval is that of pairs.

    Returns:
        Dict of name to a dict of "untrained", "trained" and "difference", each a list
        [value, low, high] of the percentile interval at `LEVEL`; NaN where there is
        none.

    Example:
        >>> right = np.array([[1.0, 1.0], [0.0, 1.0]])  # hits and images, of each image
        >>> share = lambda total: {"accuracy": total[0] / total[1]}
        >>> compare(share, None, right, resamples=0)
        {'accuracy': {'trained': [0.5, nan, nan]}}
    """
    rows = {"untrained": untrained, "trained": trained}
    rows = {name: counts for name, counts in rows.items() if counts is not None}
    values = {name: score(summed(counts)) for name, counts in rows.items()}
    samples = {name: [] for name in rows}
    rng, count = np.random.default_rng(seed), trained.shape[0]
    for _ in range(resamples):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        for name, counts in rows.items():
            samples[name].append(score(weights @ counts))
    found = {}
    for metric in values["trained"]:
        point = {name: values[name][metric] for name in rows}
        drawn = {name: np.array([s[metric] for s in samples[name]]) for name in rows}
        if "untrained" in rows:
            point["difference"] = point["trained"] - point["untrained"]
            drawn["difference"] = drawn["trained"] - drawn["untrained"]
        found[metric] = {
            name: [float(value), *_interval(drawn[name])]
            for name, value in point.items()
        }
    return found


def summed(counts: np.ndarray | csr_array) -> np.ndarray:
    """The sum over images: (N, M), dense or sparse, to (M,).

    Example:
        >>> summed(np.array([[1, 2], [3, 4]])).tolist()
        [4, 6]
    """
    return np.asarray(counts.sum(axis=0)).ravel()


def _interval(values):
    values = values[np.isfinite(values)]
    if not values.size:
        return [float("nan")] * 2
    tail = (1 - LEVEL) / 2
    return [float(x) for x in np.quantile(values, [tail, 1 - tail])]
