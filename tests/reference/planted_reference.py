"""Slow twin of data.planted: full Gaussian densities of x, and a sum over every sequence of classes."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.linalg import helmert
from scipy.stats import multivariate_normal


def utterance_posterior(
    features: dict[str, np.ndarray],
    mixing: list[np.ndarray],
    strengths: tuple[float, ...],
    separation: float,
    classes: int,
) -> np.ndarray:
    """p(class | x of these modalities) [N, K], from the generative equations with x = A [s; p^1; …; p^M] + noise."""
    half, count = classes - 1, len(features)
    dims = [matrix.shape[0] for matrix in mixing]
    loading = np.zeros((sum(dims), half * (1 + count)))
    start = 0
    for m, (matrix, strength) in enumerate(zip(mixing, strengths, strict=True)):
        rows = slice(start, start + dims[m])
        loading[rows, :half] = strength * matrix[:, :half]
        loading[rows, half * (1 + m) : half * (2 + m)] = strength * matrix[:, half:]
        start += dims[m]
    covariance = loading @ loading.T + np.eye(sum(dims))
    x = np.hstack(list(features.values())).astype(np.float64)
    densities = []
    for vertex in separation * helmert(classes).T:
        mean = loading @ np.tile(vertex, 1 + count)
        densities.append(multivariate_normal(mean, covariance).logpdf(x))
    scores = np.stack(densities, axis=-1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def dialogue_posterior(posterior: np.ndarray, stay: float) -> np.ndarray:
    """p(class | whole dialogue) [T, K] of one dialogue, by enumerating all K^T sequences (uniform marginals)."""
    steps, classes = posterior.shape
    result = np.zeros_like(posterior)
    for sequence in itertools.product(range(classes), repeat=steps):
        weight = 1 / classes
        for before, after in itertools.pairwise(sequence):
            weight *= stay if before == after else (1 - stay) / (classes - 1)
        for t, k in enumerate(sequence):
            weight *= posterior[t, k]
        for t, k in enumerate(sequence):
            result[t, k] += weight
    return result / result.sum(axis=-1, keepdims=True)
