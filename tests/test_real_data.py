"""Class averages of real cardiac images, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunetv2_sikd import class_average

ACDC = Path(__file__).parents[2] / "shared" / "data" / "nnUNet_raw" / "Dataset101_ACDC"


@pytest.mark.skipif(not ACDC.is_dir(), reason="the real images are not here")
def test_slices_of_real_patients_keep_the_mean_of_each_class_and_nothing_else() -> None:
    for label_file in sorted((ACDC / "labelsTr").glob("*.nii.gz"))[:10]:
        image_file = ACDC / "imagesTr" / label_file.name.replace(".nii.gz", "_0000.nii.gz")
        image, label = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f))) for f in (image_file, label_file))
        slices = image[:, None].astype(np.float32)
        averaged = class_average(slices, label.astype(np.int16))
        for source, flat, classes in zip(slices[:, 0], averaged[:, 0], label, strict=True):
            assert len(np.unique(flat)) <= len(np.unique(classes))
            for value in np.unique(classes):
                np.testing.assert_allclose(
                    flat[classes == value], source[classes == value].mean(dtype=float), rtol=1e-6
                )
