from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from nnunetv2_sikd.distillation.loss import (
    DistillationLoss,
    class_weights,
    cosine_distance,
    feature_mse,
    feature_variance,
    unexplained_variance,
)
from nnunetv2_sikd.networks.penultimate import PenultimateCapture
from tests.helpers import make_network

STUDENT = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # one image, two features, two pixels
TEACHER = torch.tensor([[[[1.0, 4.0]], [[0.0, 8.0]]]])  # squared differences: 0, 4 and 9, 16


GENERATOR = torch.Generator().manual_seed(2)


class TestFeatureMSE:
    def test_by_hand(self) -> None:
        assert feature_mse(STUDENT, TEACHER).item() == 29 / 4

    @pytest.mark.parametrize(("pixels", "expected"), [([1, 0], 9 / 2), ([0, 1], 20 / 2), ([1, 1], 29 / 4), ([0, 0], 0)])
    def test_masked(self, pixels: list[int], expected: float) -> None:
        mask = torch.tensor(pixels, dtype=torch.bool).reshape(1, 1, 1, 2)
        assert feature_mse(STUDENT, TEACHER, mask).item() == expected

    def test_empty_mask_gives_gradient_zero(self) -> None:
        student = STUDENT.clone().requires_grad_()
        feature_mse(student, TEACHER, torch.zeros(1, 1, 1, 2, dtype=torch.bool)).backward()
        assert torch.equal(student.grad, torch.zeros_like(STUDENT))

    def test_gradient(self) -> None:
        student = STUDENT.clone().requires_grad_()
        feature_mse(student, TEACHER).backward()
        assert torch.equal(student.grad, 2 * (STUDENT - TEACHER) / 4)

    @pytest.mark.parametrize("masked", [False, True])
    def test_gradient_is_that_of_the_plain_expression(self, masked: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        student, teacher = (torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
        mask = torch.rand(3, 1, 6, 5, generator=generator) < 0.6 if masked else None
        student.requires_grad_()
        loss = feature_mse(student, teacher, mask)
        counted = student - teacher if mask is None else (student - teacher)[mask.expand_as(student)]
        assert loss.item() == pytest.approx(counted.square().mean().item(), rel=1e-12)
        assert torch.autograd.gradcheck(lambda features: feature_mse(features, teacher, mask), (student,))

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_keeps_nothing_but_the_maps(self, dtype: torch.dtype, masked: bool) -> None:
        student = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        teacher, mask = torch.zeros_like(student), torch.ones(2, 1, 4, 4, dtype=torch.bool) if masked else None
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda kept: kept):
            loss = feature_mse(student, teacher, mask)
        there = {tensor.data_ptr() for tensor in (student, teacher, mask) if tensor is not None}
        assert {tensor.data_ptr() for tensor in kept} == there
        loss.backward()
        assert student.grad.dtype == dtype
        assert torch.equal(student.grad, (2 * student.float() / student.numel()).to(dtype))

    def test_masked_pixels_get_no_gradient(self) -> None:
        student = STUDENT.clone().requires_grad_()
        feature_mse(student, TEACHER, torch.tensor([[[[True, False]]]])).backward()
        assert torch.equal(student.grad, torch.tensor([[[[0.0, 0.0]], [[3.0, 0.0]]]]))

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_float32_whatever_comes_and_whatever_autocast_does(self, dtype: torch.dtype, masked: bool) -> None:
        student = torch.full((1, 1, 4, 4), 300.0, dtype=dtype)  # its square overflows float16
        teacher = torch.zeros(1, 1, 4, 4, dtype=dtype)
        mask = torch.ones(1, 1, 4, 4, dtype=torch.bool) if masked else None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = feature_mse(student, teacher, mask)
        assert loss.dtype == torch.float32
        assert loss.item() == 90000

    def test_many_pixels_are_counted_exactly(self) -> None:
        features = torch.ones(1, 1, 4100, 4100, dtype=torch.bfloat16)  # more than float32 counts one by one
        mask = torch.ones(1, 1, 4100, 4100, dtype=torch.bool)
        assert feature_mse(features, torch.zeros_like(features), mask).item() == pytest.approx(1, abs=1e-6)

    @pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 2, 1, 1), (2, 2, 1, 2), (1, 2, 2)])
    def test_shapes_that_differ_are_an_error_and_not_broadcast(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="differ in shape"):
            feature_mse(STUDENT, torch.zeros(shape))


