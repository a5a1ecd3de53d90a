from __future__ import annotations

import doctest
import math
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunetv2_sikd import averaging
from nnunetv2_sikd.averaging import class_average


@pytest.fixture(scope="module", autouse=True, params=["on the CPU", "as on a GPU"])
def where(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds for both ways to average."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "as on a GPU":
            patch.setattr(averaging, "_average_arrays", averaged_as_on_a_gpu)
        yield


def averaged_as_on_a_gpu(image: np.ndarray, label: np.ndarray, *options: int | None) -> np.ndarray:
    if label.dtype.kind == "u" and label.dtype.itemsize > 1:  # types that torch has no arithmetic for
        label = label.astype(np.int64)
    tensors = (torch.from_numpy(np.ascontiguousarray(array)) for array in (image, label))
    return averaging._average_tensors(*tensors, *options).numpy()


def regions_of(label: np.ndarray, ignore_label: int | None) -> np.ndarray:
    """Label with negative values merged into background, and the ignore label apart as -99."""
    regions = np.maximum(label.astype(np.int64), 0)
    if ignore_label is not None:
        regions[label == ignore_label] = -99
    return regions


def averaged_by_loop(image: np.ndarray, label: np.ndarray, ignore_label: int | None = None) -> np.ndarray:
    """The definition, pixel set by pixel set, in float64."""
    regions = regions_of(label, ignore_label).reshape(len(image), *image.shape[2:])
    result = np.empty(image.shape, np.float64)
    for b, c in np.ndindex(image.shape[:2]):
        for region in np.unique(regions[b]):
            pixels = regions[b] == region
            result[b, c][pixels] = image[b, c][pixels].astype(np.float64).mean()
    return result


def random_case(
    *shape: int, classes: int = 4, batch: int = 2, channels: int = 2, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, channels, *shape, generator=generator) * 50 + 100
    label = torch.randint(0, classes, (batch, 1, *shape), generator=generator)
    return image, label


def assert_is_average(
    image: torch.Tensor, label: torch.Tensor, ignore_label: int | None = None, rtol: float = 1e-6
) -> None:
    result = class_average(image, label, ignore_label=ignore_label)
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    expected = averaged_by_loop(image.double().numpy(), label.numpy(), ignore_label)
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=rtol, atol=rtol)


class TestAgainstTheDefinition:
    @pytest.mark.parametrize("shape", [(17,), (9, 12), (5, 6, 7)], ids=["1D", "2D", "3D"])
    @pytest.mark.parametrize("channels", range(1, 9))
    def test_dimensions_and_channels(self, shape: tuple[int, ...], channels: int) -> None:
        assert_is_average(*random_case(*shape, channels=channels, seed=channels))

    def test_by_hand(self) -> None:
        image = torch.tensor([[[[1.0, 2.0], [6.0, 8.0]]]])
        label = torch.tensor([[[[0, 0], [0, 5]]]])
        assert class_average(image, label).tolist() == [[[[3.0, 3.0], [3.0, 8.0]]]]

    def test_images_and_channels_do_not_mix(self) -> None:
        image = torch.tensor([[[1.0, 3.0], [10.0, 30.0]], [[5.0, 9.0], [50.0, 90.0]]])
        result = class_average(image, torch.zeros(2, 2, dtype=torch.long))
        assert result.tolist() == [[[2.0, 2.0], [20.0, 20.0]], [[7.0, 7.0], [70.0, 70.0]]]

    @pytest.mark.parametrize("classes", [1, 100])
    def test_number_of_classes(self, classes: int) -> None:
        assert_is_average(*random_case(20, 30, classes=classes))

    def test_absent_classes_have_no_effect(self) -> None:
        image, label = random_case(8, 8, classes=3)
        assert torch.equal(class_average(image, label * 7), class_average(image, label))
        assert_is_average(image, label * 7)

    def test_one_pixel(self) -> None:
        image = torch.tensor([[[[3.25]]]])
        assert torch.equal(class_average(image, torch.ones(1, 1, 1, 1, dtype=torch.int)), image)

    @pytest.mark.parametrize("value", [0.1, -1e30, 1e-38, 16777217.0])
    def test_a_constant_image_keeps_its_value_exactly(self, value: float) -> None:
        image = torch.full((1, 1, 31, 33), value)
        _, label = random_case(31, 33, batch=1)
        assert torch.equal(class_average(image, label), image)

    def test_averaging_float64_twice_is_averaging_once_although_its_sums_round(self) -> None:
        image, label = random_case(41, 43)
        once = class_average(image.double() / 3, label)
        assert torch.equal(class_average(once, label), once)

    def test_large_offset_does_not_cost_precision(self) -> None:
        image, label = random_case(64, 64)
        assert_is_average(image + 1e6, label, rtol=1e-7)

    def test_empty(self) -> None:
        image = torch.empty(0, 2, 4, 4)
        assert class_average(image, torch.empty(0, 1, 4, 4, dtype=torch.int16)).shape == (0, 2, 4, 4)

    def test_not_contiguous(self) -> None:
        image, label = random_case(6, 8)
        turned = class_average(image.transpose(2, 3), label.transpose(2, 3)).transpose(2, 3)
        torch.testing.assert_close(turned, class_average(image, label), rtol=1e-6, atol=0)
        every_other = class_average(image[..., ::2], label[..., ::2])
        expected = class_average(image[..., ::2].contiguous(), label[..., ::2].contiguous())
        assert torch.equal(every_other, expected)

    def test_label_with_and_without_channel_axis(self) -> None:
        image, label = random_case(6, 8)
        assert torch.equal(class_average(image, label[:, 0]), class_average(image, label))


