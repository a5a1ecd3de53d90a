"""A split that is never half-written."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.files import replace
from nnunetv2_sikd.preprocessing.prepare import SPLITS_FILE


class WholeSplit(nnUNetTrainer):
    """nnU-Net's trainer; folds that start at once, or a kill, meet no half of the split that it makes."""

    preprocessed_dataset_folder_base: str

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split; where there is none yet, it is made elsewhere and moved to its place."""
        folder = self.preprocessed_dataset_folder_base
        if self.fold == "all" or os.path.lexists(Path(folder) / SPLITS_FILE):
            return super().do_split()
        with TemporaryDirectory(prefix=".split_", dir=folder) as scratch:
            self.preprocessed_dataset_folder_base = scratch
            try:
                super().do_split()
            finally:
                self.preprocessed_dataset_folder_base = folder
            if not os.path.lexists(Path(folder) / SPLITS_FILE):  # another training, or the user, may have been faster
                replace(Path(scratch) / SPLITS_FILE, Path(folder) / SPLITS_FILE)
        return super().do_split()
