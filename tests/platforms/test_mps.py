"""Apple's GPUs know no float64: tensors that say they are on one, and nothing wider than float32 beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.distillation.loss import feature_mse
from nnunetv2_sikd.transforms.teacher_input import label_map_image


class OnMPS(torch.Tensor):
    """A tensor in main memory that says it is on an Apple GPU."""

    device = property(lambda self: torch.device("mps"))  # type: ignore[assignment]


class NoFloat64(TorchDispatchMode):
    """Refuses, as that GPU does, whatever makes a float64 tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(result)):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return result


def on_mps(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(OnMPS)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 20, 24) * 100 + 1000


@pytest.fixture
def label() -> torch.Tensor:
    return torch.randint(-1, 4, (2, 1, 20, 24))


def test_the_refusal_works(image: torch.Tensor, label: torch.Tensor) -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        class_average(image.double(), label).double().sum()


def test_class_average(image: torch.Tensor, label: torch.Tensor) -> None:
    expected = class_average(image, label, ignore_label=3)
    with NoFloat64():
        found = class_average(on_mps(image), on_mps(label), ignore_label=3, num_labels=4)
        again = class_average(found, on_mps(label), ignore_label=3, num_labels=4)
    found, again = found.as_subclass(torch.Tensor), again.as_subclass(torch.Tensor)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-4)
    assert torch.equal(again, found)


def test_distillation_loss(label: torch.Tensor) -> None:
    student, teacher = torch.randn(2, 4, 20, 24, requires_grad=True), torch.randn(2, 4, 20, 24)
    with NoFloat64():
        for mask in (None, label != 3):
            feature_mse(student, teacher, mask).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_label_map(label: torch.Tensor) -> None:
    with NoFloat64():
        assert label_map_image(on_mps(label), 3).dtype == torch.float32
