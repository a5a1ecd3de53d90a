"""Valid input that is unusual and must work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK

from tests.bad_input.damage import both, header, image, move, put
from tests.bad_input.images import AVERAGE, EVALUATE, PREDICT
from tests.bad_input.rows import Damage, Valid
from tests.bad_input.text_files import FOLDER, PREPROCESS

# With an ending like _0000.nii.gz the file's name has 255 bytes, the most that common file systems permit.
_NAMES = {
    "blanks and brackets": "case [1] (left), no. 2",
    "umlauts": "Größe_Ärztin_ß",
    "Chinese characters": "病例_左心室",
    "255 bytes": "x" * (255 - len("_0000.nii.gz")),
    "two dots and an underscore": "a.b._0000",
}


def _named(name: str, *places: tuple[str, str]) -> Damage:
    """Give case b another name in folders of images (``_0000`` and so on) and of labels."""

    def do(folder: Path) -> None:
        for place, kind in places:
            for file in sorted((folder / place).glob("b*.nii.gz")):
                file.rename(file.with_name(name + file.name.removeprefix("b")))
            assert kind

    return do


def _preprocessed(name: str) -> Damage:
    def do(folder: Path) -> None:
        for file in sorted((folder / FOLDER / "nnUNetPlans_2d").glob("case_01*")):
            file.rename(file.with_name(name + file.name.removeprefix("case_01")))

    return do


def _coloured(folder: Path) -> None:
    """A picture of three colours in one file, as nnU-Net reads RGB."""
    names = {str(channel): colour for channel, colour in enumerate(("red", "green", "blue"))}
    both(
        put(f"{FOLDER}/dataset.json", "channel_names", value=names),
        put(f"{FOLDER}/dataset.json", "file_ending", value=".png"),
        put(f"{FOLDER}/nnUNetPlans.json", "image_reader_writer", value="NaturalImage2DIO"),
        put(f"{FOLDER}/nnUNetPlans.json", "configurations", "2d", "normalization_schemes", value=["NoNorm"] * 3),
    )(folder)
    for name in ("images", "labels"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
    random = np.random.default_rng(0)
    colours = SimpleITK.GetImageFromArray(random.integers(0, 255, (20, 24, 3)).astype(np.uint8), isVector=True)
    SimpleITK.WriteImage(colours, str(folder / "images" / "a_0000.png"))
    label = SimpleITK.GetImageFromArray(random.integers(0, 3, (20, 24)).astype(np.uint8))
    SimpleITK.WriteImage(label, str(folder / "labels" / "a.png"))


def _as_floats(file: str) -> Damage:
    return image(file, lambda array: array.astype(np.float32))


def _linked(place: str) -> Damage:
    return both(move(place, f"{place}_elsewhere"), lambda folder: (folder / place).symlink_to(f"{place}_elsewhere"))


def _preview(folder: Path) -> None:
    (folder / "predictions" / "a.png").write_bytes(b"\x89PNG")


def rows() -> list[Valid]:
    """All of this file."""
    unusual: list[Valid] = []
    for title, name in _NAMES.items():
        averaged = f"averaged/{name}_0001.nii.gz"
        unusual += [
            Valid(
                f"case name with {title}", AVERAGE, _named(name, ("images", "image"), ("labels", "label")), (averaged,)
            ),
            Valid(f"case name with {title}", PREDICT, _named(name, ("images", "image")), starts="nnUNetv2_predict"),
            Valid(
                f"case name with {title}",
                EVALUATE,
                _named(name, ("labels", "label"), ("predictions", "label")),
                ("measured/metrics.csv",),
            ),
            Valid(
                f"case name with {title}",
                PREPROCESS,
                _preprocessed(name if len(name) < 200 else "x" * 246),
                (f"{FOLDER}/nnUNetPlans_2d_SIKD_per_slice/case_00.b2nd",),
            ),
        ]
    unusual += [
        Valid(
            "output folder with blanks and umlauts",
            "average -d 901 -i images -l labels -o 'für Ärztin Groß'",
            makes=("für Ärztin Groß/a_0000.nii.gz",),
        ),
        Valid("folder of images a symbolic link", AVERAGE, _linked("images"), ("averaged/a_0000.nii.gz",)),
        Valid(
            "label file of whole numbers as floats", AVERAGE, _as_floats("labels/b.nii.gz"), ("averaged/b_0000.nii.gz",)
        ),
        Valid(
            "prediction of whole numbers as floats",
            EVALUATE,
            _as_floats("predictions/b.nii.gz"),
            ("measured/metrics.csv",),
        ),
        Valid("picture of three colours in one file", AVERAGE, _coloured, ("averaged/a_0000.png",)),
        Valid(
            "case with a minus before its spacing",
            AVERAGE,  # of one channel and its label it would be another direction
            both(
                *(header(f"{place}.nii.gz", 88, "f", -5.0) for place in ("images/b_0000", "images/b_0001", "labels/b"))
            ),
            ("averaged/b_0000.nii.gz",),
        ),
        Valid("preview picture beside a prediction", EVALUATE, _preview, ("measured/metrics.csv",)),
        Valid(
            "channels named modality, as in older data sets",
            PREPROCESS,
            _modality,
            (f"{FOLDER}/nnUNetPlans_2d_SIKD_per_slice/case_00.b2nd",),
        ),
        Valid("everything as it should be", "train -d 901 -f 0 -device cpu"),  # is trained: no copies, no nnU-Net
        Valid("everything as it should be", "prepare -d 902", starts="nnUNetv2_plan_and_preprocess"),
        Valid("everything as it should be", "export -d 901 -f 0 -o student.zip", makes=("student.zip",)),
        Valid("everything as it should be", "benchmark tiny.yaml -device cpu --dry-run", workspace="to compare"),
    ]
    return unusual


def _modality(folder: Path) -> None:
    import json

    file = folder / FOLDER / "dataset.json"
    content = json.loads(file.read_text())
    content["modality"] = content.pop("channel_names")
    file.write_text(json.dumps(content))


Check = Callable[[Path], bool]
