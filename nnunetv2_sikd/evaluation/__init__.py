"""Predictions against references: overlap, surface distances and volumes, per case and label."""

from nnunetv2_sikd.evaluation.empty_masks import EmptyMaskPolicy
from nnunetv2_sikd.evaluation.folder import Evaluation, evaluate_folder

__all__ = ["EmptyMaskPolicy", "Evaluation", "evaluate_folder"]
