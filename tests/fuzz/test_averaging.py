"""Properties of class averages beyond those in tests/test_averaging.py: what must not matter, and what must follow."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunetv2_sikd.averaging import class_average

Case = tuple[np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Images of small whole numbers, so that means are exact enough to compare, and labels -1 to 4."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    image = draw(hnp.arrays(np.float64, (batch, channels, *shape), elements=st.integers(-100, 100).map(float)))
    return image, draw(hnp.arrays(np.int16, (batch, 1, *shape), elements=st.integers(-1, 4)))


@given(cases(), st.permutations(range(5)))
@settings(max_examples=50, deadline=None)
def test_which_value_names_a_class_does_not_matter(case: Case, names: list[int]) -> None:
    image, label = case
    label = np.maximum(label, 0)
    renamed = np.array(names, np.int16)[label]
    np.testing.assert_allclose(class_average(image, renamed), class_average(image, label), rtol=1e-12, atol=1e-12)


@given(cases(), st.floats(-8, 8), st.floats(-100, 100))
@settings(max_examples=50, deadline=None)
def test_follows_scale_and_offset_of_the_image(case: Case, scale: float, offset: float) -> None:
    image, label = case
    expected = scale * class_average(image, label) + offset
    np.testing.assert_allclose(class_average(scale * image + offset, label), expected, rtol=1e-9, atol=1e-9)


@given(cases())
@settings(max_examples=50, deadline=None)
def test_each_image_and_channel_is_averaged_by_itself(case: Case) -> None:
    image, label = case
    whole = class_average(image, label)
    for b, c in np.ndindex(image.shape[:2]):
        alone = class_average(image[b : b + 1, c : c + 1], label[b : b + 1])
        np.testing.assert_array_equal(whole[b : b + 1, c : c + 1], alone)


@given(cases(), st.integers(-1, 4), st.integers(-1000, 1000))
@settings(max_examples=50, deadline=None)
def test_what_is_ignored_changes_no_class(case: Case, ignore_label: int, value: int) -> None:
    image, label = case
    ignored = np.broadcast_to(label == ignore_label, image.shape)
    changed = np.where(ignored, float(value), image)
    one, other = (class_average(each, label, ignore_label=ignore_label) for each in (image, changed))
    np.testing.assert_array_equal(one[~ignored], other[~ignored])


@given(cases())
@settings(max_examples=50, deadline=None)
def test_sum_and_range_of_the_image_stay(case: Case) -> None:
    image, label = case
    averaged = class_average(image, label)
    axes = tuple(range(2, image.ndim))
    np.testing.assert_allclose(averaged.sum(axes), image.sum(axes), rtol=1e-9, atol=1e-9)
    assert (averaged.max(axes) <= image.max(axes) + 1e-12).all()
    assert (averaged.min(axes) >= image.min(axes) - 1e-12).all()
