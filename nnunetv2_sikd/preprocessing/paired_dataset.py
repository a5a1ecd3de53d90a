"""Cases whose image comes with its class-averaged copy, for nnU-Net's own data loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset, nnUNetDatasetBlosc2


class ChannelStack:
    """Arrays of equal spatial shape, stacked along the channels only where they are read.

    nnU-Net's loader cuts patches out of compressed files; stacking whole cases would undo that.

    Args:
        arrays: Each ``(C, Z, Y, X)``.
    """

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays
        self.shape = (sum(array.shape[0] for array in arrays), *arrays[0].shape[1:])
        self.ndim = len(self.shape)
        self.dtype = arrays[0].dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a region; the channel axis must be taken whole.

        Raises:
            IndexError: Single channels were asked for.
        """
        keys = key if isinstance(key, tuple) else (key,)
        if keys[0] != slice(None) and keys[0] is not Ellipsis:
            raise IndexError("a channel stack is read with all its channels")
        return np.concatenate([array[keys] for array in self.arrays])


class PairedDataset(nnUNetDatasetBlosc2):
    """nnU-Net's data set whose images are followed by their copies' channels."""

    copies: nnUNetDatasetBlosc2

    def load_case(self, identifier: str) -> tuple[ChannelStack, Any, Any, dict[str, Any]]:
        """Load a case; data is ``(2C, Z, Y, X)``, read when sliced."""
        data, seg, seg_prev, properties = super().load_case(identifier)
        copy, _, _, _ = self.copies.load_case(identifier)
        return ChannelStack(data, copy), seg, seg_prev, properties


def with_copies(dataset: nnUNetBaseDataset, copies_folder: Path) -> PairedDataset:
    """Pair the cases of a data set with their copies.

    Args:
        dataset: nnU-Net's data set.
        copies_folder: Folder of the copies.
    """
    identifiers = list(dataset.identifiers)
    paired = PairedDataset(dataset.source_folder, identifiers, dataset.folder_with_segs_from_previous_stage)
    paired.copies = nnUNetDatasetBlosc2(str(copies_folder), identifiers)
    return paired
