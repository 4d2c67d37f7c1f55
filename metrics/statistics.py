"""The figures that two sets of features, or one of class probabilities, come to.  Pure NumPy and SciPy, in float64.

Features are [N, D], a row a picture.  `docs/metrics.md` says what each figure means and how many pictures it wants.
"""

from collections.abc import Iterator

import numpy as np
import scipy.linalg

KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1000  # at most; as published code for StyleGAN has them
SCORE_SPLITS = 10
ROWS_AT_A_TIME = 256  # of distances


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """Fréchet distance of the Gaussians with the moments of two sets of features (Heusel 2017).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½).  The trace of the root is that of the symmetric (C1^½ C2 C1^½)^½, which has the
    same eigenvalues and stays real where the covariances are singular, as they are for fewer pictures than features.
    """
    (mean1, cov1), (mean2, cov2) = moments(real), moments(made)
    root = matrix_root(cov1)
    product = scipy.linalg.eigvalsh(root @ cov2 @ root)
    difference = mean1 - mean2
    return float(difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(product.clip(min=0)).sum())


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] of features; ValueError for fewer than two."""
    if len(features) < 2:
        raise ValueError("one picture has no covariance")
    features = np.asarray(features, dtype=np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def matrix_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a symmetric matrix whose eigenvalues are at least 0, but for rounding."""
    values, vectors = scipy.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def kernel_distance(real: np.ndarray, made: np.ndarray, seed: int = 0) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x·y / D + 1)³ (Bińkowski 2018).

    The mean over KERNEL_SUBSETS pairs of random subsets.  They overlap, so that their deviation does not tell how far the
    mean is off.
    """
    size = min(len(real), len(made), KERNEL_SUBSET_SIZE)
    if size < 2:
        raise ValueError("one picture has no pairs")
    rng = np.random.default_rng(seed)
    return float(
        np.mean([_discrepancy(*(_subset(rng, set_of, size) for set_of in (real, made))) for _ in range(KERNEL_SUBSETS)])
    )


def _subset(rng: np.random.Generator, features: np.ndarray, size: int) -> np.ndarray:
    return features[rng.choice(len(features), size, replace=False)].astype(np.float64)


def _discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    size, width = first.shape

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / width + 1) ** 3

    own = sum((k.sum() - np.trace(k)) / (size * (size - 1)) for k in (kernel(first, first), kernel(second, second)))
    return float(own - 2 * kernel(first, second).mean())


def precision_recall(real: np.ndarray, made: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Shares in [0, 1] of made features near real ones, and of real ones near made ones (Kynkäänniemi 2019).

    Near is nearer to some feature of the other set than that one's neighbour number `neighbours` in its own set.
    """
    if min(len(real), len(made)) <= neighbours:
        raise ValueError(f"{neighbours} neighbours want more pictures than that")
    return _share_near(made, real, neighbours), _share_near(real, made, neighbours)


def _share_near(asked: np.ndarray, manifold: np.ndarray, neighbours: int) -> float:
    radii = np.concatenate(
        [np.partition(rows, neighbours, axis=1)[:, neighbours] for rows in _distances(manifold, manifold)]  # 0 is itself
    )
    return float(np.concatenate([(rows <= radii).any(axis=1) for rows in _distances(asked, manifold)]).mean())


def _distances(first: np.ndarray, second: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances [n, len(second)] of ROWS_AT_A_TIME features of `first` after the other."""
    second = second.astype(np.float64)
    lengths = np.square(second).sum(axis=1)
    for start in range(0, len(first), ROWS_AT_A_TIME):
        rows = first[start : start + ROWS_AT_A_TIME].astype(np.float64)
        yield (np.square(rows).sum(axis=1)[:, None] + lengths - 2 * rows @ second.T).clip(min=0)


def inception_score(probabilities: np.ndarray, splits: int = SCORE_SPLITS) -> tuple[float, float]:
    """exp of the mean divergence of each picture's classes [N, K] from those of all (Salimans 2016).

    The mean over `splits` parts, and the deviation among them, as published.
    """
    if len(probabilities) < splits:
        raise ValueError(f"{splits} parts want that many pictures")
    scores = []
    for part in np.array_split(np.asarray(probabilities, dtype=np.float64), splits):
        divergence = part * (np.log(part.clip(min=1e-30)) - np.log(part.mean(axis=0).clip(min=1e-30)))
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def effective_number(similarities: np.ndarray) -> float:
    """How many different things there are among N: the Vendi score (Friedman 2023), exp of the entropy of K / N.

    `similarities` K is a positive semi-definite kernel [N, N] with ones on its diagonal: 1 where all are the same, N where
    nothing is like anything else.
    """
    values = scipy.linalg.eigvalsh(similarities / len(similarities)).clip(min=0)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))