class TestLabels:
    def test_ignore_label_is_averaged_apart(self) -> None:
        image = torch.tensor([[[1.0, 3.0, 100.0, 200.0, 7.0]]])
        label = torch.tensor([[0, 0, 9, 9, 1]])
        result = class_average(image, label, ignore_label=9)
        assert result.tolist() == [[[2.0, 2.0, 150.0, 150.0, 7.0]]]

    def test_minus_one_is_background(self) -> None:
        image = torch.tensor([[[1.0, 3.0, 8.0]]])
        result = class_average(image, torch.tensor([[-1, 0, 1]]))
        assert result.tolist() == [[[2.0, 2.0, 8.0]]]

    def test_minus_one_as_ignore_label(self) -> None:
        image = torch.tensor([[[1.0, 3.0, 8.0]]])
        result = class_average(image, torch.tensor([[-1, 0, 1]]), ignore_label=-1)
        assert result.tolist() == [[[1.0, 3.0, 8.0]]]

    def test_minus_one_stays_background_beside_an_ignore_label(self) -> None:
        image = torch.tensor([[[1.0, 3.0, 8.0, 5.0]]])
        result = class_average(image, torch.tensor([[-1, 0, 1, 2]]), ignore_label=2)
        assert result.tolist() == [[[2.0, 2.0, 8.0, 5.0]]]

    @pytest.mark.parametrize("ignore_label", [3, 255, -1, 60000])
    def test_ignore_label_against_the_definition(self, ignore_label: int) -> None:
        image, label = random_case(8, 9)
        label[label == 3] = ignore_label
        label[:, :, :2] = -1
        assert_is_average(image, label, ignore_label)

    def test_absent_ignore_label_has_no_effect(self) -> None:
        image, label = random_case(8, 9)
        assert torch.equal(class_average(image, label, ignore_label=77), class_average(image, label))

    def test_label_value_60000(self) -> None:
        image, label = random_case(8, 9, classes=3)
        label[label == 2] = 60000
        assert_is_average(image, label)

    def test_label_values_cost_no_memory(self) -> None:
        image = torch.tensor([[[1.0, 3.0, 8.0]]])
        label = torch.tensor([[2**40, 2**40, 2**41]])
        assert class_average(image, label, ignore_label=2**41).tolist() == [[[2.0, 2.0, 8.0]]]

    def test_numbering_of_the_classes_does_not_matter(self) -> None:
        image, label = random_case(9, 9, classes=4)
        renamed = torch.tensor([2, 0, 60000, 1])[label]
        assert torch.equal(class_average(image, renamed), class_average(image, label))

    @pytest.mark.parametrize("num_labels", [4, 5, 300, 70000])
    def test_given_number_of_labels(self, num_labels: int) -> None:
        image, label = random_case(8, 9, classes=4)
        label[0, 0, 0] = -1
        given = class_average(image, label, num_labels=num_labels, ignore_label=3)
        assert torch.equal(given, class_average(image, label, ignore_label=3))

    def test_ignore_label_may_be_beyond_the_given_number(self) -> None:
        image, label = random_case(8, 9, classes=4)
        label[label == 3] = 255
        given = class_average(image, label, num_labels=3, ignore_label=255)
        assert torch.equal(given, class_average(image, label, ignore_label=255))

    def test_label_beyond_the_given_number_is_an_error(self) -> None:
        image, label = random_case(8, 9, classes=4)
        with pytest.raises((RuntimeError, IndexError)):
            class_average(image, label, num_labels=2)


