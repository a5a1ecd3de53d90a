"""Shape-intensity knowledge distillation (SIKD) for nnU-Net v2.

Names below load on first use, so that importing the package (and ``nnUNetv2_sikd --help``) never waits
for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"
__all__ = ["SIKDError", "__version__", "class_average", "write_class_averages"]

if TYPE_CHECKING:
    from nnunetv2_sikd.averaging import class_average
    from nnunetv2_sikd.errors import SIKDError
    from nnunetv2_sikd.preprocessing.hook import write_class_averages

_HOME = {
    "class_average": "nnunetv2_sikd.averaging",
    "SIKDError": "nnunetv2_sikd.errors",
    "write_class_averages": "nnunetv2_sikd.preprocessing.hook",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