class TestWeights:
    def test_by_hand(self) -> None:
        weights = torch.tensor([3.0, 1.0]).reshape(1, 1, 1, 2)
        assert feature_mse(STUDENT, TEACHER, weights).item() == (3 * (0 + 9) + 1 * (4 + 16)) / (2 * 4)

    def test_gradient_is_that_of_the_plain_expression(self) -> None:
        generator = torch.Generator().manual_seed(0)
        student, teacher = (torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
        weights = torch.rand(3, 1, 6, 5, generator=generator, dtype=torch.float64)
        expected = (weights * (student - teacher).square()).sum() / (4 * weights.sum())
        student.requires_grad_()
        assert feature_mse(student, teacher, weights).item() == pytest.approx(expected.item(), rel=1e-12)
        assert torch.autograd.gradcheck(lambda features: feature_mse(features, teacher, weights), (student,))

    def test_each_class_counts_alike(self) -> None:
        label = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2]).reshape(1, 1, 2, 4)
        weights = class_weights(label, 4)
        assert weights.flatten().tolist() == pytest.approx([8 / 12] * 6 + [2.0] * 2)
        difference = torch.where(label == 2, 3.0, 1.0).requires_grad_()
        assert feature_mse(difference, torch.zeros_like(difference), weights).item() == pytest.approx((1 + 9) / 2)

    @pytest.mark.parametrize("ignored", [0, 3])
    def test_ignored_pixels_do_not_count(self, ignored: int) -> None:
        label = torch.tensor([1, 1, 1, ignored, ignored, 2, 2, 2]).reshape(2, 1, 4)
        assert class_weights(label, 4, ignored).flatten().tolist() == [1, 1, 1, 0, 0, 1, 1, 1]

    def test_nothing_but_ignored_pixels(self) -> None:
        student = torch.ones(1, 2, 4, requires_grad=True)
        loss = feature_mse(student, torch.zeros(1, 2, 4), class_weights(torch.full((1, 1, 4), 3), 4, 3))
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(student.grad, torch.zeros(1, 2, 4))


class TestOtherFeatureLosses:
    student, teacher = torch.randn(2, 3, 4, 6, 5, generator=GENERATOR, dtype=torch.float64) * 3 + 1
    weights = torch.rand(3, 1, 6, 5, generator=GENERATOR, dtype=torch.float64)

    def test_variance_is_that_around_the_mean_of_each_feature(self) -> None:
        expected = self.teacher.var(dim=(0, 2, 3), correction=0).mean().item()
        assert feature_variance(self.teacher).item() == pytest.approx(expected, rel=1e-9)
        mean = (self.weights * self.teacher).sum((0, 2, 3), keepdim=True) / self.weights.sum()
        weighted = (self.weights * (self.teacher - mean).square()).sum((0, 2, 3)) / self.weights.sum()
        assert feature_variance(self.teacher, self.weights).item() == pytest.approx(weighted.mean().item(), rel=1e-9)

    def test_normalised_does_not_depend_on_the_scale_and_is_1_for_the_means(self) -> None:
        def loss(student: torch.Tensor, teacher: torch.Tensor) -> float:
            distillation = DistillationLoss(nn.MSELoss(), 1.0, StandInCapture(student), kind="normalised")
            distillation.expect(teacher)
            return distillation(torch.zeros(1), torch.zeros(1)).item()

        assert loss(5 * self.student, 5 * self.teacher) == pytest.approx(loss(self.student, self.teacher), rel=1e-6)
        means = self.teacher.mean((0, 2, 3), keepdim=True).expand_as(self.teacher)
        assert loss(means, self.teacher) == pytest.approx(1)

    def test_flat_features_divide_by_no_zero(self) -> None:
        assert feature_variance(torch.ones(1, 2, 3, 3)).item() > 0
        assert feature_variance(torch.ones(1, 2, 3, 3), torch.zeros(1, 1, 3, 3, dtype=torch.bool)).item() > 0

    def test_cosine_by_hand(self) -> None:
        # pixels: (1, 3) and (1, 0); (2, 4) and (4, 8)
        expected = (1 - 1 / math.sqrt(10) + 0) / 2
        assert cosine_distance(STUDENT, TEACHER).item() == pytest.approx(expected, abs=1e-6)
        mask = torch.tensor([False, True]).reshape(1, 1, 1, 2)
        assert cosine_distance(STUDENT, TEACHER, mask).item() == pytest.approx(0, abs=1e-6)
        assert cosine_distance(STUDENT, TEACHER, torch.zeros_like(mask)).item() == 0

    def test_cosine_gradient(self) -> None:
        student = self.student.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: cosine_distance(x, self.teacher, self.weights), (student,))
        half = STUDENT.half().requires_grad_()
        cosine_distance(half, TEACHER.half()).backward()
        assert half.grad.dtype == torch.float16

    def test_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match="differ in shape"):
            cosine_distance(STUDENT, TEACHER[..., :1])


