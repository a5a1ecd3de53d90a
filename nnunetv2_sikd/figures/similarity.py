"""How alike two feature maps are, with and without regard to the basis they are written in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]


def mean_squared_error(features: Features, teacher: Features) -> float:
    """Mean over pixels and features of the squared difference: the distillation loss (Eq. 3).

    Shape:
        - features, teacher: ``(pixels, features)``
    """
    return float(np.square(features - teacher).mean())


def linear_cka(features: Features, teacher: Features) -> float:
    r"""Linear centred kernel alignment, 1 for the same map in whatever basis and scale, 0 for unrelated ones.

    .. math:: \frac{\|Y^\top X\|_F^2}{\|X^\top X\|_F \, \|Y^\top Y\|_F}

    with the columns of :math:`X` and :math:`Y` centred. Orthogonal maps of the features, permutations among
    them, shifts and a common factor change nothing.

    Shape:
        - features: ``(pixels, p)``
        - teacher: ``(pixels, q)``

    Returns:
        The alignment, 0 to 1; NaN where one of the maps is constant.

    Reference:
        Kornblith et al.: Similarity of neural network representations revisited, ICML 2019, Eq. 5.
    """
    x, y = features - features.mean(0), teacher - teacher.mean(0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale > 0 else float("nan")


def rotate_onto(features: Features, teacher: Features) -> Features:
    """Features in the basis in which they come closest to the teacher's: shifted and orthogonally mapped.

    Two networks that learned the same thing may write it into other features, in another order or with other
    signs. The mean squared error counts that as difference; after this it does not.

    Shape:
        - features, teacher, result: ``(pixels, features)``

    Reference:
        Schönemann: A generalized solution of the orthogonal Procrustes problem, Psychometrika 1966.
    """
    x, y = features - features.mean(0), teacher - teacher.mean(0)
    left, _, right = np.linalg.svd(x.T @ y)
    return np.asarray(x @ (left @ right) + teacher.mean(0))


def principal_axes(features: Features, number: int) -> tuple[Features, Features]:
    """Directions of largest variance, and each one's share of the whole.

    The sign of an axis is free; here its largest entry is positive.

    Shape:
        - features: ``(pixels, p)``
        - axes: ``(p, number)``
        - shares: ``(number,)``
    """
    variances, axes = np.linalg.eigh(np.cov(features, rowvar=False))
    axes, variances = axes[:, ::-1], np.clip(variances[::-1], 0, None)
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    shares = variances / variances.sum() if variances.sum() > 0 else np.zeros_like(variances)
    return axes[:, :number], shares[:number]
