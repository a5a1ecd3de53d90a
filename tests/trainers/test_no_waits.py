"""What a student adds to a training step never makes the CPU wait for the GPU: nothing there needs a number back.

Shown without a GPU on torch's fake tensors, which have a device and shapes but no values to wait for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.distillation.loss import DistillationLoss
from tests.helpers import make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, MakeTrainer


def has_fake_gpus() -> bool:
    """Whether fake tensors work without a GPU; not yet in torch 2.6 and 2.8."""
    try:
        with FakeTensorMode():
            torch.zeros(2, device="cuda")[:1].item()
    except DataDependentOutputException:
        return True
    except RuntimeError:
        pass
    return False


pytestmark = pytest.mark.skipif(not has_fake_gpus(), reason="this torch has no fake GPU tensors without a GPU")


class NoCopies(TorchDispatchMode):
    """Refuses copies between CPU and GPU, which fake tensors allow."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {each.device.type for each in args if isinstance(each, torch.Tensor)}
        if isinstance(result, torch.Tensor) and given and given != {result.device.type}:
            raise AssertionError(f"{func} waits for the GPU")
        return result


@pytest.mark.parametrize(("regions", "ignore"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("variant", ["", "_normalised", "_cosine", "_linear", "_classBalanced"])
def test_student_never_waits(
    regions: bool, ignore: bool, variant: str, nnunet_folders: Path, make_trainer: MakeTrainer
) -> None:
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, regions=regions, ignore=ignore)
    student = make_trainer(dataset, STUDENT.replace("_2ep", f"{variant}_2ep"))
    student.initialize()
    with FakeTensorMode(), NoCopies():
        data = torch.randn(2, 2 if regions else 1, 32, 32, device="cuda")
        label = torch.randint(0, 4 if ignore else 3, (2, 1, 32, 32), device="cuda", dtype=torch.int16)
        image, teacher_input, mask = student._teacher_input(data, [label, label])
        assert teacher_input.shape == image.shape == (2, 1, 32, 32)
        assert (mask is not None) == (ignore or student.sikd.class_balanced)
        student_features = torch.randn(2, 8, 32, 32, device="cuda", requires_grad=True)
        captured = type("Captured", (), {"take": lambda self: student_features, "clear": lambda self: None})()
        loss = DistillationLoss(torch.nn.MSELoss(), alpha=2.0, capture=captured, kind=student.sikd.feature_loss)
        loss.expect(student_features.detach(), mask)
        loss(image, teacher_input)
        loss.forget()
        assert loss.last_parts.device.type == "cuda"


def test_waiting_is_noticed() -> None:
    with FakeTensorMode(), NoCopies():
        image = torch.randn(2, 1, 8, 8, device="cuda")
        label = torch.zeros(2, 1, 8, 8, device="cuda", dtype=torch.int16)
        with pytest.raises(DataDependentOutputException):
            class_average(image, label)  # looks for the largest label
        with pytest.raises(AssertionError, match="waits for the GPU"):
            image.cpu()
        with pytest.raises(AssertionError, match="waits for the GPU"):
            torch.zeros(1).to("cuda")