class TestUnexplainedVariance:
    student, teacher = torch.randn(2, 3, 4, 6, 5, generator=GENERATOR, dtype=torch.float64) * 3 + 1
    weights = torch.rand(3, 1, 6, 5, generator=GENERATOR, dtype=torch.float64)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_is_what_least_squares_leaves(self, weighted: bool) -> None:
        weights = self.weights if weighted else torch.ones_like(self.weights)
        x, y = (each.movedim(1, -1).reshape(-1, 4).numpy() for each in (self.student, self.teacher))
        w = weights.reshape(-1, 1).numpy()
        x = np.concatenate([x, np.ones_like(w)], 1)
        fit = np.linalg.lstsq(x * np.sqrt(w), y * np.sqrt(w), rcond=None)[0]
        centred = y - (w * y).sum(0) / w.sum()
        expected = (w * (y - x @ fit) ** 2).sum() / (w * centred**2).sum()
        found = unexplained_variance(self.student, self.teacher, weights if weighted else None)
        assert 0.5 < expected < 1
        # the ridge adds a little
        assert found.item() == pytest.approx(expected, abs=1e-3)
        assert found.item() >= expected

    def test_a_linear_function_of_the_student_explains_all(self) -> None:
        mixing = torch.randn(4, 4, generator=GENERATOR, dtype=torch.float64)
        mixing[2] = 0  # a feature that the teacher leaves unused
        teacher = torch.einsum("ij,bj...->bi...", mixing, self.student) + 7
        assert unexplained_variance(self.student, teacher).item() == pytest.approx(0, abs=3e-3)
        assert feature_mse(self.student, teacher).item() > 1

    def test_means_explain_nothing(self) -> None:
        means = self.teacher.mean((0, 2, 3), keepdim=True).expand_as(self.teacher)
        assert unexplained_variance(means, self.teacher).item() == pytest.approx(1)

    @pytest.mark.parametrize("factor", [0.01, 100])
    def test_does_not_depend_on_scales(self, factor: float) -> None:
        expected = unexplained_variance(self.student, self.teacher).item()
        assert unexplained_variance(factor * self.student, self.teacher).item() == pytest.approx(expected, rel=1e-3)
        assert unexplained_variance(self.student, factor * self.teacher).item() == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_gradient(self, weighted: bool) -> None:
        student, weights = self.student.clone().requires_grad_(), self.weights if weighted else None
        assert torch.autograd.gradcheck(lambda x: unexplained_variance(x, self.teacher, weights), (student,))

    def test_pixels_without_weight_do_not_count(self) -> None:
        mask = self.weights > 0.4
        other = torch.where(mask, self.student, 1e3)
        found = unexplained_variance(other, self.teacher, mask).item()
        assert found == pytest.approx(unexplained_variance(self.student, self.teacher, mask).item(), rel=1e-9)
        assert found != pytest.approx(unexplained_variance(self.student, self.teacher).item(), rel=1e-3)

    @pytest.mark.parametrize("what", ["student", "teacher", "weights"])
    def test_flat_features_and_no_pixels_give_no_nan(self, what: str) -> None:
        student, teacher, weights = self.student.clone(), self.teacher.clone(), torch.ones_like(self.weights)
        {"student": student, "teacher": teacher, "weights": weights}[what].zero_()
        loss = unexplained_variance(student.requires_grad_(), teacher, weights)
        loss.backward()
        assert loss.item() == pytest.approx(1 if what == "student" else 0, abs=1e-6)
        assert student.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_float32_whatever_comes_and_whatever_autocast_does(self, dtype: torch.dtype) -> None:
        student, teacher = (100 * self.student).to(dtype).requires_grad_(), (100 * self.teacher).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = unexplained_variance(student, teacher)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(unexplained_variance(student.double(), teacher.double()).item(), rel=1e-4)
        assert student.grad.dtype == dtype

    def test_keeps_nothing_of_the_maps_size_but_the_maps(self) -> None:
        student = self.student.clone().requires_grad_()
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda kept: kept):
            unexplained_variance(student, self.teacher)
        large = {tensor.data_ptr() for tensor in kept if tensor.numel() > (2 * 4 + 1) ** 2}
        assert large == {student.data_ptr(), self.teacher.data_ptr()}

    def test_shapes_that_differ(self) -> None:
        with pytest.raises(ValueError, match="differ in shape"):
            unexplained_variance(STUDENT, TEACHER[..., :1])