class TestTypes:
    @pytest.mark.parametrize(
        ("dtype", "rtol"),
        [(torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 1e-6), (torch.float64, 1e-12)],
    )
    def test_image_types(self, dtype: torch.dtype, rtol: float) -> None:
        image, label = random_case(16, 16)
        assert_is_average(image.to(dtype), label, rtol=rtol)

    def test_float16_sums_do_not_overflow(self) -> None:
        image = torch.full((1, 1, 64, 64), 60000.0, dtype=torch.float16)
        assert torch.equal(class_average(image, torch.zeros(1, 1, 64, 64, dtype=torch.uint8)), image)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
    def test_torch_label_types(self, dtype: torch.dtype) -> None:
        image, label = random_case(8, 9)
        assert torch.equal(class_average(image, label.to(dtype)), class_average(image, label))

    @pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "uint32", "int64", "uint64"])
    def test_numpy_label_types(self, dtype: str) -> None:
        image, label = random_case(8, 9)
        result = class_average(image.numpy(), label.numpy().astype(dtype))
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, class_average(image, label).numpy())

    def test_numpy_uint16_60000(self) -> None:
        image = np.array([[[1.0, 3.0, 8.0]]], np.float32)
        label = np.array([[60000, 60000, 0]], np.uint16)
        assert class_average(image, label).tolist() == [[[2.0, 2.0, 8.0]]]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_numpy_keeps_its_type(self, dtype: type) -> None:
        image, label = random_case(8, 9)
        assert class_average(image.numpy().astype(dtype), label.numpy()).dtype == dtype

    def test_numpy_views_and_read_only_arrays(self) -> None:
        image, label = (tensor.numpy() for tensor in random_case(8, 9))
        expected = class_average(image[:, ::-1, ::2, ::-1].copy(), label[..., ::2, ::-1].copy())
        image.flags.writeable = label.flags.writeable = False
        result = class_average(image[:, ::-1, ::2, ::-1], label[..., ::2, ::-1])
        np.testing.assert_array_equal(result, expected)
        assert result.flags.writeable

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.bool])
    def test_integer_image_is_an_error(self, dtype: torch.dtype) -> None:
        image, label = random_case(4, 4)
        with pytest.raises(TypeError, match="floating point"):
            class_average(image.to(dtype), label)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64])
    def test_label_that_is_not_integer_is_an_error(self, dtype: torch.dtype) -> None:
        image, label = random_case(4, 4)
        with pytest.raises(TypeError, match="integer"):
            class_average(image, label.to(dtype))

    def test_numpy_type_errors(self) -> None:
        image, label = (tensor.numpy() for tensor in random_case(4, 4))
        with pytest.raises(TypeError, match="floating point"):
            class_average(image.astype(np.int16), label)
        with pytest.raises(TypeError, match="integer"):
            class_average(image, label.astype(np.float32))

    @pytest.mark.parametrize("label_shape", [(2, 1, 4, 5), (1, 1, 4, 4), (2, 2, 4, 4), (4, 4), (2, 4), (2, 1, 1, 4, 4)])
    def test_shapes_that_do_not_fit_are_an_error(self, label_shape: tuple[int, ...]) -> None:
        image, _ = random_case(4, 4)
        with pytest.raises(ValueError, match="label must have shape"):
            class_average(image, torch.zeros(label_shape, dtype=torch.long))


class TestSurroundings:
    def test_input_is_not_modified(self) -> None:
        image, label = random_case(8, 9)
        label[0, 0, 0] = -1
        before = image.clone(), label.clone()
        result = class_average(image, label, ignore_label=3)
        result.zero_()
        assert torch.equal(image, before[0])
        assert torch.equal(label, before[1])

    def test_empty_input_is_not_handed_back_itself(self) -> None:
        image = torch.empty(1, 0, 4)
        assert class_average(image, torch.zeros(1, 4, dtype=torch.long)) is not image

    def test_autocast_changes_nothing(self) -> None:
        image, label = random_case(32, 32)
        expected = class_average(image, label)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = class_average(image, label)
        assert result.dtype == torch.float32
        assert torch.equal(result, expected)

    def test_gradient_bookkeeping_changes_nothing(self) -> None:
        image, label = random_case(8, 9)
        with_grad = class_average(image.clone().requires_grad_(), label)
        assert torch.equal(with_grad.detach(), class_average(image, label))

    def test_docstring_examples_hold(self) -> None:
        outcome = doctest.testmod(averaging)
        assert outcome.attempted >= 2
        assert outcome.failed == 0


