"""Robustness without target data: a trained fold on its validation cases under simulated shifts."""