class StandInCapture:
    """Hands out one map, as a capture does."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features
        self.taken = 0
        self.cleared = 0

    def take(self) -> torch.Tensor:
        self.taken += 1
        return self.features

    def clear(self) -> None:
        self.cleared += 1


class TestDistillationLoss:
    @pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
    def test_is_the_sum(self, alpha: float) -> None:
        loss = DistillationLoss(nn.MSELoss(), alpha, StandInCapture(STUDENT))
        loss.expect(TEACHER)
        total = loss(torch.tensor([3.0]), torch.tensor([1.0]))
        assert total.item() == 4 + alpha * 29 / 4
        assert loss.last_parts.tolist() == [4, 29 / 4]

    def test_mask_is_used(self) -> None:
        loss = DistillationLoss(nn.MSELoss(), 2.0, StandInCapture(STUDENT))
        loss.expect(TEACHER, torch.tensor([[[[True, False]]]]))
        assert loss(torch.tensor([3.0]), torch.tensor([1.0])).item() == 4 + 2 * 9 / 2

    def test_is_nnunet_s_own_where_nothing_is_expected(self) -> None:
        capture = StandInCapture(STUDENT)
        loss = DistillationLoss(nn.MSELoss(), 2.0, capture)
        assert loss(torch.tensor([3.0]), torch.tensor([1.0])).item() == 4
        assert capture.taken == 0
        assert loss.last_parts is None

    def test_forget_ends_the_expectation(self) -> None:
        capture = StandInCapture(STUDENT)
        loss = DistillationLoss(nn.MSELoss(), 2.0, capture)
        loss.expect(TEACHER)
        loss.forget()
        assert loss(torch.tensor([3.0]), torch.tensor([1.0])).item() == 4
        assert capture.cleared == 2

    def test_what_ran_through_the_network_before_the_step_does_not_count(self) -> None:
        network = make_network(2, deep_supervision=False)
        loss = DistillationLoss(nn.MSELoss(), 2.0, PenultimateCapture(network))
        image, teacher = torch.zeros(1, 1, 32, 32), torch.ones(1, 4, 32, 32)
        network(image + 1)  # as nnU-Net's plot of the architecture does
        loss.expect(teacher)
        loss(network(image), torch.zeros(1, 3, 32, 32))
        once_more = PenultimateCapture(network)
        network(image)
        assert loss.last_parts[1] == feature_mse(once_more.take(), teacher)

    def test_gradient_is_the_sum_of_both(self) -> None:
        network = make_network(2, deep_supervision=False)
        loss = DistillationLoss(nn.CrossEntropyLoss(), 2.0, PenultimateCapture(network))
        image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        target = torch.randint(0, 3, (1, 32, 32), generator=torch.Generator().manual_seed(0))
        teacher = torch.ones(1, 4, 32, 32)

        loss.expect(teacher)
        loss(network(image), target).backward()
        gradients = {
            name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
        }

        network.zero_grad()
        features: list[torch.Tensor] = []
        network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        segmentation = nn.functional.cross_entropy(network(image), target)
        (segmentation + 2 * (features[0] - teacher).square().mean()).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-7)
        assert gradients["encoder.stages.0.0.convs.0.conv.weight"].abs().sum() > 0

    def test_parts_hold_no_graph(self) -> None:
        loss = DistillationLoss(nn.MSELoss(), 2.0, StandInCapture(STUDENT.clone().requires_grad_()))
        loss.expect(TEACHER)
        assert loss(torch.tensor([3.0]), torch.tensor([1.0])).requires_grad
        assert not loss.last_parts.requires_grad

    def test_a_capture_that_captured_nothing_is_an_error(self) -> None:
        loss = DistillationLoss(nn.MSELoss(), 2.0, PenultimateCapture(make_network(2)))
        loss.expect(TEACHER)
        with pytest.raises(RuntimeError, match="captured 0"):
            loss(torch.tensor([3.0]), torch.tensor([1.0]))

    def test_has_nothing_to_train_or_save(self) -> None:
        loss = DistillationLoss(nn.MSELoss(), 2.0, StandInCapture(STUDENT))
        loss.expect(TEACHER)
        assert list(loss.parameters()) == []
        assert loss.state_dict() == {}
