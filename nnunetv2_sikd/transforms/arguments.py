"""Arguments of nnU-Net's transform builders by name, whichever way they were passed."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def training_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``get_training_transforms()`` of any of nnU-Net's trainers by name, defaults included."""
    return _by_name(nnUNetTrainer.get_training_transforms, args, kwargs)


def validation_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``get_validation_transforms()`` of any of nnU-Net's trainers by name, defaults included."""
    return _by_name(nnUNetTrainer.get_validation_transforms, args, kwargs)


def _by_name(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments
