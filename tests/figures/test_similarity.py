"""Similarity of feature maps, against definitions written another way."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunetv2_sikd.figures.similarity import linear_cka, mean_squared_error, principal_axes, rotate_onto


def maps(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two maps of 60 pixels and 5 features, loosely related, each with a mean."""
    random = np.random.default_rng(seed)
    teacher = random.normal(2, 1, (60, 5))
    return teacher @ random.normal(size=(5, 5)) + random.normal(0, 2, (60, 5)), teacher


def orthogonal(seed: int = 1) -> NDArray[np.float64]:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]


def test_cka_is_the_alignment_of_the_centred_kernels() -> None:
    features, teacher = maps()
    centring = np.eye(60) - 1 / 60
    k, m = (centring @ x @ x.T @ centring for x in (features, teacher))
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert linear_cka(features, teacher) == pytest.approx(expected)
    assert 0.05 < expected < 0.95


def test_cka_knows_no_basis() -> None:
    features, teacher = maps()
    assert linear_cka(teacher, teacher) == pytest.approx(1)
    assert linear_cka(3 * teacher @ orthogonal() + 7, teacher) == pytest.approx(1)
    assert linear_cka(features @ orthogonal(), teacher) == pytest.approx(linear_cka(features, teacher))
    # What weighs the features otherwise is another map.
    assert linear_cka(teacher * [100, 1, 1, 1, 1], teacher) < 0.8
    assert np.isnan(linear_cka(np.ones((60, 5)), teacher))


def test_rotation_finds_a_hidden_one_and_is_the_best() -> None:
    features, teacher = maps()
    np.testing.assert_allclose(rotate_onto(teacher @ orthogonal() - 4, teacher), teacher)
    rotated = rotate_onto(features, teacher)
    best = mean_squared_error(rotated, teacher)
    assert best < mean_squared_error(features, teacher)
    for seed in range(20):
        tried = (features - features.mean(0)) @ orthogonal(seed) + teacher.mean(0)
        assert best <= mean_squared_error(tried, teacher)
    # Lengths stay: the features are turned, not fitted.
    np.testing.assert_allclose(
        np.linalg.norm(rotated - rotated.mean(0), axis=1), np.linalg.norm(features - features.mean(0), axis=1)
    )


def test_mean_squared_error_by_hand() -> None:
    assert mean_squared_error(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 4.0]])) == 13 / 4


def test_principal_axes_are_those_of_the_singular_values() -> None:
    features, _ = maps()
    axes, shares = principal_axes(features, 2)
    _, values, right = np.linalg.svd(features - features.mean(0))
    np.testing.assert_allclose(shares, (values**2 / (values**2).sum())[:2])
    np.testing.assert_allclose(np.abs((axes * right[:2].T).sum(0)), 1)
    assert (axes[np.abs(axes).argmax(0), [0, 1]] > 0).all()
