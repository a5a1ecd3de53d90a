"""Predictions against references: overlap, surface distances and volumes, per case and label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2_sikd.evaluation.empty_masks import EmptyMaskPolicy
    from nnunetv2_sikd.evaluation.folder import Evaluation, evaluate_folder

__all__ = ["EmptyMaskPolicy", "Evaluation", "evaluate_folder"]


def __getattr__(name: str) -> Any:
    # On first use: other modules of this package are needed where nobody wants to wait for torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nnunetv2_sikd.evaluation import empty_masks, folder

    return getattr(empty_masks if name == "EmptyMaskPolicy" else folder, name)
