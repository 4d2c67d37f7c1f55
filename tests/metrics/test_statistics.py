"""Distances, shares and numbers whose answer is known, and second implementations of them."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from metrics import statistics


def with_moments(rng, count, mean, covariance):
    """Features [count, D] with exactly this mean and covariance."""
    raw = rng.standard_normal([count, len(mean)])
    raw -= raw.mean(axis=0)
    raw = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return raw @ scipy.linalg.sqrtm(covariance).real.T + mean


def random_covariance(rng, width):
    root = rng.standard_normal([width, width])
    return root @ root.T + 0.1 * np.eye(width)


def test_gaussians_of_known_distance():
    """Along common axes the distance is that of the means plus that of the deviations."""
    rng = np.random.default_rng(0)
    means, deviations = np.array([[0, 1, 2.0], [3, 1, 0]]), np.array([[1, 2, 0.5], [2, 2, 1]])
    features = [with_moments(rng, 50, mean, np.diag(d**2)) for mean, d in zip(means, deviations)]
    assert statistics.frechet_distance(*features) == pytest.approx((9 + 4) + (1 + 0.25), rel=1e-9)
    assert statistics.frechet_distance(features[0], features[0]) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_is_that_of_the_matrix_square_root():
    rng = np.random.default_rng(1)
    means, covariances = rng.standard_normal([2, 6]), [random_covariance(rng, 6) for _ in range(2)]
    features = [with_moments(rng, 40, *pair) for pair in zip(means, covariances)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    assert statistics.frechet_distance(*features) == pytest.approx(expected, rel=1e-8)


def test_fewer_pictures_than_features_have_a_distance_all_the_same():
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal([5, 30]), rng.standard_normal([7, 30]) + 1
    # In the plane that the features span the covariances are small, and the nuclear norm of a product is the trace of the root.
    halves = [(f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in (first, second)]
    root = scipy.linalg.svdvals(halves[0] @ halves[1].T).sum()
    expected = np.square(first.mean(axis=0) - second.mean(axis=0)).sum() + sum(np.square(h).sum() for h in halves) - 2 * root
    assert statistics.frechet_distance(first, second) == pytest.approx(expected, rel=1e-7)


def test_the_kernel_distance_is_the_unbiased_one():
    rng = np.random.default_rng(3)
    real, made = rng.standard_normal([6, 4]), rng.standard_normal([6, 4]) + 0.5

    def mean(pairs):
        return np.mean([(a @ b / 4 + 1) ** 3 for a, b in pairs])

    own = sum(mean(itertools.permutations(group, 2)) for group in (real, made))
    expected = own - 2 * mean(itertools.product(real, made))
    assert statistics.kernel_distance(real, made) == pytest.approx(expected)  # each subset is the whole


def test_the_kernel_distance_of_one_law_is_zero_on_average():
    rng = np.random.default_rng(4)
    sets = rng.standard_normal([3, 3000, 8])
    near, far = statistics.kernel_distance(*sets[:2]), statistics.kernel_distance(sets[0], sets[2] + 1)
    assert abs(near) < 0.03 < far


def test_precision_and_recall_of_known_sets():
    rng = np.random.default_rng(5)
    real = rng.uniform(0, 1, [400, 2])
    assert statistics.precision_recall(real, real) == (1, 1)
    assert statistics.precision_recall(real, real + 10) == (0, 0)
    left = rng.uniform(0, 1, [400, 2]) * (0.5, 1)  # right, but only one half
    precision, recall = statistics.precision_recall(real, left)
    assert precision > 0.9 and recall == pytest.approx(0.5, abs=0.08)


def test_neighbours_at_the_very_same_place_are_themselves_one_each():
    """Radii are distances to the third neighbour beside oneself: on a line 0, 1, 2, … that is 3 at the ends, 2 within."""
    line = np.arange(6.0)[:, None]
    assert statistics.precision_recall(line, np.array([[-3.0], [8.0], [-3.1], [8.1], [50.0]]))[0] == pytest.approx(2 / 5)


def test_the_score_counts_classes_that_each_picture_is_sure_of():
    sure = np.eye(5)[np.arange(100) % 5]
    assert statistics.inception_score(sure) == pytest.approx((5, 0))
    assert statistics.inception_score(np.full([100, 5], 0.2))[0] == pytest.approx(1)
    assert statistics.inception_score(sure[np.zeros(100, int)])[0] == pytest.approx(1)


def test_the_effective_number_counts_what_differs():
    assert statistics.effective_number(np.eye(7)) == pytest.approx(7)
    assert statistics.effective_number(np.ones([7, 7])) == pytest.approx(1)
    two_kinds = np.kron(np.eye(2), np.ones([3, 3]))
    assert statistics.effective_number(two_kinds) == pytest.approx(2)


@pytest.mark.parametrize(
    "function, arguments",
    [
        (statistics.frechet_distance, (np.ones([1, 3]), np.ones([5, 3]))),
        (statistics.kernel_distance, (np.ones([1, 3]), np.ones([5, 3]))),
        (statistics.precision_recall, (np.ones([3, 3]), np.ones([5, 3]))),
        (statistics.inception_score, (np.ones([3, 3]),)),
    ],
)
def test_too_few_pictures_are_refused(function, arguments):
    with pytest.raises(ValueError):
        function(*arguments)