FLOATS = {
    np.float16: st.floats(-1000, 1000, width=16),
    np.float32: st.floats(-1e6, 1e6, width=32),
    np.float64: st.floats(-1e6, 1e6),
}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Image, label (some -1) and ignore label."""
    spatial = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=6))
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(list(FLOATS)))
    image = draw(hnp.arrays(dtype, (batch, channels, *spatial), elements=FLOATS[dtype]))
    largest = draw(st.sampled_from([0, 1, 3, 5000]))
    label = draw(hnp.arrays(np.int16, (batch, 1, *spatial), elements=st.integers(-1, largest)))
    return image, label, draw(st.sampled_from([None, -1, 0, 1, 3]))


def test_both_ways_give_the_same_bits() -> None:
    image, label = (tensor.numpy() for tensor in random_case(61, 67, batch=3, classes=5))
    label[0] = np.arange(67) // 20  # long runs, as label maps have them, and noise
    label[1, 0, :9] = -1
    for dtype in (np.float16, np.float32):
        ours = averaging._average_arrays(image.astype(dtype), label, 3, None)
        np.testing.assert_array_equal(ours, averaged_as_on_a_gpu(image.astype(dtype), label, 3, None))


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, numpy; from nnunetv2_sikd import class_average as f; "
    code += "f(numpy.zeros((1, 1, 4)), numpy.zeros((1, 4), int)); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestProperties:
    @given(cases())
    @settings(max_examples=60, deadline=None)
    def test_is_the_definition(self, case: tuple[np.ndarray, np.ndarray, int | None]) -> None:
        image, label, ignore_label = case
        result = class_average(image, label, ignore_label=ignore_label)
        rtol = {np.dtype(np.float16): 1e-3, np.dtype(np.float32): 1e-6}.get(image.dtype, 1e-9)
        expected = averaged_by_loop(image, label, ignore_label)
        np.testing.assert_allclose(result.astype(np.float64), expected, rtol=rtol, atol=1e-6)

    @given(cases())
    @settings(max_examples=60, deadline=None)
    def test_averaging_twice_is_bitwise_averaging_once(self, case: tuple[np.ndarray, np.ndarray, int | None]) -> None:
        image, label, ignore_label = case
        once = class_average(image, label, ignore_label=ignore_label)
        twice = class_average(once, label, ignore_label=ignore_label)
        np.testing.assert_array_equal(twice, once)

    @given(cases())
    @settings(max_examples=60, deadline=None)
    def test_one_value_per_class_and_the_same_mean(self, case: tuple[np.ndarray, np.ndarray, int | None]) -> None:
        image, label, ignore_label = case
        result = class_average(image, label, ignore_label=ignore_label)
        regions = regions_of(label, ignore_label)
        for b, c in np.ndindex(image.shape[:2]):
            present = np.unique(regions[b, 0])
            assert len(np.unique(result[b, c])) <= len(present)
            for region in present:
                values = result[b, c][regions[b, 0] == region]
                assert (values == values[0]).all()
                source = image[b, c][regions[b, 0] == region].astype(np.float64)
                # Rounding of the result to the image's type, and of each summand in float64.
                precision = np.finfo(image.dtype)
                relative = precision.eps + source.size * np.finfo(np.float64).eps
                allowed = relative * np.abs(source).max() + precision.tiny
                assert abs(float(values[0]) - math.fsum(source) / source.size) <= allowed

    @given(cases(), st.integers(0, 2**32 - 1))
    @settings(max_examples=60, deadline=None)
    def test_place_of_a_pixel_does_not_matter(self, case: tuple[np.ndarray, np.ndarray, int | None], seed: int) -> None:
        image, label, ignore_label = case
        flat = image.reshape(*image.shape[:2], -1)
        flat_label = label.reshape(len(label), 1, -1)
        order = np.random.default_rng(seed).permutation(flat.shape[2])
        moved = class_average(flat[..., order], flat_label[..., order], ignore_label=ignore_label)
        expected = class_average(flat, flat_label, ignore_label=ignore_label)[..., order]
        rtol = 2 * np.finfo(image.dtype).eps
        np.testing.assert_allclose(moved.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=1e-7)
