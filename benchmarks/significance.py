"""Test the significance of a score by the tail of its own scene, on fields with known tails.

    python benchmarks/significance.py [--side 1024]

The tail is a generalised Pareto distribution, fitted to the histogram of the pixels between two
quantiles, so that planted targets do not change the fit (Broadwater and Chellappa 2010). Pixels
above the upper quantile are censored (only their number is used) or not used at all. The fit gives
the value that a share of 1e-4 or 1e-6 of the pixels should exceed. The known distribution gives the
share that does exceed it. The fit holds if both shares agree within a factor of 1.5 at 1e-4 and 3
at 1e-6.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from itertools import product

import numpy as np
from scipy import ndimage, optimize, special, stats

Field = tuple[Callable[[np.random.Generator, int, float], np.ndarray], Callable[[float], float]]
SHARES = {1e-4: 1.5, 1e-6: 3.0}
"""Wanted shares, and the factor by which a realised one may differ."""
RANGES = {"0.80 to 0.93": (0.80, 0.93), "0.980 to 0.998": (0.980, 0.998)}
"""Quantiles between which pixels are not censored."""
PLANTED = (0.0, 0.001, 0.01, 0.05)
WIDTHS = (1.0, 5.0)
"""Width of the correlation [px]."""
BINS = 400


def gaussian(rng: np.random.Generator, side: int, width: float) -> np.ndarray:
    """Return a standard normal field, correlated over ``width`` px."""
    field = rng.normal(size=(side, side))
    if width:
        field = ndimage.gaussian_filter(field, width, mode="wrap")
    return field / field.std()


def by(distribution: stats.rv_continuous) -> Field:
    """Return a field whose values have a distribution, ranked like those of a Gaussian field."""
    return (
        lambda rng, side, width: distribution.isf(stats.norm.sf(gaussian(rng, side, width))),
        distribution.sf,
    )


def k_field(rng: np.random.Generator, side: int, width: float, shape: float = 2) -> np.ndarray:
    """Return intensities of K-distributed sea clutter: a gamma texture times speckle."""
    texture = stats.gamma(shape).isf(stats.norm.sf(gaussian(rng, side, width)))
    return texture * stats.expon.isf(stats.norm.sf(gaussian(rng, side, width)))


def k_survival(value: float, shape: float = 2) -> float:
    """Return the share of such intensities above ``value``."""
    root = np.sqrt(max(value, 0.0))
    if not np.isfinite(root):
        return 0.0
    return float(2 / special.gamma(shape) * root**shape * special.kv(shape, 2 * root))


FIELDS: dict[str, Field] = {
    "Gaussian": by(stats.norm()),
    "exponential": by(stats.expon()),
    "Student, 5": by(stats.t(5)),
    "gamma, 2": by(stats.gamma(2)),
    "K, 2": (k_field, k_survival),
}


def fitted(
    values: np.ndarray, low: float, high: float, *, censored: bool
) -> Callable[[float], float]:
    """Return the value that a share of pixels exceeds, by a fit between two quantiles."""
    start, end = np.quantile(values, [low, high])
    edges = np.linspace(0, end - start, BINS + 1)
    counts, _ = np.histogram(values - start, edges)
    beyond = (1 - high) * values.size if censored else 0.0

    def surprise(parameters: np.ndarray) -> float:
        shape, scale = parameters[0], np.exp(parameters[1])
        survival = stats.genpareto.sf(edges, shape, scale=scale)
        parts = np.maximum(-np.diff(survival), 1e-300)
        if not censored:
            parts /= parts.sum()
        return float(-(counts @ np.log(parts) + beyond * np.log(max(survival[-1], 1e-300))))

    begin = np.array([0.0, np.log(end - start)])
    shape, scale = optimize.minimize(surprise, begin, method="Nelder-Mead").x
    inside = stats.genpareto.cdf(edges[-1], shape, scale=np.exp(scale))
    above = (1 - low) if censored else (high - low) / max(inside, 1e-9)
    return lambda share: float(
        start + stats.genpareto.isf(min(share / above, 1), shape, scale=np.exp(scale))
    )


def main() -> None:
    """Fit each field in each way, print how many cases hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    side = parser.parse_args().side
    ways = list(product(RANGES, (True, False)))
    held: Counter[tuple[str, bool, float, float]] = Counter()
    for number, (name, width, planted) in enumerate(product(FIELDS, WIDTHS, PLANTED)):
        make, survival = FIELDS[name]
        rng = np.random.default_rng(number)
        values = make(rng, side, width).ravel()
        top, middle = values.max(), np.median(values)
        hit = rng.random(values.size) < planted
        values[hit] = top + (top - middle) * rng.random(np.count_nonzero(hit))
        for words, censored in ways:
            exceeded = fitted(values, *RANGES[words], censored=censored)
            for share, factor in SHARES.items():
                ratio = survival(exceeded(share)) / share
                held[words, censored, share, planted] += 1 / factor <= ratio <= factor
    cases = len(FIELDS) * len(WIDTHS)
    print(f"cases of {cases} that hold, with {', '.join(f'{p:.1%}' for p in PLANTED)} planted")
    for (words, censored), share in product(ways, SHARES):
        kind = "censored" if censored else "unseen"
        counts = ", ".join(str(held[words, censored, share, planted]) for planted in PLANTED)
        print(f"  quantiles {words}, {kind} above, share {share:g}: {counts}")


if __name__ == "__main__":
    main()
