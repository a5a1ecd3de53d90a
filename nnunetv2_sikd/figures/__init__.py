"""Figures of a trained fold: intensities per class, and penultimate features of its networks."""
