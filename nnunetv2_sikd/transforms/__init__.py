"""Transforms that carry the teacher's input through nnU-Net's augmentation."""
