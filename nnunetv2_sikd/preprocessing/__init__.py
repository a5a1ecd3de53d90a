"""Class-averaged copies of nnU-Net's preprocessed cases."""
