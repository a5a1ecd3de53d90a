"""Where networks run."""

from __future__ import annotations

from nnunetv2_sikd.errors import SIKDError


def check_device(device: str) -> None:
    """Check that this machine has a device.

    Args:
        device: ``cuda``, ``cpu`` or ``mps``.

    Raises:
        SIKDError: It has none.
    """
    if device == "cpu":
        return
    import torch  # takes seconds

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise SIKDError(f"-device {device}: PyTorch finds none on this machine; name another one, such as -device cpu")
