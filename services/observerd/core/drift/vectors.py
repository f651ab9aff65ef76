"""What rows look like to the permutation engine: a vector a row, by kind of value.

Whatever is chosen from the data (bins, categories, bandwidth) is chosen from both sides pooled,
without their labels; that keeps the tests exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np

from services.observerd.core.drift.permutation import Effect, Floats

Kind = Literal["numeric", "categorical", "embedding", "ranking"]
KINDS: tuple[Kind, ...] = ("numeric", "categorical", "embedding", "ranking")

# Points at which the cumulative distributions of numbers are compared.
MAX_BINS = 64
# Random Fourier features per embedding (cosine and sine each for half of them).
FOURIER = 256
# Items of rankings with a dimension of their own; the rarer ones share as many more.
OWN_ITEMS = 256
# Pairs looked at for the bandwidth.
_PAIRS = 2000


class Encoded(NamedTuple):
    """Rows as vectors, the weight of each dimension, and how to measure the difference."""

    rows: Floats
    weights: Floats
    effect: Effect
    effect_name: str


def encode_numbers(values: Floats) -> Encoded:
    """Cramér-von Mises on pooled quantiles; the effect is Kolmogorov-Smirnov's distance (0..1).

    Rank-based, so that neither heavy tails nor units matter.
    """
    shares = np.arange(1, MAX_BINS + 1) / MAX_BINS
    edges = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    rows = (values[:, None] <= edges[None, :]).astype(np.float64)
    mass = np.diff(rows.mean(axis=0), prepend=0.0)
    return Encoded(rows, mass, _largest, "ks_distance")


def encode_categories(values: Sequence[str]) -> Encoded:
    """The chi-squared distance; the effect is total variation (0..1)."""
    names, codes = np.unique(np.asarray(values, dtype=np.str_), return_inverse=True)
    rows = np.zeros((len(codes), len(names)))
    rows[np.arange(len(codes)), codes] = 1.0
    return Encoded(rows, 1.0 / rows.mean(axis=0), _half_sum, "total_variation")


def encode_embeddings(values: Floats, rng: np.random.Generator) -> Encoded:
    """Maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012), which is also
    the effect (0..1.41).

    The kernel is approximated by random Fourier features (Rahimi and Recht 2007), its
    bandwidth the median distance of pooled pairs.
    """
    first, second = rng.integers(0, len(values), size=(2, _PAIRS))
    apart = np.sqrt(np.square(values[first] - values[second]).sum(axis=1))
    apart = apart[apart > 0]
    width = float(np.median(apart)) if len(apart) else 1.0
    angles = values @ rng.normal(scale=1 / width, size=(values.shape[1], FOURIER // 2))
    rows = np.hstack([np.cos(angles), np.sin(angles)]) * np.sqrt(2 / FOURIER)
    return Encoded(rows, np.ones(FOURIER), _length, "mmd")


def encode_rankings(values: Sequence[Sequence[str]]) -> Encoded:
    """How much attention each item gets, top ranks more; the effect is total variation (0..1).

    A ranking spreads a weight of 1 over its items, 1 / log2(rank + 1) each before scaling.
    """
    counts = Counter(item for ranking in values for item in ranking)
    frequent = sorted(counts, key=lambda item: (-counts[item], item))[:OWN_ITEMS]
    column = {item: at for at, item in enumerate(frequent)}
    shared = len(counts) > len(frequent)
    rows = np.zeros((len(values), len(frequent) + (OWN_ITEMS if shared else 0) + 1))
    for at, ranking in enumerate(values):
        if not ranking:
            # No result is a result: it has a dimension of its own, the last.
            rows[at, -1] = 1.0
            continue
        discounts = 1 / np.log2(np.arange(2, len(ranking) + 2))
        for item, weight in zip(ranking, discounts / discounts.sum(), strict=True):
            place = column.get(item)
            if place is None:
                place = len(frequent) + crc32(item.encode("utf-8", "replace")) % OWN_ITEMS
            rows[at, place] += weight
    return Encoded(rows, np.ones(rows.shape[1]), _half_sum, "total_variation")


def _largest(before: Floats, after: Floats) -> Floats:
    return np.asarray(np.abs(before - after).max(axis=1), dtype=np.float64)


def _half_sum(before: Floats, after: Floats) -> Floats:
    return np.asarray(np.abs(before - after).sum(axis=1) / 2, dtype=np.float64)


def _length(before: Floats, after: Floats) -> Floats:
    return np.asarray(np.sqrt(np.square(before - after).sum(axis=1)), dtype=np.float64)
